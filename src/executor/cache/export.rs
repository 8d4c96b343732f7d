//! Export of build caches to registries, directories and buckets, also after a build that failed.

use std::collections::BTreeSet;

use crate::executor::{BuildError, BuildOptions, Outcome, Services};
use crate::image::{self, Artifact, ExportOptions, ImageLayer};
use crate::oci::{Descriptor, DiffId, MediaType};
use crate::store::{LayerSource, StepRecord};

use super::bucket;
use super::build_caches::BuildCaches;
use super::document::{CacheDocument, CachedLayer, CachedMount, CachedStep, MEDIA_TYPE};
use super::import::{check_reachable, ignore_if_allowed};
use super::location::{CacheLocation, CacheTo, store_place};
use super::mount_transfer as transfer;

type Result<T> = std::result::Result<T, BuildError>;

/// Returns the document for `steps`, in which the layers have no blobs yet.
pub(in crate::executor) fn document(
    services: &Services<'_>,
    caches: &BuildCaches,
    steps: &[StepRecord],
) -> Result<CacheDocument> {
    let mut document = CacheDocument::default();
    let mut known = BTreeSet::new();
    for step in steps {
        let claimed = || caches.known.layers.get(&step.layer).cloned();
        let Some(record) = services.store.layer(step.layer)?.or_else(claimed) else {
            continue;
        };
        document.steps.push(CachedStep::new(step));
        if known.insert(step.layer) {
            document.layers.push(CachedLayer::new(step.layer, &record));
        }
    }
    Ok(document)
}

/// Exports the steps of this build to all caches, also if the build failed: finished steps are
/// worth keeping. `image` lists the layers of the result, if there is one.
///
/// # Errors
/// [`BuildError::Cache`] for the first cache that could not be written, unless it says
/// `ignore-error`.
pub(in crate::executor) fn export(
    services: &Services<'_>,
    options: &BuildOptions,
    caches: &BuildCaches,
    image: Option<&BTreeSet<DiffId>>,
) -> Result<()> {
    let (to, steps) = (&options.cache_to, caches.steps_used());
    let max_bytes = to.iter().filter_map(|cache| cache.mounts).max();
    let exports = max_bytes.map(|max_bytes| {
        caches.mounts.collect_exports(services, options.jobs, max_bytes, image.is_none())
    });
    let exports = exports.unwrap_or_default();
    for cache in to.iter().filter(|cache| cache.place != CacheLocation::Inline) {
        let is_wanted = |step: &&StepRecord| {
            cache.all_steps || image.is_none_or(|layers| layers.contains(&step.layer))
        };
        let exported: Vec<StepRecord> = steps.iter().filter(is_wanted).cloned().collect();
        let shown = services.start(format!("[internal] export cache to {}", cache.place));
        let mounts = match cache.mounts {
            Some(max_bytes) => {
                transfer::document_entries(&transfer::fitting(services, &exports, max_bytes))
            }
            None => Vec::new(),
        };
        let done = export_one(services, options, caches, cache, &exported, mounts);
        let outcome = if done.is_ok() { Outcome::Done } else { Outcome::Failed };
        services.finish(shown, outcome);
        ignore_if_allowed(services, "export the cache to", &cache.place, cache.ignore_error, done)?;
    }
    Ok(())
}

fn export_one(
    services: &Services<'_>,
    build: &BuildOptions,
    caches: &BuildCaches,
    cache: &CacheTo,
    steps: &[StepRecord],
    mounts: Vec<CachedMount>,
) -> Result<()> {
    check_reachable(services, &cache.place)?;
    let (store, registry) = (services.store, services.registry);
    let mut document = document(services, caches, steps)?;
    let n_layers = document.layers.len();
    let mut layers: Vec<ImageLayer> = document
        .layers
        .iter()
        .map(|layer| ImageLayer { diff_id: layer.diff_id, size: 0, pulled: None })
        .collect();
    // An archive is exported as a layer that is packed already.
    layers.extend(transfer::archives(&mounts).into_iter().map(|archive| {
        let pulled = Some(archive.blob.clone());
        ImageLayer { diff_id: archive.diff_id, size: archive.tar_bytes, pulled }
    }));
    document.mounts = mounts;
    let write = |blobs: &[Descriptor]| {
        let mut document = document.clone();
        for (layer, blob) in document.layers.iter_mut().zip(blobs) {
            layer.blob = Some(blob.clone());
        }
        serde_json::to_vec(&document).expect("texts and numbers always serialize")
    };
    let media_type = MediaType::from(MEDIA_TYPE.to_owned());
    let artifact = Artifact { layers: &layers, media_type: &media_type, document: &write };
    let options = ExportOptions::of_layers(cache.packing, build.jobs);
    let written = match &cache.place {
        CacheLocation::Registry(name) => {
            image::push_artifact(store, registry, name, &artifact, &options, &|_more| {}).map(drop)
        }
        CacheLocation::Directory(path, tag) => {
            fetch_missing(services, &layers)?;
            image::write_artifact(store, path, tag, &artifact, &options).map(drop)
        }
        CacheLocation::Bucket(bucket) => {
            bucket::write(bucket, services, &artifact, &options, build.now_s)?;
            Ok(())
        }
        CacheLocation::Inline => Ok(()),
    };
    written.map_err(BuildError::Export)?;
    if let Some(place) = store_place(&cache.place)? {
        for ImageLayer { diff_id, pulled, .. } in layers.iter().skip(n_layers) {
            let Some(blob) = pulled.clone() else { continue };
            store.layer_sources().record(*diff_id, &LayerSource { blob, place: place.clone() })?;
        }
    }
    Ok(())
}

/// Fetches layers and archives that the store lacks. Archives are removed when the process ends.
fn fetch_missing(services: &Services<'_>, layers: &[ImageLayer]) -> Result<()> {
    let (store, registry) = (services.store, services.registry);
    for layer in layers {
        let fetched = match &layer.pulled {
            Some(blob) if store.has_blob(blob.digest) => Ok(()),
            Some(blob) => image::fetch_temporarily(store, registry, layer.diff_id, blob),
            None if store.has_layer(layer.diff_id)? => Ok(()),
            None => image::fetch_layer(store, registry, layer.diff_id, None, &|_more| {}),
        };
        fetched.map_err(BuildError::Export)?;
    }
    Ok(())
}
