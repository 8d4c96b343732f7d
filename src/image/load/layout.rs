//! OCI layouts: what their `index.json` names.

use std::collections::BTreeMap;

use crate::limits::MAX_INDEX_DEPTH;
use crate::oci::{
    Descriptor, ImageConfig, Index, Manifest, MediaType, Parsed, Platform, Reference, pretty,
};
use crate::store::Store;

use super::archive::{Contents, INDEX};
use super::docker::merged;
use super::layers::{self, Layer};
use super::{LoadError, LoadOptions, LoadedImage, Result};

/// The full name, as containerd and docker write it.
const FULL_NAME: &str = "io.containerd.image.name";
/// The tag (image-spec, annotations.md); others put the full name there.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What an entry has that describes another one (BuildKit's attestations).
const ABOUT_ANOTHER: &str = "vnd.docker.reference.type";
/// The images that a layout's own index names, each once with all its names.
pub(super) fn images(
    store: &Store,
    contents: &Contents,
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

/// The images, if there are any.
pub(super) fn some(
    images: Vec<LoadedImage>,
    contents: &Contents,
    options: &LoadOptions,
) -> Result<Vec<LoadedImage>> {
    let shown = || contents.shown.clone();
    match &options.platform {
        _ if !images.is_empty() => Ok(images),
        Some(platform) => Err(LoadError::Platform { shown: shown(), platform: platform.clone() }),
        None => Err(LoadError::NoImages { shown: shown() }),
    }
}

/// Brings the images below an entry that are there and for the platform that is wanted.
fn collect(
    store: &Store,
    contents: &Contents,
    entry: &Descriptor,
    by: &str,
    options: &LoadOptions,
    depth: usize,
    found: &mut Vec<Descriptor>,
) -> Result<()> {
    if depth > MAX_INDEX_DEPTH {
        return Err(contents.bad(by, "its indexes name each other".to_owned()));
    }
    let bytes = contents.blob(store, entry, by)?;
    let name = entry.digest.to_string();
    let parsed = Parsed::parse(&bytes);
    match parsed.map_err(|error| contents.bad(&name, error.to_string()))? {
        Parsed::Manifest(manifest) => {
            let platform = bring(store, contents, &name, &manifest, options)?;
            found.extend(platform.map(|platform| {
                let platform = Some(entry.platform.clone().unwrap_or(platform));
                Descriptor { platform, ..entry.clone() }
            }));
        }
        Parsed::Index(index) => {
            for entry in index.manifests {
                // An archive may hold some of the images only.
                let is_there = contents.bring(store, &entry)?;
                if is_there && !entry.annotations.contains_key(ABOUT_ANOTHER) {
                    collect(store, contents, &entry, &name, options, depth + 1, found)?;
                }
            }
        }
    }
    Ok(())
}

/// Brings config and layers of an image; gives its platform, or nothing when another is wanted.
fn bring(
    store: &Store,
    contents: &Contents,
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
    let mut brought = Vec::with_capacity(n_layers);
    for (blob, diff_id) in manifest.layers.iter().zip(config.rootfs.diff_ids) {
        if blob.media_type.layer_compression().is_none() {
            let reason = format!("it has a layer of type {}, which is no layer", blob.media_type);
            return Err(contents.bad(name, reason));
        }
        if !contents.bring(store, blob)? {
            return Err(contents.missing(&blob.digest.to_string(), name));
        }
        brought.push(Layer { diff_id, blob: blob.clone() });
    }
    layers::check(store, &brought, options.jobs)?;
    Ok(Some(platform))
}

/// What a name will stand for: the entry itself if all that it names is there, one image, or a new
/// index over those that are.
fn top(
    store: &Store,
    contents: &Contents,
    entry: &Descriptor,
    found: Vec<Descriptor>,
) -> Result<Option<Descriptor>> {
    let bytes = contents.blob(store, entry, INDEX)?;
    let Ok(Parsed::Index(index)) = Parsed::parse(&bytes) else {
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

fn parse_index(contents: &Contents, name: &str, bytes: &[u8]) -> Result<Index> {
    match Parsed::parse(bytes).map_err(|error| contents.bad(name, error.to_string()))? {
        Parsed::Index(index) => Ok(index),
        Parsed::Manifest(_) => Err(contents.bad(name, "it is no index".to_owned())),
    }
}

/// The full name of an entry; a tag alone is none.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let annotation = |key| entry.annotations.get(key);
    let full = annotation(FULL_NAME).and_then(|name| name.parse().ok());
    full.or_else(|| {
        let name = annotation(REF_NAME)?;
        name.contains([':', '/']).then(|| name.parse().ok())?
    })
}
