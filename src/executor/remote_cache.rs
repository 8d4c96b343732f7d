//! Caches that builds on other machines share: in a registry, in a directory, in the image itself.
//!
//! Whoever can write to a cache decides what builds that name it make. Its records keep its name, so
//! that they have no effect on other builds (see [`crate::store::StepOrigin`]).
//! Importing reads the list of steps only; a layer is fetched when a step or an output needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::archive::Packing;
use crate::image::{ExportError, LayoutReader};
use crate::limits::MAX_CACHE_DOCUMENT_BYTES;
use crate::oci::{Descriptor, DiffId, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference};
use crate::registry::RegistryError;
use crate::store::{LayerRecord, LayerSource, StepOrigin, StepRecord, Store};

use super::bucket_cache::BucketCache;
use super::cache_document::{CONFIG_MEMBER, CacheDocument, CachedMount, MEDIA_TYPE};
use super::cache_mount_transfer::{Offer, Offers};
use super::shared::Steps;
use super::{BuildError, Event, Outcome, Services, layout};

type Result<T> = std::result::Result<T, BuildError>;

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// Under a name in a registry: a cache, or an image with an inline one.
    Registry(Reference),
    /// In an OCI layout, under a tag.
    Directory(PathBuf, String),
    /// In a bucket.
    Bucket(Box<BucketCache>),
    /// In the config of the image that is built.
    Inline,
}

/// A cache to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFrom {
    /// Where.
    pub place: CachePlace,
    /// Whether its directories of `RUN --mount=type=cache` are used, too.
    pub mounts: bool,
    /// Whether a cache that cannot be read is only worth a warning.
    pub ignore_error: bool,
}

/// A cache to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTo {
    /// Where.
    pub place: CachePlace,
    /// Whether every step is written, and not only those whose layers are in the image.
    pub all_steps: bool,
    /// How many bytes of directories of `RUN --mount=type=cache` go with it, as tars; `None` for none.
    pub mounts: Option<u64>,
    /// How layers are packed.
    pub packing: Packing,
    /// Whether a cache that cannot be written is only worth a warning.
    pub ignore_error: bool,
}

impl std::fmt::Display for CachePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(name) => f.write_str(&name.familiar()),
            Self::Directory(path, tag) => write!(f, "{} ({tag})", path.display()),
            Self::Bucket(cache) => write!(f, "{cache}"),
            Self::Inline => f.write_str("the image"),
        }
    }
}

/// The caches that a build names, as far as they could be read.
#[derive(Debug, Default)]
pub(super) struct KnownCaches {
    /// As records name them.
    pub(super) places: BTreeSet<String>,
    /// The caches' claims about layers; of several claims the first.
    pub(super) layers: BTreeMap<DiffId, LayerRecord>,
}

/// Documents that were read from caches.
#[derive(Debug, Default)]
pub(super) struct ImportedCaches {
    /// Directories of `RUN --mount=type=cache`.
    pub(super) offers: Offers,
    pub(super) known: KnownCaches,
}

/// Learns what the caches know. One that cannot be read is an event, unless it has to be there.
///
/// # Errors
/// The first of those that have to be there.
pub(super) fn import(
    services: &Services<'_>,
    caches: &[CacheFrom],
    platforms: &[Platform],
) -> Result<ImportedCaches> {
    let steps = Steps::new(services);
    let mut imported = ImportedCaches::default();
    for cache in caches {
        let shown = steps.start(format!("[internal] import cache from {}", cache.place));
        let done = import_one(services, cache, platforms, &mut imported);
        let outcome = if done.is_ok() { Outcome::Done } else { Outcome::Failed };
        steps.finish(shown, outcome);
        tolerate(&steps, "import the cache from", &cache.place, cache.ignore_error, done)?;
    }
    Ok(imported)
}

/// Turns an error into a warning where that is wanted.
pub(super) fn tolerate(
    steps: &Steps<'_>,
    verb: &'static str,
    place: &CachePlace,
    ignore: bool,
    done: Result<()>,
) -> Result<()> {
    let Err(error) = done else { return Ok(()) };
    let error = BuildError::Cache { verb, place: place.to_string(), source: Box::new(error) };
    if !ignore {
        return Err(error);
    }
    steps.event(Event::Warning { text: super::chain(&error) });
    Ok(())
}

/// A cache that is behind a network is out of reach without one.
pub(super) fn reachable(services: &Services<'_>, place: &CachePlace) -> Result<()> {
    let is_here = matches!(place, CachePlace::Directory(..) | CachePlace::Inline);
    if is_here || !services.registry.is_offline() {
        return Ok(());
    }
    let source = RegistryError::Offline { what: place.to_string() };
    Err(BuildError::Image { span: None, name: place.to_string(), source })
}

fn import_one(
    services: &Services<'_>,
    cache: &CacheFrom,
    platforms: &[Platform],
    imported: &mut ImportedCaches,
) -> Result<()> {
    reachable(services, &cache.place)?;
    let Some(place) = store_place(&cache.place)? else { return Ok(()) };
    let documents = match &cache.place {
        CachePlace::Registry(name) => {
            let manifests = manifests(services, name, platforms)?;
            let document =
                |manifest: &Manifest| document_of(manifest, &config_of(services, name, manifest)?);
            manifests.iter().map(document).collect::<Result<_>>()?
        }
        CachePlace::Directory(path, tag) => {
            let platform = platforms.first().expect("a build is for some platform");
            let (manifest, config) = from_directory(path, tag, platform)?;
            vec![document_of(&manifest, &config)?]
        }
        CachePlace::Bucket(cache) => cache.documents(services)?,
        CachePlace::Inline => Vec::new(),
    };
    for document in documents {
        if cache.mounts {
            let must = !cache.ignore_error;
            learn_mounts(services.store, &place, &document.mounts, must, &mut imported.offers)?;
        }
        learn(services.store, &place, document, &mut imported.known)?;
    }
    imported.known.places.insert(place);
    Ok(())
}

/// The place as the store remembers it, unless it is the image that is being built.
pub(super) fn store_place(place: &CachePlace) -> Result<Option<String>> {
    match place {
        CachePlace::Registry(name) => Ok(Some(name.name())),
        CachePlace::Directory(path, _) => layout::absolute(path).map(Some),
        CachePlace::Bucket(cache) => cache.place().map(Some),
        CachePlace::Inline => Ok(None),
    }
}

pub(super) fn bad_cache(reason: impl ToString) -> BuildError {
    BuildError::BadCache { reason: reason.to_string() }
}

/// The manifest of a cache or image; of an index, those for the platforms.
fn manifests(
    services: &Services<'_>,
    name: &Reference,
    platforms: &[Platform],
) -> Result<Vec<Manifest>> {
    let get = |name: &Reference| {
        let failed = |source| BuildError::Image { span: None, name: name.familiar(), source };
        let fetched = services.registry.manifest(name).map_err(failed)?;
        ManifestOrIndex::parse(&fetched.bytes).map_err(bad_cache)
    };
    let index = match get(name)? {
        ManifestOrIndex::Manifest(manifest) => return Ok(vec![manifest]),
        ManifestOrIndex::Index(index) => index,
    };
    let mut found = Vec::new();
    for entry in platforms.iter().filter_map(|platform| index.select(platform)) {
        match get(&name.with_digest(entry.digest))? {
            ManifestOrIndex::Manifest(manifest) => found.push(manifest),
            ManifestOrIndex::Index(_) => return Err(bad_cache("its index names another index")),
        }
    }
    Ok(found)
}

fn config_of(services: &Services<'_>, name: &Reference, manifest: &Manifest) -> Result<Vec<u8>> {
    if manifest.config.size > MAX_CACHE_DOCUMENT_BYTES {
        return Err(bad_cache(format!("it is longer than {MAX_CACHE_DOCUMENT_BYTES} bytes")));
    }
    let failed = |source| BuildError::Image { span: None, name: name.familiar(), source };
    let mut bytes = Vec::new();
    let pulled = services.registry.pull_blob(name, &manifest.config, &mut bytes, &|_more| {});
    pulled.map_err(failed)?;
    Ok(bytes)
}

fn from_directory(path: &Path, tag: &str, platform: &Platform) -> Result<(Manifest, Vec<u8>)> {
    let reader = LayoutReader::new(path);
    let failed = |error| BuildError::Export(ExportError::from(error));
    let (_, bytes) = reader.manifest(Some(tag), None, platform).map_err(failed)?;
    let ManifestOrIndex::Manifest(manifest) = ManifestOrIndex::parse(&bytes).map_err(bad_cache)?
    else {
        return Err(bad_cache("its manifest is an index"));
    };
    let config = reader.document(manifest.config.digest).map_err(failed)?;
    Ok((manifest, config))
}

/// The document of a cache, or that inside an image's config, its layers with their blobs.
fn document_of(manifest: &Manifest, config: &[u8]) -> Result<CacheDocument> {
    if manifest.config.media_type.as_str() == MEDIA_TYPE {
        return serde_json::from_slice(config).map_err(bad_cache);
    }
    let image = ImageConfig::parse(config).map_err(bad_cache)?;
    let inline = image.extra.get(CONFIG_MEMBER);
    let inline = inline.ok_or_else(|| bad_cache("it is an image without a cache in it"))?;
    let mut document: CacheDocument = serde_json::from_value(inline.clone()).map_err(bad_cache)?;
    let blobs: BTreeMap<DiffId, &Descriptor> =
        image.rootfs.diff_ids.iter().copied().zip(&manifest.layers).collect();
    for layer in &mut document.layers {
        layer.blob = blobs.get(&layer.diff_id).map(|blob| (*blob).clone());
    }
    Ok(document)
}

/// Remembers directories as being offered at `place`, but for those that a place before it offers.
fn learn_mounts(
    store: &Store,
    place: &str,
    mounts: &[CachedMount],
    must: bool,
    offers: &mut Offers,
) -> Result<()> {
    for mount in mounts {
        let archive = &mount.archive;
        if archive.blob.media_type.layer_compression().is_none() {
            continue;
        }
        let source = LayerSource { blob: archive.blob.clone(), place: place.to_owned() };
        store.layer_sources().record(archive.diff_id, &source)?;
        let offer = Offer { id: mount.id.clone(), archive: archive.clone(), must };
        offers.entry(mount.key()).or_insert(offer);
    }
    Ok(())
}

/// Remembers layers as being at `place`, and steps as known there.
fn learn(
    store: &Store,
    place: &str,
    document: CacheDocument,
    caches: &mut KnownCaches,
) -> Result<()> {
    let origin = StepOrigin::of_cache(place);
    let mut known = BTreeSet::new();
    for layer in document.layers {
        let Some(blob) = &layer.blob else { continue };
        if blob.media_type.layer_compression().is_none() {
            continue;
        }
        let source = LayerSource { blob: blob.clone(), place: place.to_owned() };
        store.layer_sources().record(layer.diff_id, &source)?;
        store.claim_layer(layer.diff_id, &layer.record())?;
        caches.layers.entry(layer.diff_id).or_insert_with(|| layer.record());
        known.insert(layer.diff_id);
    }
    for step in document.steps.iter().filter(|step| known.contains(&step.layer)) {
        store.steps().import(&StepRecord { origin: origin.clone(), ..step.record() })?;
    }
    Ok(())
}
