//! Directories of `RUN --mount=type=cache` that travel with a build cache.
//!
//! They come in when a step runs that mounts one which this store has not got, and go out when the
//! build is over. What is here already stays: of two stores nobody can say whose is the better one.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::Timespec;

use crate::image;
use crate::oci::Digest;
use crate::plan::CacheKey;
use crate::store::{CacheArchive, HeldCache, Holding, WorkDirectory};

use super::document::CachedMount;
use crate::executor::{BuildError, Event, Outcome, Services, chain};

type Result<T> = std::result::Result<T, BuildError>;

/// How often it is tried to take a directory that another build uses, and the pause between: together
/// five seconds.
const TRIES: u32 = 100;
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// What a cache elsewhere has of a directory.
#[derive(Debug, Clone)]
pub(in crate::executor) struct Offer {
    pub(in crate::executor) id: String,
    pub(in crate::executor) archive: CacheArchive,
    /// Whether a step must not run without it.
    pub(in crate::executor) must: bool,
}

/// By the directory's key.
pub(in crate::executor) type Offers = BTreeMap<CacheKey, Offer>;

/// The directories of a build, and what is offered for them.
#[derive(Debug)]
pub(in crate::executor) struct CacheMountTransfer {
    offers: Offers,
    met: Mutex<BTreeMap<CacheKey, Met>>,
}

/// A directory that a step of this build mounts.
#[derive(Debug, Clone)]
struct Met {
    id: String,
    /// Whether the step ran; else it was found.
    used: bool,
}

/// A directory that may go into caches.
#[derive(Debug)]
pub(in crate::executor) struct Traveller {
    key: CacheKey,
    id: String,
    tar_bytes: u64,
    /// `None` when it is too large for all of them.
    archive: Option<CacheArchive>,
}

/// Where the content of a directory is.
enum Content {
    /// In an archive that some place has.
    Packed(Box<CacheArchive>),
    /// Here.
    Directory(Box<HeldCache>),
}

impl CacheMountTransfer {
    pub(in crate::executor) const fn new(offers: Offers) -> Self {
        Self { offers, met: Mutex::new(BTreeMap::new()) }
    }

    /// A step mounts the directory.
    pub(in crate::executor) fn meet(&self, key: CacheKey, id: &str) {
        self.met().entry(key).or_insert_with(|| Met { id: id.to_owned(), used: false });
    }

    /// A step runs with the directory.
    pub(in crate::executor) fn use_it(&self, key: CacheKey, id: &str) {
        self.met().insert(key, Met { id: id.to_owned(), used: true });
    }

    fn met(&self) -> std::sync::MutexGuard<'_, BTreeMap<CacheKey, Met>> {
        // Each use is one call on the map: a panic elsewhere leaves it whole.
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a directory that is not here begins with, if it is offered. That it cannot be had is a
    /// warning, unless it must be.
    pub(in crate::executor) fn restore(
        &self,
        services: &Services<'_>,
        key: CacheKey,
    ) -> Result<Option<WorkDirectory>> {
        let Some(Offer { id, archive, must }) = self.offers.get(&key) else { return Ok(None) };
        let (store, registry) = (services.store, services.registry);
        let shown = services.start(format!("[internal] restore the cache mount `{}`", plain(id)));
        let (stop, n_bytes) = (services.stop, AtomicU64::new(0));
        let progress = |more: u64| {
            let done_bytes = n_bytes.fetch_add(more, Ordering::Relaxed) + more;
            let (step, total_bytes) = (shown.id, archive.blob.size);
            services.event(Event::Progress { step, done_bytes, total_bytes });
            !stop.is_thrown()
        };
        let read = |packed| store.unpack_cache(archive, packed);
        let restored = image::read_elsewhere(store, registry, archive.diff_id, &progress, &read);
        let outcome = match &restored {
            Ok(_) => Outcome::Done,
            Err(_) if stop.is_thrown() => Outcome::Cancelled,
            Err(_) => Outcome::Failed,
        };
        services.finish(shown, outcome);
        let error = match restored {
            Ok(work) => return Ok(Some(work)),
            Err(_) if stop.is_thrown() => return Err(services.stopped()),
            Err(error) => error,
        };
        if *must {
            let (verb, source) = ("restore the cache mount", Box::new(BuildError::Export(error)));
            return Err(BuildError::Cache { verb, place: plain(id), source });
        }
        let why = chain(&error);
        let text =
            format!("the cache mount `{}` begins empty: it cannot be restored: {why}", plain(id));
        services.event(Event::Warning { text });
        Ok(None)
    }

    /// The directories for caches that take up to `max_bytes`, smallest first. Those that no step of
    /// this build used go on as they were offered; so do those of steps that a failed build did not
    /// come to.
    pub(in crate::executor) fn gather(
        &self,
        services: &Services<'_>,
        jobs: NonZeroUsize,
        max_bytes: u64,
        failed: bool,
    ) -> Vec<Traveller> {
        let met = self.met().clone();
        let mut found = Vec::new();
        for (key, met) in &met {
            let content = self.content(services, *key, met).unwrap_or_else(|error| {
                stays(services, &met.id, &chain(&error));
                None
            });
            found.extend(content.map(|content| (*key, met.id.clone(), content)));
        }
        let unmet = self.offers.iter().filter(|(key, offer)| {
            failed && !met.contains_key(key) && is_somewhere(services, &offer.archive)
        });
        found.extend(unmet.map(|(key, offer)| {
            (*key, offer.id.clone(), Content::Packed(Box::new(offer.archive.clone())))
        }));
        found.sort_by_key(|(_, id, content)| (content.tar_bytes(), id.clone()));
        let mut total = 0_u64;
        let travellers = found.into_iter().filter_map(|(key, id, content)| {
            let tar_bytes = content.tar_bytes();
            total = total.saturating_add(tar_bytes);
            let fits = total <= max_bytes;
            let archive = fits.then(|| pack(services, jobs, content)).transpose();
            let archive = archive.map_err(|error| stays(services, &id, &chain(&error))).ok()?;
            Some(Traveller { key, id, tar_bytes, archive })
        });
        travellers.collect()
    }

    fn content(
        &self,
        services: &Services<'_>,
        key: CacheKey,
        met: &Met,
    ) -> Result<Option<Content>> {
        let offered = self.offers.get(&key).map(|offer| Box::new(offer.archive.clone()));
        let offered = offered.filter(|archive| is_somewhere(services, archive));
        if !met.used && offered.is_some() {
            return Ok(offered.map(Content::Packed));
        }
        let mut held = match hold(services, key)? {
            Holding::Held(held) => held,
            Holding::Absent => return Ok(offered.map(Content::Packed)),
            Holding::InUse => {
                stays(services, &met.id, "another build uses it");
                return Ok(offered.map(Content::Packed));
            }
        };
        match held.known().filter(|archive| is_somewhere(services, archive)) {
            Some(known) => Ok(Some(Content::Packed(Box::new(known.clone())))),
            None => {
                held.list()?;
                Ok(Some(Content::Directory(held)))
            }
        }
    }
}

impl Content {
    fn tar_bytes(&self) -> u64 {
        match self {
            Self::Packed(archive) => archive.tar_bytes,
            Self::Directory(held) => held.tar_bytes(),
        }
    }
}

/// Tells that a directory stays here, and why.
fn stays(services: &Services<'_>, id: &str, why: &str) {
    let text = format!("the cache mount `{}` is not exported as it is now: {why}", plain(id));
    services.event(Event::Warning { text });
}

fn hold(services: &Services<'_>, key: CacheKey) -> Result<Holding> {
    for _ in 0..TRIES {
        let holding = services.store.hold_cache(key)?;
        if !matches!(holding, Holding::InUse) {
            return Ok(holding);
        }
        // An interrupted wait only looks again sooner.
        let _woken = rustix::event::poll(&mut [], Some(&PAUSE));
    }
    Ok(Holding::InUse)
}

fn pack(services: &Services<'_>, jobs: NonZeroUsize, content: Content) -> Result<CacheArchive> {
    match content {
        Content::Packed(archive) => Ok(*archive),
        Content::Directory(held) => Ok(services.store.archive_cache(*held, jobs)?),
    }
}

fn is_somewhere(services: &Services<'_>, archive: &CacheArchive) -> bool {
    let (store, registry) = (services.store, services.registry);
    store.has_blob(archive.blob.digest)
        || image::is_obtainable(store, registry, archive.diff_id).unwrap_or(false)
}

/// A name that others wrote, without what a terminal would obey.
fn plain(id: &str) -> String {
    id.escape_debug().take(200).collect()
}

/// Those that go into a cache which takes `max_bytes` of them. What is left out is told: the largest,
/// so that as many as possible go.
pub(in crate::executor) fn chosen<'a>(
    services: &Services<'_>,
    travellers: &'a [Traveller],
    max_bytes: u64,
) -> Vec<&'a Traveller> {
    let mut total = 0_u64;
    let (fit, rest): (Vec<_>, Vec<_>) = travellers.iter().partition(|traveller| {
        total = total.saturating_add(traveller.tar_bytes);
        total <= max_bytes && traveller.archive.is_some()
    });
    for Traveller { id, tar_bytes, .. } in rest {
        let text = format!(
            "the cache mount `{}` ({}) is left out of the cache, which takes {} of them: \
             mounts-max=SIZE says how much it may take",
            plain(id),
            size(*tar_bytes),
            size(max_bytes)
        );
        services.event(Event::Warning { text });
    }
    fit
}

/// What a cache's document says of them.
pub(in crate::executor) fn cached(travellers: &[&Traveller]) -> Vec<CachedMount> {
    let cached = travellers.iter().filter_map(|Traveller { key, id, archive, .. }| {
        Some(CachedMount::new(id.clone(), *key, archive.clone()?))
    });
    cached.collect()
}

/// Their archives, each once: two directories may hold the same.
pub(in crate::executor) fn archives(mounts: &[CachedMount]) -> Vec<&CacheArchive> {
    let mut known: BTreeSet<Digest> = BTreeSet::new();
    let archives = mounts.iter().map(|mount| &mount.archive);
    archives.filter(|archive| known.insert(archive.blob.digest)).collect()
}

/// A number of bytes, for people.
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
    fn sizes_are_for_people() {
        for (n_bytes, want) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB")]
        {
            assert_eq!(size(n_bytes), want);
        }
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[31m\n"), "a\\u{1b}[31m\\n");
    }
}
