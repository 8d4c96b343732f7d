//! Loads the images that the `index.json` of an OCI layout lists (image-spec, image-layout.md).

use std::collections::BTreeMap;

use crate::limits::MAX_INDEX_DEPTH;
use crate::oci::{
    Descriptor, ImageConfig, Index, Manifest, ManifestOrIndex, MediaType, Platform, Reference,
    pretty,
};
use crate::store::Store;

use super::archive::{INDEX, ImageArchive};
use super::docker::merged;
use super::layers::{self, UntrustedLayer};
use super::{LoadError, LoadOptions, LoadedImage, Result};

/// The full name: an annotation of containerd and docker.
const FULL_NAME: &str = "io.containerd.image.name";
/// The tag (image-spec, annotations.md). Some tools write the full name here.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Marks an entry that describes another one: BuildKit's attestations
/// (<https://docs.docker.com/build/metadata/attestations/attestation-storage/>).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Loads the images of a layout's `index.json`, each once with all its names.
pub(super) fn images(
    store: &Store,
    contents: &ImageArchive,
    index: &[u8],
    options: &LoadOptions,
) -> Result<Vec<LoadedImage>> {
    let mut images: Vec<LoadedImage> = Vec::new();
    for entry in &parse_index(contents, INDEX, index)?.manifests {
        let mut found = Vec::new();
        collect(store, contents, entry, INDEX, options, 0, &mut found)?;
        let Some(top) = top(store, contents, entry, found)? else { continue };
        let names = name_of(entry).into_iter().collect();
        match images.iter_mut().find(|image| image.top == top.digest) {
            Some(image) => {
                let known = std::mem::take(&mut image.names);
                image.names = merged(known, names);
            }
            None => images.push(LoadedImage { top: top.digest, names, replaced: Vec::new() }),
        }
    }
    some(images, contents, options)
}

/// Returns the images, or an error if there are none.
pub(super) fn some(
    images: Vec<LoadedImage>,
    contents: &ImageArchive,
    options: &LoadOptions,
) -> Result<Vec<LoadedImage>> {
    let shown = || contents.shown.clone();
    match &options.platform {
        _ if !images.is_empty() => Ok(images),
        Some(platform) => Err(LoadError::Platform { shown: shown(), platform: platform.clone() }),
        None => Err(LoadError::NoImages { shown: shown() }),
    }
}

/// Imports the images below an entry that exist and match the wanted platform.
fn collect(
    store: &Store,
    contents: &ImageArchive,
    entry: &Descriptor,
    by: &str,
    options: &LoadOptions,
    depth: usize,
    found: &mut Vec<Descriptor>,
) -> Result<()> {
    if depth > MAX_INDEX_DEPTH {
        return Err(contents.bad(by, "its indexes are nested too deep".to_owned()));
    }
    let bytes = contents.blob(store, entry, by)?;
    let name = entry.digest.to_string();
    let parsed = ManifestOrIndex::parse(&bytes);
    match parsed.map_err(|error| contents.bad(&name, error.to_string()))? {
        ManifestOrIndex::Manifest(manifest) => {
            let platform = import_image(store, contents, &name, &manifest, options)?;
            found.extend(platform.map(|platform| {
                let platform = Some(entry.platform.clone().unwrap_or(platform));
                Descriptor { platform, ..entry.clone() }
            }));
        }
        ManifestOrIndex::Index(index) => {
            for entry in index.manifests {
                // An archive may contain only some of the images.
                let is_there = contents.import_blob(store, &entry)?;
                if is_there && !entry.annotations.contains_key(REFERENCE_TYPE) {
                    collect(store, contents, &entry, &name, options, depth + 1, found)?;
                }
            }
        }
    }
    Ok(())
}

/// Imports config and layers of an image and returns its platform. `None` if another platform is
/// wanted.
fn import_image(
    store: &Store,
    contents: &ImageArchive,
    name: &str,
    manifest: &Manifest,
    options: &LoadOptions,
) -> Result<Option<Platform>> {
    let config = contents.blob(store, &manifest.config, name)?;
    let config = ImageConfig::parse(&config)
        .map_err(|error| contents.bad(&manifest.config.digest.to_string(), error.to_string()))?;
    let platform = config.platform();
    if options.platform.as_ref().is_some_and(|wanted| *wanted != platform) {
        return Ok(None);
    }
    let (n_layers, n_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if n_layers != n_ids {
        let reason = format!("it has {n_layers} layers, but its config {n_ids}");
        return Err(contents.bad(name, reason));
    }
    let mut imported = Vec::with_capacity(n_layers);
    for (blob, diff_id) in manifest.layers.iter().zip(config.rootfs.diff_ids) {
        if blob.media_type.layer_compression().is_none() {
            let reason =
                format!("it has a layer of type {}, which is not a layer type", blob.media_type);
            return Err(contents.bad(name, reason));
        }
        if !contents.import_blob(store, blob)? {
            return Err(contents.missing(&blob.digest.to_string(), name));
        }
        imported.push(UntrustedLayer { diff_id, blob: blob.clone() });
    }
    layers::check(store, &imported, options.jobs)?;
    Ok(Some(platform))
}

/// Returns the descriptor that a name will refer to: the entry itself if all its images exist, a
/// single image, or a new index of the existing ones.
fn top(
    store: &Store,
    contents: &ImageArchive,
    entry: &Descriptor,
    found: Vec<Descriptor>,
) -> Result<Option<Descriptor>> {
    let bytes = contents.blob(store, entry, INDEX)?;
    let Ok(ManifestOrIndex::Index(index)) = ManifestOrIndex::parse(&bytes) else {
        return Ok(found.into_iter().next());
    };
    let same = |one: &Descriptor, other: &Descriptor| one.digest == other.digest;
    let is_whole = index.manifests.len() == found.len()
        && index.manifests.iter().zip(&found).all(|(one, other)| same(one, other));
    match found.as_slice() {
        [] => Ok(None),
        _ if is_whole => Ok(Some(entry.clone())),
        [only] => Ok(Some(only.clone())),
        _ => {
            let media_type = Some(MediaType::OciIndex);
            let annotations: BTreeMap<_, _> = index.annotations;
            let bytes =
                pretty(&Index { schema_version: 2, media_type, manifests: found, annotations });
            store.put_blob(&bytes)?;
            Ok(Some(Descriptor::of(MediaType::OciIndex, &bytes)))
        }
    }
}

fn parse_index(contents: &ImageArchive, name: &str, bytes: &[u8]) -> Result<Index> {
    match ManifestOrIndex::parse(bytes).map_err(|error| contents.bad(name, error.to_string()))? {
        ManifestOrIndex::Index(index) => Ok(index),
        ManifestOrIndex::Manifest(_) => Err(contents.bad(name, "it is not an index".to_owned())),
    }
}

/// Returns the full name of an entry. A tag alone is not a name.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let annotation = |key| entry.annotations.get(key);
    let full = annotation(FULL_NAME).and_then(|name| name.parse().ok());
    full.or_else(|| {
        let name = annotation(REF_NAME)?;
        name.contains([':', '/']).then(|| name.parse().ok())?
    })
}
