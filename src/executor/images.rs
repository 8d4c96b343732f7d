//! Images that FROM and `--from` name: their manifests and configs first, their layers only when
//! somebody needs them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::syntax;
use crate::image::{self, ExportError};
use crate::limits::{MAX_DOCUMENT_BYTES, MAX_IMAGES_AT_ONCE};
use crate::oci::{
    Descriptor, DiffId, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference,
};
use crate::plan::{BaseImage, ImageLocation, ImageRequest, Images};
use crate::pool;
use crate::registry::RegistryError;
use crate::store::{LayerRecord, LayerSource, Store, StoredLayer};
use crate::tree::ContentDigest;

use super::shared::{Shared, Steps};
use super::stack::Stack;
use super::{BuildError, Event, Outcome, layout, resolve};

/// Layers of one image that are pulled at once.
const PULLS_AT_ONCE: usize = 4;

type Result<T> = std::result::Result<T, BuildError>;

/// An image whose documents are in the store.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    /// Where its layers can be had.
    pub(super) name: Reference,
    pub(super) place: ImageLocation,
    /// Where the Dockerfile names it first.
    pub(super) span: Option<Span>,
    /// The manifest's.
    pub(super) digest: Digest,
    pub(super) manifest: Manifest,
    pub(super) config: ImageConfig,
}

/// All images that the build has met.
#[derive(Debug, Default)]
pub(super) struct ImageTable {
    pub(super) resolved: BTreeMap<ImageRequest, Resolved>,
    /// Stages that need the same image's layers wait for each other.
    layers: Mutex<()>,
    shared_stacks: Mutex<BTreeMap<ImageRequest, Stack>>,
}

impl ImageTable {
    pub(super) fn get(&self, request: &ImageRequest) -> &Resolved {
        self.resolved.get(request).expect("a plan names only images that were resolved")
    }

    /// The stack of an image's layers.
    pub(super) fn stack(&self, request: &ImageRequest) -> Stack {
        let mut stacks = self.shared_stacks.lock().unwrap_or_else(PoisonError::into_inner);
        stacks.entry(request.clone()).or_insert_with(|| self.get(request).stack()).clone()
    }

    /// Resolves what is missing, all at once, and adds what planning needs of it.
    pub(super) fn resolve(
        &mut self,
        shared: &Shared<'_>,
        needs: &[(ImageRequest, Span)],
        images: &mut Images,
    ) -> Result<()> {
        let found = pool::map_in_order(needs, MAX_IMAGES_AT_ONCE, |(request, span)| {
            let resolved = resolve::image(shared, request, Some(*span))?;
            let base = base_image(&resolved.config, *span)?;
            Ok::<_, BuildError>((request.clone(), resolved, base))
        });
        for found in found {
            let (request, resolved, base) = found?;
            images.insert(request.clone(), base);
            self.resolved.insert(request, resolved);
        }
        Ok(())
    }

    /// Returns the image with this layer.
    pub(super) fn image_of(&self, diff_id: DiffId) -> Option<&Resolved> {
        let has = |resolved: &&Resolved| resolved.layers().any(|(layer, _)| layer == diff_id);
        self.resolved.values().find(has)
    }

    /// Pulls the image that has this layer, or the layer alone from where it is known to be.
    pub(super) fn fetch_layer(&self, shared: &Shared<'_>, diff_id: DiffId) -> Result<()> {
        // A panic while it was held says nothing about the store.
        let _alone = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        match self.image_of(diff_id) {
            Some(resolved) => fetch_layers(shared, resolved),
            None => fetch_known(shared, diff_id),
        }
    }
}

impl Resolved {
    /// The layers, base first, with their identities.
    pub(super) fn layers(&self) -> impl ExactSizeIterator<Item = (DiffId, &Descriptor)> {
        self.config.rootfs.diff_ids.iter().copied().zip(&self.manifest.layers)
    }

    /// The stack of the image's layers, whether or not they are in the store yet.
    pub(super) fn stack(&self) -> Stack {
        self.layers().fold(Stack::default(), |stack, (diff_id, _)| {
            let content = ContentDigest::of_pulled(diff_id);
            let record = LayerRecord { content, tar_bytes: 0, created_s: 0 };
            stack.with_pulled(StoredLayer { diff_id, record })
        })
    }
}

/// An image without the triggers of its ONBUILD.
pub(super) fn base_config(config: &ImageConfig) -> BaseImage {
    BaseImage { config: config.clone(), triggers: Vec::new() }
}

pub(super) fn base_image(config: &ImageConfig, span: Span) -> Result<BaseImage> {
    let mut triggers = Vec::new();
    for text in &config.config.on_build {
        let (trigger, diagnostics) = syntax::parse_trigger(text);
        if let Some(bad) = diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
            let message =
                format!("the image's trigger `ONBUILD {text}` is not valid: {}", bad.message);
            return Err(Diagnostic::error(codes::BAD_ONBUILD, span, message).into());
        }
        triggers.extend(trigger);
    }
    Ok(BaseImage { config: config.clone(), triggers })
}

/// The image with this manifest, or of this index, if all its documents are here.
pub(super) fn from_store(
    store: &Store,
    name: &Reference,
    platform: &Platform,
    digest: Digest,
) -> Result<Option<Resolved>> {
    if !store.has_blob(digest) {
        return Ok(None);
    }
    let bytes = store.read_blob(digest, MAX_DOCUMENT_BYTES)?;
    let manifest = match parse_manifest(name, &bytes)? {
        ManifestOrIndex::Manifest(manifest) if store.has_blob(manifest.config.digest) => manifest,
        ManifestOrIndex::Manifest(_) => return Ok(None),
        ManifestOrIndex::Index(index) => {
            return match index.select(platform) {
                // An index in an index would be a loop without end, if it were its own.
                Some(entry) if entry.media_type.is_manifest() => {
                    from_store(store, name, platform, entry.digest)
                }
                _ => Ok(None),
            };
        }
    };
    let config = store.read_blob(manifest.config.digest, MAX_DOCUMENT_BYTES)?;
    let config = parse_config(name, &config)?;
    let place = ImageLocation::Registry;
    let name = name.clone();
    checked(Resolved { name, place, span: None, digest, manifest, config }, None).map(Some)
}

pub(super) fn parse_manifest(name: &Reference, bytes: &[u8]) -> Result<ManifestOrIndex> {
    ManifestOrIndex::parse(bytes)
        .map_err(|source| BuildError::Manifest { name: name.to_string(), source })
}

fn parse_config(name: &Reference, bytes: &[u8]) -> Result<ImageConfig> {
    ImageConfig::parse(bytes)
        .map_err(|source| BuildError::Config { name: name.to_string(), source })
}

/// The image, whose documents agree.
pub(super) fn checked(resolved: Resolved, span: Option<Span>) -> Result<Resolved> {
    let (n_layers, n_ids) = (resolved.manifest.layers.len(), resolved.config.rootfs.diff_ids.len());
    if n_layers != n_ids {
        let reason = format!("its manifest has {n_layers} layers, its config {n_ids}");
        return Err(BuildError::BadImage { span, name: resolved.name.to_string(), reason });
    }
    Ok(Resolved { span, ..resolved })
}

/// Asks the registry what `name` is now, or for what it was when its manifest was `at`.
pub(super) fn from_registry(
    shared: &Steps<'_>,
    name: &Reference,
    at: Option<Digest>,
    platform: &Platform,
    span: Option<Span>,
) -> Result<Resolved> {
    let registry = shared.services.registry;
    let store = shared.services.store;
    let failed = |source: RegistryError| BuildError::Image { span, name: name.familiar(), source };
    let asked = at.map_or_else(|| name.clone(), |digest| name.with_digest(digest));
    let fetched = registry.manifest(&asked).map_err(failed)?;
    let (bytes, digest) = match parse_manifest(name, &fetched.bytes)? {
        ManifestOrIndex::Manifest(_) => (fetched.bytes, fetched.digest),
        ManifestOrIndex::Index(index) => {
            let Some(entry) = index.select(platform) else {
                let have: Vec<String> = index
                    .manifests
                    .iter()
                    .filter_map(|entry| entry.platform.as_ref())
                    .filter(|platform| platform.os != "unknown")
                    .map(ToString::to_string)
                    .collect();
                let reason = format!(
                    "it has nothing for {platform}, only {}; build for one of these with \
                     --platform, or look for another tag",
                    have.join(", ")
                );
                return Err(BuildError::BadImage { span, name: name.familiar(), reason });
            };
            let fetched = registry.manifest(&name.with_digest(entry.digest)).map_err(failed)?;
            (fetched.bytes, fetched.digest)
        }
    };
    let ManifestOrIndex::Manifest(manifest) = parse_manifest(name, &bytes)? else {
        let reason = "its index names another index".to_owned();
        return Err(BuildError::BadImage { span, name: name.familiar(), reason });
    };
    let resolved = adopt(shared, name, &bytes, digest, manifest, span)?;
    // The build check reports the names in the Dockerfile.
    if span.is_none() && resolved.config.platform() != *platform {
        let have = resolved.config.platform();
        let text = format!(
            "InvalidBaseImagePlatform: base image {name} was pulled with platform \"{have}\", expected \"{platform}\""
        );
        shared.event(Event::Warning { text });
    }
    if at.is_none() {
        store.resolved_images().record(&resolved.name, platform, digest)?;
    }
    Ok(resolved)
}

/// Takes the documents of a registry's image into the store, and remembers where its layers are.
pub(super) fn adopt(
    shared: &Steps<'_>,
    name: &Reference,
    bytes: &[u8],
    digest: Digest,
    manifest: Manifest,
    span: Option<Span>,
) -> Result<Resolved> {
    let (store, registry) = (shared.services.store, shared.services.registry);
    if !store.has_blob(manifest.config.digest) {
        let failed =
            |source: RegistryError| BuildError::Image { span, name: name.familiar(), source };
        let mut draft = store.draft()?;
        registry.pull_blob(name, &manifest.config, &mut draft, &|_more| {}).map_err(failed)?;
        store.publish(draft)?;
    }
    let config = store.read_blob(manifest.config.digest, MAX_DOCUMENT_BYTES)?;
    let config = parse_config(name, &config)?;
    let (name, place) = (name.clone(), ImageLocation::Registry);
    let resolved = checked(Resolved { name, place, span, digest, manifest, config }, span)?;
    for (diff_id, blob) in resolved.layers() {
        let source = LayerSource { blob: blob.clone(), place: resolved.name.name() };
        store.layer_sources().record(diff_id, &source)?;
    }
    store.put_blob(bytes)?;
    Ok(resolved)
}

/// Pulls the layers that the store has in no form.
pub(super) fn fetch_layers(shared: &Steps<'_>, resolved: &Resolved) -> Result<()> {
    let store = shared.services.store;
    let mut missing = Vec::new();
    for (diff_id, layer) in resolved.layers() {
        if store.has_layer(diff_id)? {
            continue;
        }
        let sources = sources_of(store, resolved, diff_id, layer)?;
        // The blob may be here without a record: another image's, or of a process that died.
        if store.has_blob(layer.digest) {
            fetch_one(shared, resolved, diff_id, &sources, &|_more| {})?;
        } else {
            missing.push((diff_id, layer.size, sources));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let total_bytes = missing.iter().map(|(_, n_bytes, _)| n_bytes).sum();
    let step = shared.start(format!("[internal] pull {}", resolved.name));
    let done_bytes = AtomicU64::new(0);
    let progress = |more: u64| {
        let done_bytes = done_bytes.fetch_add(more, Ordering::Relaxed) + more;
        shared.event(Event::Progress { step: step.id, done_bytes, total_bytes });
    };
    let jobs = NonZeroUsize::new(PULLS_AT_ONCE).unwrap_or(NonZeroUsize::MIN);
    let pulled = pool::map_in_order(&missing, jobs, |(diff_id, _, sources)| {
        fetch_one(shared, resolved, *diff_id, sources, &progress)
    });
    let pulled: Result<()> = pulled.into_iter().collect();
    shared.finish(step, if pulled.is_ok() { Outcome::Done } else { Outcome::Failed });
    pulled
}

/// Brings a layer from the first place that has it; the error is that of the first place.
fn fetch_one(
    shared: &Steps<'_>,
    resolved: &Resolved,
    diff_id: DiffId,
    sources: &[LayerSource],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let (store, registry) = (shared.services.store, shared.services.registry);
    let mut first = None;
    for source in sources {
        match image::fetch_from(store, registry, diff_id, source, progress) {
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
        | ExportError::Remote { .. }
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

/// Where an image's layer may be, its own place first; one at least. An image that was built here
/// has layers that never were under its own name.
fn sources_of(
    store: &Store,
    resolved: &Resolved,
    diff_id: DiffId,
    layer: &Descriptor,
) -> Result<Vec<LayerSource>> {
    if layer.media_type.layer_compression().is_none() {
        let name = resolved.name.to_string();
        let reason = format!("a layer is of type {}, which is no layer", layer.media_type);
        return Err(BuildError::BadImage { span: None, name, reason });
    }
    let mut known = store.layer_sources().of_layer(diff_id)?;
    known.retain(|source| source.blob.digest == layer.digest);
    let place = match &resolved.place {
        ImageLocation::Registry => resolved.name.name(),
        ImageLocation::Layout(place) => layout::absolute(&place.path)?,
    };
    known.sort_by_key(|source| source.place != place);
    if known.is_empty() {
        known.push(LayerSource { blob: layer.clone(), place });
    }
    Ok(known)
}

/// Brings one layer that nobody here made and no base image of this build has.
pub(super) fn fetch_known(shared: &Steps<'_>, diff_id: DiffId) -> Result<()> {
    let (store, registry) = (shared.services.store, shared.services.registry);
    if store.has_layer(diff_id)? {
        return Ok(());
    }
    let total_bytes =
        store.layer_sources().of_layer(diff_id)?.first().map_or(0, |source| source.blob.size);
    let step = shared.start(format!("[internal] pull layer {}", diff_id.digest()));
    let done_bytes = AtomicU64::new(0);
    let progress = |more: u64| {
        let done_bytes = done_bytes.fetch_add(more, Ordering::Relaxed) + more;
        shared.event(Event::Progress { step: step.id, done_bytes, total_bytes });
    };
    let fetched = image::fetch_layer(store, registry, diff_id, &progress);
    shared.finish(step, if fetched.is_ok() { Outcome::Done } else { Outcome::Failed });
    fetched.map_err(|error| BuildError::CachedLayer { layer: diff_id, source: Box::new(error) })
}
