//! Import and export of directories of `RUN --mount=type=cache` with a build cache.
//!
//! A directory is imported when a step mounts it and this store does not have it. Directories are
//! exported when the build is over. A directory in this store is never replaced: of two stores,
//! none is known to have the better one.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::Timespec;

use crate::image;
use crate::oci::Digest;
use crate::plan::CacheKey;
use crate::pool;
use crate::store::{CacheArchive, HeldCache, HoldOutcome, WorkDirectory};

use super::document::CachedMount;
use crate::executor::{BuildError, Event, Outcome, Services, chain};

type Result<T> = std::result::Result<T, BuildError>;

/// Attempts to lock a directory that another build uses, with pauses that sum up to five seconds.
const TRIES: u32 = 100;
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A directory that a cache elsewhere has.
#[derive(Debug, Clone)]
pub(in crate::executor) struct MountOffer {
    pub(in crate::executor) id: String,
    pub(in crate::executor) archive: CacheArchive,
    /// True if a step must not run without it.
    pub(in crate::executor) is_required: bool,
}

/// Offers by the key of the directory.
pub(in crate::executor) type MountOffers = BTreeMap<CacheKey, MountOffer>;

/// The directories that a build mounts, and the offers for them.
#[derive(Debug)]
pub(in crate::executor) struct CacheMountTransfer {
    offers: MountOffers,
    mounted: Mutex<BTreeMap<CacheKey, MountedCache>>,
}

/// A directory that a step of this build mounts.
#[derive(Debug, Clone)]
struct MountedCache {
    id: String,
    /// True if the step was executed; false if it was document_entries.
    used: bool,
}

/// A directory that may be exported.
#[derive(Debug)]
pub(in crate::executor) struct ExportedMount {
    key: CacheKey,
    id: String,
    tar_bytes: u64,
    /// `None` if the directory is too large for every cache.
    archive: Option<CacheArchive>,
}

/// The content of a directory, packed or not.
enum MountContent {
    /// An archive that is stored somewhere already.
    Packed(Box<CacheArchive>),
    /// The directory in this store.
    Directory(Box<HeldCache>),
}

impl CacheMountTransfer {
    pub(in crate::executor) const fn new(offers: MountOffers) -> Self {
        Self { offers, mounted: Mutex::new(BTreeMap::new()) }
    }

    /// Notes that a step, document_entries or not, mounts the directory.
    pub(in crate::executor) fn note_mounted(&self, key: CacheKey, id: &str) {
        self.mounted()
            .entry(key)
            .or_insert_with(|| MountedCache { id: id.to_owned(), used: false });
    }

    /// Notes that a step is executed with the directory.
    pub(in crate::executor) fn note_executed(&self, key: CacheKey, id: &str) {
        self.mounted().insert(key, MountedCache { id: id.to_owned(), used: true });
    }

    fn mounted(&self) -> std::sync::MutexGuard<'_, BTreeMap<CacheKey, MountedCache>> {
        // Each use is one call on the map: a panic elsewhere leaves it whole.
        pool::lock(&self.mounted)
    }

    /// Downloads the content of a directory that this store does not have, if a cache offers it. A
    /// failure is a warning, unless the cache is required.
    pub(in crate::executor) fn restore(
        &self,
        services: &Services<'_>,
        key: CacheKey,
    ) -> Result<Option<WorkDirectory>> {
        let Some(MountOffer { id, archive, is_required }) = self.offers.get(&key) else {
            return Ok(None);
        };
        let (store, registry) = (services.store, services.registry);
        let shown =
            services.start(format!("[internal] restore the cache mount `{}`", printable(id)));
        let (stop, n_bytes) = (services.cancel, AtomicU64::new(0));
        let progress = |more: u64| {
            let done_bytes = n_bytes.fetch_add(more, Ordering::Relaxed) + more;
            let (step, total_bytes) = (shown.id, archive.blob.size);
            services.event(Event::Progress { step, done_bytes, total_bytes });
            !stop.is_set()
        };
        let read = |packed| store.cache_mounts().unpack_archive(archive, packed);
        let restored = image::read_remote_blob(store, registry, archive.diff_id, &progress, &read);
        let outcome = match &restored {
            Ok(_) => Outcome::Done,
            Err(_) if stop.is_set() => Outcome::Cancelled,
            Err(_) => Outcome::Failed,
        };
        services.finish(shown, outcome);
        let error = match restored {
            Ok(work) => return Ok(Some(work)),
            Err(_) if stop.is_set() => return Err(services.stopped()),
            Err(error) => error,
        };
        if *is_required {
            let (verb, source) = ("restore the cache mount", Box::new(BuildError::Export(error)));
            return Err(BuildError::Cache { verb, place: printable(id), source });
        }
        let why = chain(&error);
        let text = format!(
            "the cache mount `{}` starts empty: it cannot be restored: {why}",
            printable(id)
        );
        services.event(Event::Warning { text });
        Ok(None)
    }

    /// Returns the directories for caches that take up to `max_bytes`, smallest first. Directories
    /// that no step used are exported as they were offered. So are those of steps that a failed
    /// build did not reach.
    pub(in crate::executor) fn collect_exports(
        &self,
        services: &Services<'_>,
        jobs: NonZeroUsize,
        max_bytes: u64,
        failed: bool,
    ) -> Vec<ExportedMount> {
        let mounted = self.mounted().clone();
        let mut found = Vec::new();
        for (key, mount) in &mounted {
            let content = self.content(services, *key, mount).unwrap_or_else(|error| {
                warn_not_exported(services, &mount.id, &chain(&error));
                None
            });
            found.extend(content.map(|content| (*key, mount.id.clone(), content)));
        }
        let unmounted = self.offers.iter().filter(|(key, offer)| {
            failed && !mounted.contains_key(key) && is_stored(services, &offer.archive)
        });
        found.extend(unmounted.map(|(key, offer)| {
            (*key, offer.id.clone(), MountContent::Packed(Box::new(offer.archive.clone())))
        }));
        found.sort_by_key(|(_, id, content)| (content.tar_bytes(), id.clone()));
        let mut total = 0_u64;
        let exports = found.into_iter().filter_map(|(key, id, content)| {
            let tar_bytes = content.tar_bytes();
            total = total.saturating_add(tar_bytes);
            let fits = total <= max_bytes;
            let archive = fits.then(|| pack(services, jobs, content)).transpose();
            let archive =
                archive.map_err(|error| warn_not_exported(services, &id, &chain(&error))).ok()?;
            Some(ExportedMount { key, id, tar_bytes, archive })
        });
        exports.collect()
    }

    fn content(
        &self,
        services: &Services<'_>,
        key: CacheKey,
        mount: &MountedCache,
    ) -> Result<Option<MountContent>> {
        let offered = self.offers.get(&key).map(|offer| Box::new(offer.archive.clone()));
        let offered = offered.filter(|archive| is_stored(services, archive));
        if !mount.used && offered.is_some() {
            return Ok(offered.map(MountContent::Packed));
        }
        let mut held = match hold(services, key)? {
            HoldOutcome::Held(held) => held,
            HoldOutcome::Absent => return Ok(offered.map(MountContent::Packed)),
            HoldOutcome::InUse => {
                warn_not_exported(services, &mount.id, "another build uses it");
                return Ok(offered.map(MountContent::Packed));
            }
        };
        match held.known().filter(|archive| is_stored(services, archive)) {
            Some(known) => Ok(Some(MountContent::Packed(Box::new(known.clone())))),
            None => {
                held.list()?;
                Ok(Some(MountContent::Directory(held)))
            }
        }
    }
}

impl MountContent {
    fn tar_bytes(&self) -> u64 {
        match self {
            Self::Packed(archive) => archive.tar_bytes,
            Self::Directory(held) => held.tar_bytes(),
        }
    }
}

/// Warns that a directory is not exported.
fn warn_not_exported(services: &Services<'_>, id: &str, why: &str) {
    let text =
        format!("the cache mount `{}` is not exported in its current state: {why}", printable(id));
    services.event(Event::Warning { text });
}

fn hold(services: &Services<'_>, key: CacheKey) -> Result<HoldOutcome> {
    for _ in 0..TRIES {
        let holding = services.store.cache_mounts().hold(key)?;
        if !matches!(holding, HoldOutcome::InUse) {
            return Ok(holding);
        }
        // An interrupted wait only tries again sooner.
        let _woken = rustix::event::poll(&mut [], Some(&PAUSE));
    }
    Ok(HoldOutcome::InUse)
}

fn pack(
    services: &Services<'_>,
    jobs: NonZeroUsize,
    content: MountContent,
) -> Result<CacheArchive> {
    match content {
        MountContent::Packed(archive) => Ok(*archive),
        MountContent::Directory(held) => Ok(services.store.cache_mounts().archive(*held, jobs)?),
    }
}

fn is_stored(services: &Services<'_>, archive: &CacheArchive) -> bool {
    let (store, registry) = (services.store, services.registry);
    store.has_blob(archive.blob.digest)
        || image::is_obtainable(store, registry, archive.diff_id).unwrap_or(false)
}

/// Returns a name from outside without characters that control a terminal.
fn printable(id: &str) -> String {
    id.escape_debug().take(200).collect()
}

/// Returns the directories that fit into `max_bytes`, and warns about the others. The largest are
/// left out, so that as many as possible are exported.
pub(in crate::executor) fn fitting<'a>(
    services: &Services<'_>,
    exports: &'a [ExportedMount],
    max_bytes: u64,
) -> Vec<&'a ExportedMount> {
    let mut total = 0_u64;
    let (fit, rest): (Vec<_>, Vec<_>) = exports.iter().partition(|export| {
        total = total.saturating_add(export.tar_bytes);
        total <= max_bytes && export.archive.is_some()
    });
    for ExportedMount { id, tar_bytes, .. } in rest {
        let text = format!(
            "the cache mount `{}` ({}) is left out of the cache, which takes {} of them: \
             mounts-max=SIZE says how much it may take",
            printable(id),
            size(*tar_bytes),
            size(max_bytes)
        );
        services.event(Event::Warning { text });
    }
    fit
}

/// Returns the entries of a cache's document for these directories.
pub(in crate::executor) fn document_entries(exports: &[&ExportedMount]) -> Vec<CachedMount> {
    let document_entries =
        exports.iter().filter_map(|ExportedMount { key, id, archive, .. }| {
            Some(CachedMount::new(id.clone(), *key, archive.clone()?))
        });
    document_entries.collect()
}

/// Returns the archives, each once: two directories may have the same content.
pub(in crate::executor) fn archives(mounts: &[CachedMount]) -> Vec<&CacheArchive> {
    let mut known: BTreeSet<Digest> = BTreeSet::new();
    let archives = mounts.iter().map(|mount| &mount.archive);
    archives.filter(|archive| known.insert(archive.blob.digest)).collect()
}

/// Formats a number of bytes with binary units.
fn size(n_bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in units {
        if n_bytes >> shift > 0 {
            let tenths = (n_bytes >> (shift - 10)) * 10 / 1024;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{n_bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (n_bytes, want) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB")]
        {
            assert_eq!(size(n_bytes), want);
        }
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(printable("a\u{1b}[31m\n"), "a\\u{1b}[31m\\n");
    }
}
