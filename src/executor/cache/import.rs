//! Import of build caches from registries, directories, buckets and images.
//!
//! Whoever can write to a cache decides what builds that name it produce. Its records keep its
//! name, so that they have no effect on other builds (see [`crate::store::StepOrigin`]). Importing
//! reads the list of steps only. A layer is fetched when a step or an output needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;

use crate::image::{ExportError, LayoutReader};
use crate::limits::MAX_CACHE_DOCUMENT_BYTES;
use crate::oci::{
    Descriptor, DiffId, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference,
};
use crate::pool;
use crate::registry::RegistryError;
use crate::store::{LayerRecord, LayerSource, StepOrigin, StepRecord, Store};

use super::claimed_listing::ClaimedListing;
use super::document::{CONFIG_MEMBER, CacheDocument, CachedMount, MEDIA_TYPE, bad_cache};
use super::location::{CacheFrom, CacheLocation, store_place};
use super::mount_transfer::{MountOffer, MountOffers};
use super::{actions_sink, bucket_sink};

use crate::executor::{BuildError, Event, Outcome, Services, chain};

type Result<T> = std::result::Result<T, BuildError>;

/// The caches that a build names, as far as they could be read.
#[derive(Debug, Default)]
pub(in crate::executor) struct KnownCaches {
    /// Locations as records name them.
    pub(in crate::executor) places: BTreeSet<String>,
    /// Time before which steps of a location are not used, in seconds since 1970.
    pub(in crate::executor) made_since_s: BTreeMap<String, i64>,
    /// What the caches claim about layers. The first claim about a layer counts.
    pub(in crate::executor) layers: BTreeMap<DiffId, LayerRecord>,
    /// Listings that the caches have. The first of a layer counts.
    pub(in crate::executor) listings: BTreeMap<DiffId, ClaimedListing>,
}

/// The documents of all caches that could be read.
#[derive(Debug, Default)]
pub(in crate::executor) struct ImportedCaches {
    /// Directories of `RUN --mount=type=cache`, by key.
    pub(in crate::executor) offers: MountOffers,
    pub(in crate::executor) known: KnownCaches,
    /// Documents of registries, by the digests of their manifests.
    pub(in crate::executor) documents: BTreeMap<Digest, CacheDocument>,
}

/// Number of caches that are read at once.
const PARALLEL_IMPORTS: NonZeroUsize = NonZeroUsize::new(8).expect("it is not 0");

/// Imports the steps of all caches. Reports a cache that cannot be read as a warning if it says
/// `ignore-error`.
///
/// # Errors
/// [`BuildError::Cache`] for the first other cache that cannot be read.
pub(in crate::executor) fn import(
    services: &Services<'_>,
    caches: &[CacheFrom],
    platforms: &[Platform],
) -> Result<ImportedCaches> {
    let read = pool::map_in_order(caches, PARALLEL_IMPORTS, |cache| {
        let shown = services.start(format!("[internal] import cache from {}", cache.place));
        let read = read_one(services, cache, platforms);
        let outcome = if read.is_ok() { Outcome::Done } else { Outcome::Failed };
        services.finish(shown, outcome);
        read
    });
    let mut imported = ImportedCaches::default();
    for (cache, read) in caches.iter().zip(read) {
        let done = read.and_then(|read| record(services, cache, read, &mut imported));
        ignore_if_allowed(
            services,
            "import the cache from",
            &cache.place,
            cache.ignore_error,
            done,
        )?;
    }
    Ok(imported)
}

/// Turns the error of a cache into a warning if it says `ignore-error`.
pub(in crate::executor) fn ignore_if_allowed(
    services: &Services<'_>,
    verb: &'static str,
    place: &CacheLocation,
    ignore: bool,
    done: Result<()>,
) -> Result<()> {
    let Err(error) = done else { return Ok(()) };
    let error = BuildError::Cache { verb, place: place.to_string(), source: Box::new(error) };
    if !ignore {
        return Err(error);
    }
    services.event(Event::Warning { text: chain(&error) });
    Ok(())
}

/// Fails if a cache needs the network and `--offline` forbids it.
pub(in crate::executor) fn check_reachable(
    services: &Services<'_>,
    place: &CacheLocation,
) -> Result<()> {
    let is_here = matches!(place, CacheLocation::Directory(..) | CacheLocation::Inline);
    if is_here || !services.registry.is_offline() {
        return Ok(());
    }
    let source = RegistryError::Offline { what: place.to_string() };
    Err(BuildError::Image { span: None, name: place.to_string(), source })
}

/// A document of a cache, with the digest of its manifest in a registry.
type ReadDocument = (Option<Digest>, CacheDocument);

fn read_one(
    services: &Services<'_>,
    cache: &CacheFrom,
    platforms: &[Platform],
) -> Result<Vec<ReadDocument>> {
    check_reachable(services, &cache.place)?;
    match &cache.place {
        CacheLocation::Registry(name) => {
            let manifests = manifests(services, name, platforms)?;
            let document = |(digest, manifest): &(Digest, Manifest)| {
                let config = config_of(services, name, manifest)?;
                Ok((Some(*digest), document_of(manifest, &config)?))
            };
            manifests.iter().map(document).collect()
        }
        CacheLocation::Directory(path, tag) => {
            let platform = platforms.first().expect("a build is for some platform");
            let (manifest, config) = from_directory(path, tag, platform)?;
            Ok(vec![(None, document_of(&manifest, &config)?)])
        }
        CacheLocation::Bucket(cache) => {
            let documents = bucket_sink::documents(cache, services)?;
            Ok(documents.into_iter().map(|document| (None, document)).collect())
        }
        CacheLocation::Actions(options) => {
            let documents = actions_sink::documents(options, services)?;
            Ok(documents.into_iter().map(|(version, it)| (Some(version), it)).collect())
        }
        CacheLocation::Inline => Ok(Vec::new()),
    }
}

/// Records what the documents of a cache say.
fn record(
    services: &Services<'_>,
    cache: &CacheFrom,
    documents: Vec<ReadDocument>,
    imported: &mut ImportedCaches,
) -> Result<()> {
    let Some(place) = store_place(&cache.place)? else { return Ok(()) };
    for (digest, document) in documents {
        if cache.mounts {
            let is_required = !cache.ignore_error;
            record_mounts(
                services.store,
                &place,
                &document.mounts,
                is_required,
                &mut imported.offers,
            )?;
        }
        record_document(services.store, &place, &document, &mut imported.known)?;
        if let Some(digest) = digest {
            imported.documents.insert(digest, document);
        }
    }
    let since_s = cache.made_since_s.map(|since_s| (place.clone(), since_s));
    imported.known.made_since_s.extend(since_s);
    imported.known.places.insert(place);
    Ok(())
}

/// Returns the manifest of a cache or image; of an index, the manifests for the platforms.
fn manifests(
    services: &Services<'_>,
    name: &Reference,
    platforms: &[Platform],
) -> Result<Vec<(Digest, Manifest)>> {
    let get = |name: &Reference| -> Result<(Digest, ManifestOrIndex)> {
        let failed = |source| BuildError::Image { span: None, name: name.familiar(), source };
        let fetched = services.registry.manifest(name).map_err(failed)?;
        Ok((fetched.digest, ManifestOrIndex::parse(&fetched.bytes).map_err(bad_cache)?))
    };
    let index = match get(name)? {
        (digest, ManifestOrIndex::Manifest(manifest)) => return Ok(vec![(digest, manifest)]),
        (_, ManifestOrIndex::Index(index)) => index,
    };
    let mut found = Vec::new();
    for entry in platforms.iter().filter_map(|platform| index.select(platform)) {
        match get(&name.with_digest(entry.digest))? {
            (digest, ManifestOrIndex::Manifest(manifest)) => found.push((digest, manifest)),
            (_, ManifestOrIndex::Index(_)) => {
                return Err(bad_cache("its index names another index"));
            }
        }
    }
    Ok(found)
}

/// Returns the document of a cache in a registry.
pub(super) fn config_of(
    services: &Services<'_>,
    name: &Reference,
    manifest: &Manifest,
) -> Result<Vec<u8>> {
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

/// Returns the document of a cache, or the one inside an image's config. Its layers have their
/// blobs.
fn document_of(manifest: &Manifest, config: &[u8]) -> Result<CacheDocument> {
    if manifest.config.media_type.as_str() == MEDIA_TYPE {
        return serde_json::from_slice(config).map_err(bad_cache);
    }
    let image = ImageConfig::parse(config).map_err(bad_cache)?;
    let inline = image.extra.get(CONFIG_MEMBER);
    let inline = inline.ok_or_else(|| bad_cache("the image has no inline cache"))?;
    let mut document: CacheDocument = serde_json::from_value(inline.clone()).map_err(bad_cache)?;
    let blobs: BTreeMap<DiffId, &Descriptor> =
        image.rootfs.diff_ids.iter().copied().zip(&manifest.layers).collect();
    for layer in &mut document.layers {
        layer.blob = blobs.get(&layer.diff_id).map(|blob| (*blob).clone());
    }
    Ok(document)
}

/// Records directories as offered at `place`. An earlier cache's offer of the same directory wins.
fn record_mounts(
    store: &Store,
    place: &str,
    mounts: &[CachedMount],
    is_required: bool,
    offers: &mut MountOffers,
) -> Result<()> {
    for mount in mounts {
        let archive = &mount.archive;
        if archive.blob.media_type.layer_compression().is_none() {
            continue;
        }
        let source = LayerSource { blob: archive.blob.clone(), place: place.to_owned() };
        store.layer_sources().record(archive.diff_id, &source)?;
        let offer = MountOffer { id: mount.id.clone(), archive: archive.clone(), is_required };
        offers.entry(mount.key()).or_insert(offer);
    }
    Ok(())
}

/// Records layers as stored at `place`, and steps as known there.
fn record_document(
    store: &Store,
    place: &str,
    document: &CacheDocument,
    caches: &mut KnownCaches,
) -> Result<()> {
    let origin = StepOrigin::of_cache(place);
    let mut known = BTreeSet::new();
    let mut layers = Vec::new();
    for layer in &document.layers {
        let blob = layer.blob.as_ref().filter(|it| it.media_type.layer_compression().is_some());
        let Some(blob) = blob else { continue };
        let source = LayerSource { blob: blob.clone(), place: place.to_owned() };
        layers.push((layer.diff_id, layer.record(), source));
        caches.layers.entry(layer.diff_id).or_insert_with(|| layer.record());
        known.insert(layer.diff_id);
    }
    for listing in &document.listings {
        let claim = || ClaimedListing::new(listing.clone(), place.to_owned());
        caches.listings.entry(listing.diff_id).or_insert_with(claim);
    }
    let steps = document.steps.iter().filter(|step| known.contains(&step.layer));
    let steps: Vec<StepRecord> =
        steps.map(|step| StepRecord { origin: origin.clone(), ..step.record() }).collect();
    Ok(store.import_cache(&layers, &steps)?)
}
