//! Images that FROM and `--from` name: their manifests and configs. Layers are fetched when a step
//! needs them.

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::syntax;
use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{
    Descriptor, DiffId, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference,
};
use crate::plan::{BaseImage, ImageLocation};
use crate::registry::RegistryError;
use crate::store::{LayerRecord, LayerSource, Store, StoredLayer};
use crate::tree::ContentDigest;

use crate::executor::stack::Stack;
use crate::executor::{BuildError, Event, Services};

type Result<T> = std::result::Result<T, BuildError>;

/// An image whose manifest and config are in the store.
#[derive(Debug, Clone)]
pub(in crate::executor) struct ResolvedImage {
    /// Name that its layers can be pulled under.
    pub(in crate::executor) name: Reference,
    pub(in crate::executor) place: ImageLocation,
    /// Location of its first name in the Dockerfile.
    pub(in crate::executor) span: Option<Span>,
    /// Digest of the manifest.
    pub(in crate::executor) digest: Digest,
    pub(in crate::executor) manifest: Manifest,
    pub(in crate::executor) config: ImageConfig,
}

impl ResolvedImage {
    /// Returns the layers, base first, with their descriptors.
    pub(in crate::executor) fn layers(
        &self,
    ) -> impl ExactSizeIterator<Item = (DiffId, &Descriptor)> {
        self.config.rootfs.diff_ids.iter().copied().zip(&self.manifest.layers)
    }

    /// Returns the stack of the image's layers, which need not be in the store.
    pub(in crate::executor) fn stack(&self) -> Stack {
        self.layers().fold(Stack::default(), |stack, (diff_id, _)| {
            let content = ContentDigest::of_pulled(diff_id);
            let record = LayerRecord { content, tar_bytes: 0, created_s: 0 };
            stack.with_pulled(StoredLayer { diff_id, record })
        })
    }
}

/// Returns what planning needs of an image, without its ONBUILD triggers.
pub(in crate::executor) fn base_config(config: &ImageConfig) -> BaseImage {
    BaseImage { config: config.clone(), triggers: Vec::new() }
}

pub(in crate::executor) fn base_image(config: &ImageConfig, span: Span) -> Result<BaseImage> {
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

/// Returns the image with this manifest or index, if the store has all its documents.
pub(in crate::executor) fn from_store(
    store: &Store,
    name: &Reference,
    platform: &Platform,
    digest: Digest,
) -> Result<Option<ResolvedImage>> {
    if !store.has_blob(digest) {
        return Ok(None);
    }
    let bytes = store.read_blob(digest, MAX_DOCUMENT_BYTES)?;
    let manifest = match parse_manifest(name, &bytes)? {
        ManifestOrIndex::Manifest(manifest) if store.has_blob(manifest.config.digest) => manifest,
        ManifestOrIndex::Manifest(_) => return Ok(None),
        ManifestOrIndex::Index(index) => {
            return match index.select(platform) {
                // An index that names itself would cause an endless recursion.
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
    checked(ResolvedImage { name, place, span: None, digest, manifest, config }, None).map(Some)
}

pub(in crate::executor) fn parse_manifest(
    name: &Reference,
    bytes: &[u8],
) -> Result<ManifestOrIndex> {
    ManifestOrIndex::parse(bytes)
        .map_err(|source| BuildError::Manifest { name: name.to_string(), source })
}

fn parse_config(name: &Reference, bytes: &[u8]) -> Result<ImageConfig> {
    ImageConfig::parse(bytes)
        .map_err(|source| BuildError::Config { name: name.to_string(), source })
}

/// Returns the image if its manifest and config have the same number of layers.
pub(in crate::executor) fn checked(
    resolved: ResolvedImage,
    span: Option<Span>,
) -> Result<ResolvedImage> {
    let (n_layers, n_ids) = (resolved.manifest.layers.len(), resolved.config.rootfs.diff_ids.len());
    if n_layers != n_ids {
        let reason = format!("its manifest has {n_layers} layers, its config {n_ids}");
        return Err(BuildError::BadImage { span, name: resolved.name.to_string(), reason });
    }
    Ok(ResolvedImage { span, ..resolved })
}

/// Resolves `name` at its registry: to its current manifest, or to the manifest `at`.
pub(in crate::executor) fn from_registry(
    services: &Services<'_>,
    name: &Reference,
    at: Option<Digest>,
    platform: &Platform,
    span: Option<Span>,
) -> Result<ResolvedImage> {
    let registry = services.registry;
    let store = services.store;
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
                    "it has no image for {platform}, only for {}; build for one of these with \
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
    let resolved = adopt(services, name, &bytes, digest, manifest, span)?;
    // The build check reports the names in the Dockerfile.
    if span.is_none() && resolved.config.platform() != *platform {
        let have = resolved.config.platform();
        let text = format!(
            "InvalidBaseImagePlatform: base image {name} was pulled with platform \"{have}\", expected \"{platform}\""
        );
        services.event(Event::Warning { text });
    }
    if at.is_none() {
        store.resolved_images().record(&resolved.name, platform, digest)?;
    }
    Ok(resolved)
}

/// Stores the documents of a registry's image, and records the locations of its layers.
pub(in crate::executor) fn adopt(
    services: &Services<'_>,
    name: &Reference,
    bytes: &[u8],
    digest: Digest,
    manifest: Manifest,
    span: Option<Span>,
) -> Result<ResolvedImage> {
    let (store, registry) = (services.store, services.registry);
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
    let resolved = checked(ResolvedImage { name, place, span, digest, manifest, config }, span)?;
    for (diff_id, blob) in resolved.layers() {
        let source = LayerSource { blob: blob.clone(), place: resolved.name.name() };
        store.layer_sources().record(diff_id, &source)?;
    }
    store.put_blob(bytes)?;
    Ok(resolved)
}
