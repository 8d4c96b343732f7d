//! Archives of `docker save` and compatible tools: `manifest.json` lists configs and layers
//! (<https://github.com/moby/docker-image-spec>).

use serde::Deserialize;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{Descriptor, DiffId, ImageConfig, Manifest, MediaType, Reference, pretty};
use crate::store::Store;

use super::archive::{ImageArchive, MANIFEST};
use super::layers::{self, UntrustedLayer};
use super::{LoadOptions, LoadedImage, Result};

/// An entry of `manifest.json`: one image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerArchiveEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Parses docker's `manifest.json`, for fuzzing.
///
/// # Errors
/// The cause as text.
#[doc(hidden)]
pub fn probe_table(bytes: &[u8]) -> std::result::Result<usize, String> {
    let entries: Vec<DockerArchiveEntry> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let names = entries.iter().flat_map(|entry| entry.repo_tags.iter().flatten());
    let layers = entries.iter().filter_map(|entry| entry.layers.as_ref()).map(Vec::len);
    Ok(names.filter(|name| name.parse::<Reference>().is_ok()).count() + layers.sum::<usize>())
}

/// Loads the images of an archive. Each gets a manifest, which this format lacks.
pub(super) fn images(
    store: &Store,
    contents: &ImageArchive,
    manifest: &[u8],
    options: &LoadOptions,
) -> Result<Vec<LoadedImage>> {
    let mut images: Vec<LoadedImage> = Vec::new();
    for entry in entries(contents, manifest)? {
        let config_digest = contents.file(&entry.config, MANIFEST)?;
        let config_bytes = store.read_blob(config_digest, MAX_DOCUMENT_BYTES)?;
        let config = ImageConfig::parse(&config_bytes)
            .map_err(|error| contents.bad(&entry.config, error.to_string()))?;
        if options.platform.as_ref().is_some_and(|wanted| *wanted != config.platform()) {
            continue;
        }
        let names = names(contents, &entry)?;
        let layers = layers(store, contents, &entry, &config, options)?;
        let manifest = pretty(&Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OciManifest),
            config: Descriptor::of(MediaType::OciConfig, &config_bytes),
            layers,
            annotations: Default::default(),
        });
        images.push(LoadedImage { top: store.put_blob(&manifest)?, names, replaced: Vec::new() });
    }
    super::layout::some(images, contents, options)
}

/// Adds the names in `manifest.json` to images that were loaded from the index.
pub(super) fn add_names(
    store: &Store,
    contents: &ImageArchive,
    manifest: &[u8],
    images: &mut [LoadedImage],
) -> Result<()> {
    for entry in entries(contents, manifest)? {
        let Ok(config) = contents.file(&entry.config, MANIFEST) else { continue };
        for image in images.iter_mut() {
            if store.images().id_of(image.top)? == Some(config) {
                let known = std::mem::take(&mut image.names);
                let more = names(contents, &entry)?;
                image.names = merged(known, more);
            }
        }
    }
    Ok(())
}

/// Returns the names of both lists without duplicates.
pub(super) fn merged(mut names: Vec<Reference>, more: Vec<Reference>) -> Vec<Reference> {
    for name in more {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn entries(contents: &ImageArchive, manifest: &[u8]) -> Result<Vec<DockerArchiveEntry>> {
    serde_json::from_slice(manifest).map_err(|error| contents.bad(MANIFEST, error.to_string()))
}

fn names(contents: &ImageArchive, entry: &DockerArchiveEntry) -> Result<Vec<Reference>> {
    let names = entry.repo_tags.iter().flatten().map(|name| {
        name.parse::<Reference>().map_err(|error| contents.bad(MANIFEST, error.to_string()))
    });
    names.collect()
}

/// Imports the layers, whose files can have any name and compression.
fn layers(
    store: &Store,
    contents: &ImageArchive,
    entry: &DockerArchiveEntry,
    config: &ImageConfig,
    options: &LoadOptions,
) -> Result<Vec<Descriptor>> {
    let files = entry.layers.as_deref().unwrap_or_default();
    let diff_ids = &config.rootfs.diff_ids;
    if files.len() != diff_ids.len() {
        let (n_files, n_ids) = (files.len(), diff_ids.len());
        let reason = format!("it has {n_files} layers, but {} has {n_ids}", entry.config);
        return Err(contents.bad(MANIFEST, reason));
    }
    let layer = |(file, diff_id): (&String, &DiffId)| -> Result<UntrustedLayer> {
        let blob = contents.file(file, MANIFEST)?;
        let (blob, compression, n_bytes) = layers::detect_compression(store, contents, file, blob)?;
        let media_type = MediaType::OciLayer(compression);
        Ok(UntrustedLayer { diff_id: *diff_id, blob: Descriptor::new(media_type, blob, n_bytes) })
    };
    let found: Vec<UntrustedLayer> =
        files.iter().zip(diff_ids).map(layer).collect::<Result<_>>()?;
    layers::check(store, &found, options.jobs)?;
    Ok(found.into_iter().map(|layer| layer.blob).collect())
}
