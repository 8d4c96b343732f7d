//! Build caches in the cache of GitHub Actions: a document for each branch, and blobs under their digests.
//!
//! Entries are never written twice, so each version of a document has the next number. Two jobs cannot
//! reserve the same one: a document is only written over the version that was merged into it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::image::{self, DirectoryUpload, ExportOptions, ImageLayer};
use crate::limits::MAX_CACHE_DOCUMENT_BYTES;
use crate::oci::{Descriptor, Digest};
use crate::pool;
use crate::registry::{ActionsCache, ActionsEntry, ActionsOptions, RegistryError, Reservation};

use super::document::{CacheDocument, bad_cache};
use super::sink::{CacheSink, Sharing, Written};

use crate::executor::{BuildError, Services};

type Result<T> = std::result::Result<T, BuildError>;

/// Number of entries that are looked up or uploaded at once: the service limits requests.
const PARALLEL_REQUESTS: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");
/// Number of attempts after which a reserved number is taken for that of a job that has died.
const CONFLICTS: u64 = 6;

/// Returns the name of the cache for messages.
pub(super) fn shown(options: &ActionsOptions) -> String {
    format!("the cache of GitHub Actions (scope {})", options.scope)
}

pub(super) fn failed(options: &ActionsOptions, source: RegistryError) -> BuildError {
    BuildError::Bucket { place: shown(options), source }
}

fn open(services: &Services<'_>, options: &ActionsOptions) -> Result<Arc<ActionsCache>> {
    let cache = ActionsCache::new(options).map_err(|source| failed(options, source))?;
    let cache = Arc::new(cache);
    services.registry.add_blob_directory(Arc::<ActionsCache>::clone(&cache));
    Ok(cache)
}

/// Returns the version that a document is compared by.
fn version_of(entry: &ActionsEntry) -> Digest {
    Digest::of(entry.key.as_bytes())
}

/// Reads the documents of all branches that the token may read, with their versions. There are none in
/// the first job, which is not an error in BuildKit either.
pub(super) fn documents(
    options: &ActionsOptions,
    services: &Services<'_>,
) -> Result<Vec<(Digest, CacheDocument)>> {
    let cache = open(services, options)?;
    let registry = services.registry;
    let prefixes = cache.document_prefixes();
    let read = pool::map_in_order(&prefixes, PARALLEL_REQUESTS, |prefix| {
        let Some(entry) = cache.find(registry, prefix)? else { return Ok(None) };
        let bytes = cache.read(registry, prefix, MAX_CACHE_DOCUMENT_BYTES)?;
        Ok::<_, RegistryError>(Some((version_of(&entry), bytes)))
    });
    let mut documents = Vec::new();
    for one in read {
        if let Some((version, bytes)) = one.map_err(|source| failed(options, source))? {
            documents.push((version, serde_json::from_slice(&bytes).map_err(bad_cache)?));
        }
    }
    Ok(documents)
}

/// The document of the branch that this job writes.
pub(super) struct ActionsSink<'a> {
    services: &'a Services<'a>,
    place: &'a ActionsOptions,
    cache: Arc<ActionsCache>,
    prefix: String,
    options: &'a ExportOptions,
    /// Number of the version that was found last.
    number: AtomicU64,
    n_conflicts: AtomicU64,
}

impl<'a> ActionsSink<'a> {
    pub(super) fn new(
        services: &'a Services<'a>,
        place: &'a ActionsOptions,
        options: &'a ExportOptions,
    ) -> Result<Self> {
        let cache = open(services, place)?;
        let prefix = cache.own_prefix().map_err(|source| failed(place, source))?;
        let (number, n_conflicts) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { services, place, cache, prefix, options, number, n_conflicts })
    }

    fn failed(&self, source: RegistryError) -> BuildError {
        failed(self.place, source)
    }

    const UPLOAD: DirectoryUpload =
        DirectoryUpload { now_s: 0, touch_after_s: i64::MAX, uploads: PARALLEL_REQUESTS };
}

impl CacheSink for ActionsSink<'_> {
    fn sharing(&self) -> Sharing {
        Sharing::Optimistic
    }

    fn version(&self) -> Result<Option<Digest>> {
        let found = self.cache.find(self.services.registry, &self.prefix);
        let found = found.map_err(|source| self.failed(source))?;
        let number = found.as_ref().map_or(0, |entry| entry.number);
        self.number.store(number, Ordering::SeqCst);
        Ok(found.as_ref().map(version_of))
    }

    fn read(&self, version: Digest) -> Result<Option<CacheDocument>> {
        let registry = self.services.registry;
        match self.cache.read(registry, &self.prefix, MAX_CACHE_DOCUMENT_BYTES) {
            Ok(bytes) if self.version()? == Some(version) => {
                Ok(serde_json::from_slice(&bytes).ok())
            }
            Ok(_) | Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Looks the blobs up. GitHub removes entries that were not used for a week, and the oldest ones above
    /// the limit of a repository.
    fn renew(&self, blobs: &[Descriptor]) -> Result<Vec<Digest>> {
        let (registry, cache) = (self.services.registry, self.cache.as_ref());
        image::renew_in_directory(registry, cache, blobs, &Self::UPLOAD).map_err(BuildError::Export)
    }

    fn send(&self, layers: &[ImageLayer]) -> Result<Vec<Descriptor>> {
        let Services { store, registry, .. } = *self.services;
        let cache = self.cache.as_ref();
        image::send_to_directory(store, registry, cache, layers, self.options, &Self::UPLOAD)
            .map_err(BuildError::Export)
    }

    fn send_bytes(&self, blobs: &[(Descriptor, Vec<u8>)]) -> Result<()> {
        let send = |(blob, bytes): &(Descriptor, Vec<u8>)| {
            self.cache.write_blob(self.services.registry, blob.digest, bytes)
        };
        let sent = pool::map_in_order(blobs, PARALLEL_REQUESTS, send);
        let sent: std::result::Result<(), _> = sent.into_iter().collect();
        sent.map_err(|source| self.failed(source))
    }

    fn write(&self, document: &CacheDocument, over: Option<Digest>) -> Result<Option<Written>> {
        if self.version()? != over {
            return Ok(None);
        }
        let skipped = self.n_conflicts.load(Ordering::SeqCst) / CONFLICTS;
        let number = self.number.load(Ordering::SeqCst).saturating_add(1).saturating_add(skipped);
        let registry = self.services.registry;
        let reserved = self.cache.reserve(registry, &self.prefix, number);
        match reserved.map_err(|source| self.failed(source))? {
            Reservation::Taken => {
                self.n_conflicts.fetch_add(1, Ordering::SeqCst);
                Ok(None)
            }
            Reservation::Granted(entry) => {
                let written = self.cache.write(registry, entry, &document.to_bytes());
                written.map_err(|source| self.failed(source))?;
                let written = ActionsEntry::of(&self.prefix, number);
                // Nobody else could write over the same version.
                Ok(Some(Written { version: version_of(&written), window: Duration::ZERO }))
            }
        }
    }

    /// Returns nothing: the service takes every document, and `renew` has looked the blobs up.
    fn absent(&self, _blobs: &[Descriptor]) -> Vec<Digest> {
        Vec::new()
    }
}
