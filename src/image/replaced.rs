//! Images that lose their name to another one, in the store and in a registry.

use std::fmt;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{Digest, ImageConfig, Index, ManifestOrIndex, Platform, Reference};
use crate::registry::{Client, RegistryError};
use crate::store::{Store, StoreError};

use super::{ExportError, Result};

/// The image that loses its name to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The name that moves.
    pub name: Reference,
    /// The ID of the image that had the name.
    pub id: Digest,
    /// The platforms of that image. Empty if its documents are missing.
    pub was: Vec<Platform>,
    /// The platforms of the image that gets the name.
    pub now: Vec<Platform>,
}

impl Replaced {
    /// Returns whether the name loses a platform.
    #[must_use]
    pub fn loses_platforms(&self) -> bool {
        !missing_platforms(&self.was, &self.now).is_empty()
    }
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, was, now } = self;
        let name = name.familiar();
        if self.loses_platforms() {
            let (was, now) = (listed(was), listed(now));
            write!(f, "{name} was for {was} and is now for {now} only; ")?;
        } else {
            write!(f, "{name} was another image; ")?;
        }
        write!(f, "the earlier image keeps its ID {id} until `rbuild prune`")
    }
}

/// Returns the image that loses `name` when the image with this manifest or index gets it.
///
/// # Errors
/// [`StoreError::Io`], or the store's error for a damaged new image.
pub fn replaced(
    store: &Store,
    name: &Reference,
    top: Digest,
) -> std::result::Result<Option<Replaced>, StoreError> {
    let Some(old) = store.tags().get(name)?.filter(|old| *old != top && store.has_blob(*old))
    else {
        return Ok(None);
    };
    let id = store.images().id_of(top)?;
    // To give the name of a damaged image to a good one is the remedy: nothing can be said of the
    // damaged one, and nothing is lost.
    let (Ok(old_id), Ok(was)) = (store.images().id_of(old), platforms_of(store, old)) else {
        return Ok(None);
    };
    let Some(old_id) = old_id.filter(|_| old_id != id) else { return Ok(None) };
    let now = platforms_of(store, top)?;
    Ok(Some(Replaced { name: name.clone(), id: old_id, was, now }))
}

/// Returns the platforms of the image with this manifest or index. Empty if documents are missing
/// or invalid.
fn platforms_of(store: &Store, top: Digest) -> std::result::Result<Vec<Platform>, StoreError> {
    let bytes = store.read_blob(top, MAX_DOCUMENT_BYTES)?;
    let config = match ManifestOrIndex::parse(&bytes) {
        Ok(ManifestOrIndex::Index(index)) => return Ok(platforms_in(&index)),
        Ok(ManifestOrIndex::Manifest(manifest)) => manifest.config.digest,
        Err(_not_an_image) => return Ok(Vec::new()),
    };
    if !store.has_blob(config) {
        return Ok(Vec::new());
    }
    let config = ImageConfig::parse(&store.read_blob(config, MAX_DOCUMENT_BYTES)?);
    Ok(config.map(|config| vec![config.platform()]).unwrap_or_default())
}

/// Returns the platforms of an index without duplicates. Attestations have none.
fn platforms_in(index: &Index) -> Vec<Platform> {
    let mut platforms = Vec::new();
    for entry in index.images() {
        let Some(platform) = &entry.platform else { continue };
        let Platform { os, architecture, variant } = platform;
        let platform = Platform::new(os, architecture, variant.as_deref());
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    platforms
}

/// Checks that tagging images for `platforms` as `name` does not remove platforms from the
/// registry's index of that tag. An index that the registry does not show to this caller counts as
/// missing: then the push itself is refused, or creates the name.
///
/// # Errors
/// [`ExportError::Dropped`]; [`ExportError::Registry`] if the registry does not answer.
pub fn check_platforms(
    registry: &Client,
    name: &Reference,
    platforms: &[Platform],
    patience: RegistryRetries,
) -> Result<()> {
    // A name with a digest would refer to that digest, not to the tag.
    let Some(tagged) = name.tag().and_then(|tag| format!("{}:{tag}", name.name()).parse().ok())
    else {
        return Ok(());
    };
    let fetched = match registry.index(&tagged, patience == RegistryRetries::Retries) {
        Ok(fetched) => fetched,
        Err(
            RegistryError::NotFound { .. }
            | RegistryError::Unauthorized { .. }
            | RegistryError::Denied { .. },
        ) => None,
        Err(source) => return Err(ExportError::Registry { name: name.familiar(), source }),
    };
    let Some(Ok(ManifestOrIndex::Index(index))) =
        fetched.map(|fetched| ManifestOrIndex::parse(&fetched.bytes))
    else {
        return Ok(());
    };
    let had = platforms_in(&index);
    let lost = missing_platforms(&had, platforms);
    if lost.is_empty() {
        return Ok(());
    }
    let (had, left, lost) = (listed(&had), listed(platforms), listed(&lost));
    Err(ExportError::Dropped { name: name.familiar(), had, left, lost })
}

/// Number of attempts of a registry request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryRetries {
    /// One attempt: the request is repeated later.
    Once,
    /// All retries that the options configure.
    Retries,
}

fn missing_platforms(had: &[Platform], now: &[Platform]) -> Vec<Platform> {
    had.iter().filter(|platform| !now.contains(platform)).cloned().collect()
}

/// Joins platforms, as in `linux/amd64, linux/arm64`.
fn listed(platforms: &[Platform]) -> String {
    let texts: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
