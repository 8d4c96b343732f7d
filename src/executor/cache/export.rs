//! Export of build caches to registries, directories and buckets, also after a build that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use crate::executor::{BuildError, BuildOptions, Outcome, Services};
use crate::image::{self, ExportOptions, ImageLayer};
use crate::oci::{Descriptor, DiffId, Digest};
use crate::pool;
use crate::store::{CacheArchive, LayerSource, StepRecord, Store};

use super::actions_sink::ActionsSink;
use super::bucket_sink::BucketSink;
use super::build_caches::BuildCaches;
use super::directory_sink::DirectorySink;
use super::document::{CacheDocument, CachedLayer, CachedMount, CachedStep};
use super::import::{check_reachable, ignore_if_allowed};
use super::listings::CachedListing;
use super::location::{CacheLocation, CacheTo, store_place};
use super::merge::merge;
use super::mount_transfer as transfer;
use super::registry_sink::RegistrySink;
use super::sink::{CacheSink, SeenVersion, Sharing};

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

/// Maximum number of attempts to write a document while others write it, too.
const MAX_ATTEMPTS: u32 = 20;
/// Bounds of the time after which a writer looks again whether its document was replaced. Within them it is
/// twice the time between its own look and the end of its own write.
const SETTLE: (Duration, Duration) = (Duration::from_millis(60), Duration::from_secs(2));
/// Maximum pause before another attempt, for each attempt so far, in milliseconds.
const PAUSE_MS: u64 = 40;

fn export_one(
    services: &Services<'_>,
    build: &BuildOptions,
    caches: &BuildCaches,
    cache: &CacheTo,
    steps: &[StepRecord],
    mounts: Vec<CachedMount>,
) -> Result<()> {
    check_reachable(services, &cache.place)?;
    let mut ours = document(services, caches, steps)?;
    ours.mounts = mounts;
    let options = ExportOptions::of_layers(cache.packing, build.jobs);
    let (store, now_s) = (services.store, build.now_s);
    let export = CacheExport { store, caches, cache, ours: &ours, now_s };
    match &cache.place {
        CacheLocation::Registry(name) => {
            export.run(&RegistrySink { services, name, options: &options })?;
        }
        CacheLocation::Directory(path, tag) => {
            export.run(&DirectorySink::new(services, path, tag, &options)?)?;
        }
        CacheLocation::Bucket(bucket) => {
            for sink in BucketSink::all(services, bucket, &options, build.now_s)? {
                export.run(&sink)?;
            }
        }
        CacheLocation::Actions(place) => {
            export.run(&ActionsSink::new(services, place, &options)?)?;
        }
        CacheLocation::Inline => {}
    }
    if let Some(place) = store_place(&cache.place)? {
        for archive in transfer::archives(&ours.mounts) {
            let (blob, place) = (archive.blob.clone(), place.clone());
            services.store.layer_sources().record(archive.diff_id, &LayerSource { blob, place })?;
        }
    }
    Ok(())
}

/// The export of one document to one location.
struct CacheExport<'a> {
    store: &'a Store,
    caches: &'a BuildCaches,
    cache: &'a CacheTo,
    ours: &'a CacheDocument,
    now_s: i64,
}

impl CacheExport<'_> {
    /// Merges the document with what other builds wrote to the location. Writes nothing if the location has
    /// all of it.
    fn run(&self, sink: &(dyn CacheSink + Sync)) -> Result<()> {
        let mut sent = SentParts::default();
        let mut absent: Option<BTreeSet<Digest>> = None;
        // A write looks at the version again.
        let mut seen = sink.seen();
        for attempt in 1..=MAX_ATTEMPTS {
            let SeenVersion { version, is_recent } = match seen.take() {
                Some(seen) => seen,
                None => SeenVersion { version: sink.version()?, is_recent: true },
            };
            let mut theirs = self.theirs(sink, version)?;
            if sink.sharing() == Sharing::Locked {
                absent = Some(sink.absent(&theirs.blobs()).into_iter().collect());
            }
            let expired = sink.renew(&theirs.blobs_of(self.parts()))?.into_iter().collect();
            let is_complete = !theirs.remove_blobs(&expired)
                && absent.as_ref().is_none_or(|absent| !theirs.remove_blobs(absent));
            let (listings, ours) = pool::at_once(
                || self.listings(sink, &theirs, &sent.listings),
                || self.with_blobs(sink, &theirs, &mut sent.layers),
            );
            let listings = listings?;
            sent.listings.extend(listings.iter().map(|it| (it.diff_id, it.clone())));
            let ours = CacheDocument { listings, ..ours? };
            let merged = merge(ours, theirs.clone(), &self.cache.bounds, self.now_s);
            if version.is_some() && is_complete && merged == theirs {
                if is_recent || sink.version()? == version {
                    return Ok(());
                }
                continue;
            }
            match sink.write(&merged, version) {
                Ok(Some(_)) if sink.sharing() == Sharing::Locked => return Ok(()),
                Ok(Some(written)) => {
                    thread::sleep((written.window * 2).clamp(SETTLE.0, SETTLE.1));
                    if sink.version()? == Some(written.version) {
                        return Ok(());
                    }
                }
                Ok(None) => thread::sleep(pause(attempt)),
                // A registry refuses a manifest with blobs that it has removed.
                Err(error) if absent.is_none() => {
                    let gone: BTreeSet<Digest> = sink.absent(&theirs.blobs()).into_iter().collect();
                    if gone.is_empty() {
                        return Err(error);
                    }
                    absent = Some(gone);
                }
                Err(error) => return Err(error),
            }
        }
        Err(BuildError::BusyCache { n_attempts: MAX_ATTEMPTS })
    }

    /// Returns the layers of the steps and of the base images.
    fn layers(&self) -> BTreeSet<DiffId> {
        let layers = self.ours.layers.iter().map(|layer| layer.diff_id);
        layers.chain(self.caches.base_layers()).collect()
    }

    /// Returns whether this build uses a layer or an archive.
    fn parts(&self) -> impl Fn(&DiffId) -> bool {
        let archives = self.ours.mounts.iter().map(|mount| mount.archive.diff_id);
        let parts: BTreeSet<DiffId> = self.layers().into_iter().chain(archives).collect();
        move |part| parts.contains(part)
    }

    /// Returns the listings of our layers and of the base images, as far as they are known. Sends those that
    /// the location lacks.
    fn listings(
        &self,
        sink: &(dyn CacheSink + Sync),
        theirs: &CacheDocument,
        sent: &BTreeMap<DiffId, CachedListing>,
    ) -> Result<Vec<CachedListing>> {
        let there: BTreeMap<DiffId, &CachedListing> =
            theirs.listings.iter().map(|listing| (listing.diff_id, listing)).collect();
        let (mut listings, mut blobs) = (Vec::new(), Vec::new());
        for layer in self.layers() {
            if let Some(known) = there.get(&layer).copied().or_else(|| sent.get(&layer)) {
                listings.push(known.used_at(self.now_s));
            } else if let Some((listing, packed)) = CachedListing::of(self.store, layer, self.now_s)
            {
                blobs.extend(listing.blob.clone().zip(packed));
                listings.push(listing);
            }
        }
        sink.send_bytes(&blobs)?;
        Ok(listings)
    }

    /// Returns the document at the location, which the import may have read already.
    fn theirs(&self, sink: &dyn CacheSink, version: Option<Digest>) -> Result<CacheDocument> {
        let Some(version) = version else { return Ok(CacheDocument::default()) };
        if let Some(known) = self.caches.imported_document(version) {
            return Ok(known.clone());
        }
        Ok(sink.read(version)?.unwrap_or_default())
    }

    /// Returns our document with the blobs of its layers: those that the location's document names, and else
    /// those that are sent now. `sent` has those of earlier attempts.
    fn with_blobs(
        &self,
        sink: &dyn CacheSink,
        theirs: &CacheDocument,
        sent: &mut BTreeMap<DiffId, Descriptor>,
    ) -> Result<CacheDocument> {
        let wanted = image::compression_of(self.cache.packing);
        let there = theirs.layers.iter().filter_map(|layer| {
            let blob = layer.blob.clone()?;
            (blob.media_type.layer_compression() == Some(wanted)).then_some((layer.diff_id, blob))
        });
        let mut blobs: BTreeMap<DiffId, Descriptor> = there.collect();
        blobs.append(&mut sent.clone());
        let layers = self.ours.layers.iter().map(|layer| ImageLayer {
            diff_id: layer.diff_id,
            size: 0,
            pulled: None,
        });
        // An archive is exported as a layer that is packed already.
        let archives = transfer::archives(&self.ours.mounts);
        let is_new =
            |archive: &&&CacheArchive| !theirs.mounts.iter().any(|it| it.archive == ***archive);
        let archives = archives.iter().filter(is_new).map(|archive| {
            let pulled = Some(archive.blob.clone());
            ImageLayer { diff_id: archive.diff_id, size: archive.tar_bytes, pulled }
        });
        let missing: Vec<ImageLayer> =
            layers.chain(archives).filter(|layer| !blobs.contains_key(&layer.diff_id)).collect();
        let now = sink.send(&missing)?;
        let now = missing.iter().map(|layer| layer.diff_id).zip(now);
        sent.extend(now);
        blobs.append(&mut sent.clone());
        let mut ours = self.ours.clone();
        for layer in &mut ours.layers {
            layer.blob = blobs.get(&layer.diff_id).cloned();
        }
        Ok(ours)
    }
}

/// Layers and listings that earlier attempts sent.
#[derive(Default)]
struct SentParts {
    layers: BTreeMap<DiffId, Descriptor>,
    listings: BTreeMap<DiffId, CachedListing>,
}

/// Returns a pause that differs between processes.
fn pause(attempt: u32) -> Duration {
    let spread = u64::from(std::process::id().wrapping_mul(2_654_435_761) >> 16);
    Duration::from_millis(spread % (PAUSE_MS * u64::from(attempt)))
}
