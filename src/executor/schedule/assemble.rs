//! Assembly of an image: config with history and layers, and the store's own manifest.

use crate::oci::{
    Annotation, AnnotationLevel, Descriptor, DiffId, Digest, History, ImageConfig, Index,
    LayerCompression, Manifest, MediaType, Platform, RootFs, annotations_for, pretty,
};
use crate::plan::Base;
use crate::store::{StepRecord, Store, StoredLayer};

use crate::executor::cache::document::CONFIG_MEMBER;
use crate::executor::cache::export;
use crate::executor::schedule::squash::{self, SquashedLayers};
use crate::executor::state::BuildState;
use crate::executor::state::stage_result::{StageLayer, StageResult};
use crate::executor::{BuildError, BuiltImage, BuiltLayer, CacheLocation, Failure};

/// Comment of each history entry by BuildKit. Other tools look for it.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// Comment of the entries for layers that a base image's history does not account for.
const COMMENT_EXTRA: &str = "buildkit.exporter.image.v0";

/// An image whose documents are in the store.
#[derive(Debug, Clone)]
pub(in crate::executor) struct AssembledImage {
    /// Descriptor of its manifest, with the platform.
    pub(in crate::executor) manifest: Descriptor,
    pub(in crate::executor) config: Digest,
    /// Index of the stage that the image is made from.
    pub(in crate::executor) stage: usize,
    /// The image and its layers.
    pub(in crate::executor) built: BuiltImage,
    /// The layers of the stage, base first: those of the image, unless it is squashed.
    pub(in crate::executor) layers: Vec<DiffId>,
}

/// Writes config and manifest of the image for `platform` that a stage ends with.
pub(in crate::executor) fn image(
    state: &BuildState<'_>,
    stage: &StageResult,
    platform: &Platform,
) -> Result<AssembledImage, Failure> {
    let planned = state.plan.stages.get(stage.number).expect("a plan names its own stages");
    let mut config = planned.config.clone();
    config.set_platform(platform);
    let n_base = config.rootfs.diff_ids.len();
    config.history = base_history(&config, n_base);
    append_history(state, &mut config, stage)?;
    let stage_layers = stage.stack.diff_ids()?;
    let base = base_layers(state, stage)?;
    let squashed = squash::squashed(state, stage, base.len())?;
    let mut diff_ids = stage_layers.clone();
    if let Some(squashed) = &squashed {
        diff_ids.truncate(squashed.n_kept);
        diff_ids.extend(squashed.layer.as_ref().map(|layer| layer.diff_id));
        let created = config.history.iter().rev().find_map(|entry| entry.created.clone());
        squash::squash_history(&mut config.history, squashed, created);
    }
    config.rootfs = RootFs { diff_ids, ..RootFs::default() };
    config.created = match state.options.epoch_s {
        Some(epoch_s) => Some(rfc3339(epoch_s)),
        None => config.history.iter().rev().find_map(|entry| entry.created.clone()),
    };
    let store = state.services.store;
    let diff_ids = config.rootfs.diff_ids.clone();
    if state.options.cache_to.iter().any(|cache| cache.place == CacheLocation::Inline) {
        let document = inline_cache(state, &diff_ids)?;
        config.extra.insert(CONFIG_MEMBER.to_owned(), document);
    }
    let config_bytes = config.to_json();
    let config_digest = store.put_blob(&config_bytes).map_err(BuildError::from)?;
    let (layers, built_layers) = described_layers(state, stage, base, squashed)?;
    let built = BuiltImage { platform: platform.clone(), layers: built_layers };
    let annotations = |level| annotations_for(&state.options.annotations, level, Some(platform));
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OciManifest),
        config: Descriptor::of(MediaType::OciConfig, &config_bytes),
        layers,
        annotations: annotations(AnnotationLevel::Manifest),
    };
    let bytes = pretty(&manifest);
    store.put_blob(&bytes).map_err(BuildError::from)?;
    let mut manifest = Descriptor::of(MediaType::OciManifest, &bytes);
    manifest.annotations = annotations(AnnotationLevel::ManifestDescriptor);
    manifest.platform = Some(platform.clone());
    let (config, stage) = (config_digest, stage.number);
    Ok(AssembledImage { manifest, config, stage, built, layers: stage_layers })
}

/// Returns the descriptors of the image's layers, those of `base` first, and the facts about them.
fn described_layers(
    state: &BuildState<'_>,
    stage: &StageResult,
    base: Vec<Descriptor>,
    squashed: Option<SquashedLayers>,
) -> Result<(Vec<Descriptor>, Vec<BuiltLayer>), Failure> {
    let plain = |layer: &StoredLayer| {
        let media_type = MediaType::OciLayer(LayerCompression::None);
        Descriptor::new(media_type, layer.diff_id.digest(), layer.record.tar_bytes)
    };
    let own = stage.stack.layers()?.into_iter().skip(base.len());
    let mut layers = base;
    layers.extend(own.map(|layer| plain(&layer)));
    let mut built_layers = built_layers(state, stage, &layers)?;
    if let Some(squashed) = squashed {
        let made_by = built_layers.last().and_then(|layer| layer.made_by.clone());
        layers.truncate(squashed.n_kept);
        built_layers.truncate(squashed.n_kept);
        layers.extend(squashed.layer.iter().map(plain));
        built_layers.extend(squashed.layer.map(|layer| BuiltLayer {
            diff_id: layer.diff_id,
            stored_bytes: layer.record.tar_bytes,
            tar_bytes: Some(layer.record.tar_bytes),
            made_by,
        }));
    }
    Ok((layers, built_layers))
}

/// Returns the layers with the facts that are known about them; `stored` has the manifest's
/// descriptors.
fn built_layers(
    state: &BuildState<'_>,
    stage: &StageResult,
    stored: &[Descriptor],
) -> Result<Vec<BuiltLayer>, Failure> {
    let layers = stage.stack.layers()?;
    let made: Vec<&StageLayer> = stage.history.iter().filter_map(|e| e.layer.as_ref()).collect();
    let n_base = layers.len().saturating_sub(made.len());
    let made_by = (0..n_base).map(|_| None).chain(made.iter().map(|layer| Some(&layer.made_by)));
    let mut built = Vec::with_capacity(layers.len());
    for ((layer, stored), made_by) in layers.into_iter().zip(stored).zip(made_by) {
        let (diff_id, tar_bytes) = (layer.diff_id, layer.record.tar_bytes);
        built.push(BuiltLayer {
            diff_id,
            stored_bytes: stored.size,
            tar_bytes: match made_by {
                Some(_) => Some(tar_bytes),
                None => state.services.store.tar_bytes(diff_id).map_err(BuildError::from)?,
            },
            made_by: made_by.cloned(),
        });
    }
    Ok(built)
}

/// Returns the document of an inline cache for the image's own layers.
fn inline_cache(state: &BuildState<'_>, layers: &[DiffId]) -> Result<serde_json::Value, Failure> {
    let own = |step: &StepRecord| layers.contains(&step.layer);
    let steps: Vec<_> = state.caches.steps_used().into_iter().filter(own).collect();
    let mut document = export::document(state.services, state.caches, &steps)?;
    document.forget_times(state.options.epoch_s);
    Ok(serde_json::to_value(document).expect("texts and numbers always serialize"))
}

/// Writes the index over images for several platforms (image-spec, image-index.md).
pub(in crate::executor) fn index(
    store: &Store,
    images: &[AssembledImage],
    annotations: &[Annotation],
) -> Result<Digest, Failure> {
    let index = Index {
        schema_version: 2,
        media_type: Some(MediaType::OciIndex),
        manifests: images.iter().map(|image| image.manifest.clone()).collect(),
        annotations: annotations_for(annotations, AnnotationLevel::Index, None),
    };
    Ok(store.put_blob(&pretty(&index)).map_err(BuildError::from)?)
}

/// Returns the base image's history with one entry for each of its layers (image-spec, config.md,
/// `history`).
fn base_history(config: &ImageConfig, n_layers: usize) -> Vec<History> {
    let mut history = config.history.clone();
    let n_entries = history.iter().filter(|entry| !entry.empty_layer).count();
    let comment = Some(COMMENT_EXTRA.to_owned());
    let missing = n_layers.saturating_sub(n_entries);
    history
        .extend((0..missing).map(|_| History { comment: comment.clone(), ..History::default() }));
    let mut surplus = n_entries.saturating_sub(n_layers);
    for entry in history.iter_mut().rev().filter(|entry| !entry.empty_layer) {
        if surplus == 0 {
            break;
        }
        entry.empty_layer = true;
        surplus -= 1;
    }
    history
}

/// Appends an entry for each instruction. One without a layer has the time of the layer before.
fn append_history(
    state: &BuildState<'_>,
    config: &mut ImageConfig,
    stage: &StageResult,
) -> Result<(), Failure> {
    let mut times = Vec::new();
    for entry in stage.history.iter() {
        let layer = entry.layer.as_ref().map(|layer| layer.stack.top()).transpose()?.flatten();
        times.push(layer.map(|layer| layer.record.created_s));
    }
    let first = times.iter().flatten().next().copied();
    let mut time_s = first.unwrap_or(state.options.now_s);
    for (entry, own) in stage.history.iter().zip(times) {
        time_s = own.unwrap_or(time_s);
        config.history.push(History {
            created: Some(rfc3339(state.options.epoch_s.unwrap_or(time_s))),
            created_by: Some(entry.line.created_by.clone()),
            author: None,
            comment: Some(COMMENT.to_owned()),
            empty_layer: entry.line.empty_layer,
        });
    }
    Ok(())
}

/// Returns the descriptors of the base image's layers in OCI media types, otherwise unchanged.
fn base_layers(state: &BuildState<'_>, stage: &StageResult) -> Result<Vec<Descriptor>, Failure> {
    let mut at = stage.number;
    let request = loop {
        let planned = state.plan.stages.get(at).expect("a plan names its own stages");
        match &planned.base {
            Base::Scratch => return Ok(Vec::new()),
            Base::Stage(parent) => at = *parent,
            Base::Image(request) => break request,
        }
    };
    let image = state.images.get(request);
    Ok(image.manifest.layers.iter().map(in_oci_type).collect())
}

fn in_oci_type(layer: &Descriptor) -> Descriptor {
    let compression = layer.media_type.layer_compression().unwrap_or(LayerCompression::None);
    Descriptor::new(MediaType::OciLayer(compression), layer.digest, layer.size)
}

/// Formats seconds since 1970 as RFC 3339.
fn rfc3339(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}
