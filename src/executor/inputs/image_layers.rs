//! Layers of base images and of caches elsewhere, fetched when a step or an output needs them.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::executor::{BuildError, Event, Outcome, Services};
use crate::image::{self, ExportError};
use crate::oci::{Descriptor, DiffId};
use crate::plan::ImageLocation;
use crate::pool;
use crate::store::{LayerOptions, LayerSource, Store};

use super::image::ResolvedImage;
use super::layout_path;

/// Maximum number of layers that are pulled at once for one image, or for one step.
pub(in crate::executor) const PULLS_AT_ONCE: usize = 4;

type Result<T> = std::result::Result<T, BuildError>;

/// Pulls the layers that the store has in no representation, and unpacks them meanwhile if `unpack` says
/// how.
pub(in crate::executor) fn fetch_layers(
    services: &Services<'_>,
    resolved: &ResolvedImage,
    unpack: Option<&LayerOptions>,
) -> Result<()> {
    let store = services.store;
    let mut missing = Vec::new();
    for (diff_id, layer) in resolved.layers() {
        if store.has_layer(diff_id)? {
            continue;
        }
        let sources = sources_of(store, resolved, diff_id, layer)?;
        // The blob may be here without a record: it belongs to another image, or its process died.
        if store.has_blob(layer.digest) {
            fetch_one(services, resolved, diff_id, &sources, unpack, &|_more| {})?;
        } else {
            missing.push((diff_id, layer.size, sources));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let total_bytes = missing.iter().map(|(_, n_bytes, _)| n_bytes).sum();
    let step = services.start(format!("[internal] pull {}", resolved.name));
    let done_bytes = AtomicU64::new(0);
    let progress = |more: u64| {
        let done_bytes = done_bytes.fetch_add(more, Ordering::Relaxed) + more;
        services.event(Event::Progress { step: step.id, done_bytes, total_bytes });
    };
    let jobs = NonZeroUsize::new(PULLS_AT_ONCE).unwrap_or(NonZeroUsize::MIN);
    let pulled = pool::map_in_order(&missing, jobs, |(diff_id, _, sources)| {
        fetch_one(services, resolved, *diff_id, sources, unpack, &progress)
    });
    let pulled: Result<()> = pulled.into_iter().collect();
    services.finish(step, if pulled.is_ok() { Outcome::Done } else { Outcome::Failed });
    pulled
}

/// Fetches a layer from the first location that has it; returns the error of the first location.
fn fetch_one(
    services: &Services<'_>,
    resolved: &ResolvedImage,
    diff_id: DiffId,
    sources: &[LayerSource],
    unpack: Option<&LayerOptions>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let (store, registry) = (services.store, services.registry);
    let mut first = None;
    for source in sources {
        match image::fetch_from(store, registry, diff_id, source, unpack, progress) {
            Ok(()) => return Ok(()),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    let (name, span) = (resolved.name.familiar(), resolved.span);
    Err(match first.expect("a layer is somewhere") {
        ExportError::Origin { source, .. } => BuildError::Image { span, name, source },
        error @ (ExportError::Store(_)
        | ExportError::Io(_)
        | ExportError::Archive(_)
        | ExportError::Registry { .. }
        | ExportError::ImmutableTag { .. }
        | ExportError::NotABase { .. }
        | ExportError::Remote { .. }
        | ExportError::Join { .. }
        | ExportError::Dropped { .. }
        | ExportError::NoPlatform { .. }
        | ExportError::Layout(_)
        | ExportError::WrongBlob { .. }
        | ExportError::Manifest { .. }
        | ExportError::Config { .. }
        | ExportError::Index { .. }
        | ExportError::LayerCount { .. }
        | ExportError::LayerType { .. }
        | ExportError::ImageCount { .. }
        | ExportError::NoLayout { .. }) => BuildError::Export(error),
    })
}

/// Returns the locations of an image's layer, its own repository first; at least one. Layers of an
/// image that was built here were never in the repository of its name.
fn sources_of(
    store: &Store,
    resolved: &ResolvedImage,
    diff_id: DiffId,
    layer: &Descriptor,
) -> Result<Vec<LayerSource>> {
    if layer.media_type.layer_compression().is_none() {
        let name = resolved.name.to_string();
        let reason = format!("a layer is of type {}, which is not a layer type", layer.media_type);
        return Err(BuildError::BadImage { span: None, name, reason });
    }
    let mut known = store.layer_sources().of_layer(diff_id)?;
    known.retain(|source| source.blob.digest == layer.digest);
    let place = match &resolved.place {
        ImageLocation::Registry | ImageLocation::Stored(_) => resolved.name.name(),
        ImageLocation::Layout(place) => layout_path::absolute(&place.path)?,
    };
    known.sort_by_key(|source| source.place != place);
    if known.is_empty() {
        known.push(LayerSource { blob: layer.clone(), place });
    }
    Ok(known)
}

/// Fetches a layer that this store did not make and that no base image of this build has. Unpacks it
/// meanwhile if `unpack` says how.
pub(in crate::executor) fn fetch_known(
    services: &Services<'_>,
    diff_id: DiffId,
    unpack: Option<&LayerOptions>,
) -> Result<()> {
    let (store, registry) = (services.store, services.registry);
    if store.has_layer(diff_id)? {
        return Ok(());
    }
    let total_bytes =
        store.layer_sources().of_layer(diff_id)?.first().map_or(0, |source| source.blob.size);
    let step = services.start(format!("[internal] pull layer {}", diff_id.digest()));
    let done_bytes = AtomicU64::new(0);
    let progress = |more: u64| {
        let done_bytes = done_bytes.fetch_add(more, Ordering::Relaxed) + more;
        services.event(Event::Progress { step: step.id, done_bytes, total_bytes });
    };
    let fetched = image::fetch_layer(store, registry, diff_id, unpack, &progress);
    services.finish(step, if fetched.is_ok() { Outcome::Done } else { Outcome::Failed });
    fetched.map_err(|error| BuildError::CachedLayer { layer: diff_id, source: Box::new(error) })
}
