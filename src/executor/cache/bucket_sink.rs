//! Build caches in buckets: one document for each name, and blobs under their digests.

use std::sync::Arc;
use std::time::Instant;

use crate::image::{self, DirectoryUpload, ExportOptions, ImageLayer};
use crate::limits::MAX_CACHE_DOCUMENT_BYTES;
use crate::oci::{Descriptor, Digest};
use crate::registry::{BucketDirectory, RegistryError};

use super::document::{CacheDocument, bad_cache};
use super::location::BucketCache;
use super::sink::{CacheSink, Sharing, Written};

use crate::executor::{BuildError, Services};

type Result<T> = std::result::Result<T, BuildError>;

/// Suffix of a document's key. BuildKit's documents in the same bucket have other keys, so the
/// builders do not read each other's.
const SUFFIX: &str = ".rbuild.json";

fn key(cache: &BucketCache, name: &str) -> String {
    format!("{}{name}{SUFFIX}", cache.manifests)
}

/// Reads the documents under all names of the cache. Absent documents are an error only if all are
/// absent.
pub(super) fn documents(
    cache: &BucketCache,
    services: &Services<'_>,
) -> Result<Vec<CacheDocument>> {
    let directory = Arc::new(cache.directory()?);
    services.registry.add_blob_directory(Arc::<BucketDirectory>::clone(&directory));
    let mut found = Vec::new();
    let mut missing = None;
    for name in &cache.names {
        match directory.bucket.read_object(
            services.registry,
            &key(cache, name),
            MAX_CACHE_DOCUMENT_BYTES,
        ) {
            Ok(bytes) => found.push(serde_json::from_slice(&bytes).map_err(bad_cache)?),
            Err(error @ RegistryError::NotFound { .. }) => missing = Some(error),
            Err(error) => return Err(cache.failed(error)),
        }
    }
    match missing.filter(|_| found.is_empty()) {
        Some(error) => Err(cache.failed(error)),
        None => Ok(found),
    }
}

/// A document in a bucket.
pub(super) struct BucketSink<'a> {
    services: &'a Services<'a>,
    cache: &'a BucketCache,
    key: String,
    directory: Arc<BucketDirectory>,
    options: &'a ExportOptions,
    now_s: i64,
}

impl<'a> BucketSink<'a> {
    /// Returns a sink for each name of the cache.
    pub(super) fn all(
        services: &'a Services<'a>,
        cache: &'a BucketCache,
        options: &'a ExportOptions,
        now_s: i64,
    ) -> Result<Vec<Self>> {
        let directory = Arc::new(cache.directory()?);
        services.registry.add_blob_directory(Arc::<BucketDirectory>::clone(&directory));
        let sink = |name: &String| {
            let (key, directory) = (key(cache, name), Arc::clone(&directory));
            Self { services, cache, key, directory, options, now_s }
        };
        Ok(cache.names.iter().map(sink).collect())
    }

    fn upload(&self) -> DirectoryUpload {
        let (touch_after_s, uploads) = (self.cache.touch_after_s, self.cache.uploads);
        DirectoryUpload { now_s: self.now_s, touch_after_s, uploads }
    }

    fn bytes(&self) -> Result<Option<Vec<u8>>> {
        let bucket = &self.directory.bucket;
        match bucket.read_object(self.services.registry, &self.key, MAX_CACHE_DOCUMENT_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.cache.failed(source)),
        }
    }
}

impl CacheSink for BucketSink<'_> {
    fn sharing(&self) -> Sharing {
        Sharing::Optimistic
    }

    fn version(&self) -> Result<Option<Digest>> {
        Ok(self.bytes()?.map(|bytes| Digest::of(&bytes)))
    }

    /// Returns `None` also for a damaged document, which is replaced.
    fn read(&self, version: Digest) -> Result<Option<CacheDocument>> {
        let bytes = self.bytes()?.filter(|bytes| Digest::of(bytes) == version);
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    fn renew(&self, blobs: &[Descriptor]) -> Result<Vec<Digest>> {
        let registry = self.services.registry;
        image::renew_in_directory(registry, self.directory.as_ref(), blobs, &self.upload())
            .map_err(BuildError::Export)
    }

    fn send(&self, layers: &[ImageLayer]) -> Result<Vec<Descriptor>> {
        let Services { store, registry, .. } = *self.services;
        let (directory, upload) = (self.directory.as_ref(), self.upload());
        image::send_to_directory(store, registry, directory, layers, self.options, &upload)
            .map_err(BuildError::Export)
    }

    fn send_bytes(&self, blobs: &[(Descriptor, Vec<u8>)]) -> Result<()> {
        for (blob, bytes) in blobs {
            let key = self.directory.key(blob.digest);
            let put = self.directory.bucket.put_object(self.services.registry, &key, bytes);
            put.map_err(|source| self.cache.failed(source))?;
        }
        Ok(())
    }

    fn write(&self, document: &CacheDocument, over: Option<Digest>) -> Result<Option<Written>> {
        let started = Instant::now();
        if self.version()? != over {
            return Ok(None);
        }
        let bytes = document.to_bytes();
        let put = self.directory.bucket.put_object(self.services.registry, &self.key, &bytes);
        put.map_err(|source| self.cache.failed(source))?;
        Ok(Some(Written { version: Digest::of(&bytes), window: started.elapsed() }))
    }

    /// Returns nothing: a bucket takes every document, and an import checks the blobs that it needs.
    fn absent(&self, _blobs: &[Descriptor]) -> Vec<Digest> {
        Vec::new()
    }
}
