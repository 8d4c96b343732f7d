//! Build caches in buckets: one document for each name, and blobs under their digests.

use std::sync::Arc;

use crate::image::{self, Artifact, BucketUpload, ExportOptions};
use crate::limits::MAX_CACHE_DOCUMENT_BYTES;
use crate::registry::RegistryError;

use super::document::{CacheDocument, bad_cache};
use super::location::BucketCache;

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
    services.registry.add_bucket_directory(Arc::clone(&directory));
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

/// Writes the blobs, and then the document under each name.
pub(super) fn write(
    cache: &BucketCache,
    services: &Services<'_>,
    artifact: &Artifact<'_>,
    options: &ExportOptions,
    now_s: i64,
) -> Result<()> {
    let directory = Arc::new(cache.directory()?);
    services.registry.add_bucket_directory(Arc::clone(&directory));
    let (touch_after_s, uploads) = (cache.touch_after_s, cache.uploads);
    let upload = BucketUpload { now_s, touch_after_s, uploads };
    let (store, registry) = (services.store, services.registry);
    let blobs =
        image::send_to_bucket(store, registry, &directory, artifact.layers, options, &upload)?;
    let document = (artifact.document)(&blobs);
    for name in &cache.names {
        let written = directory.bucket.put_object(registry, &key(cache, name), &document);
        written.map_err(|source| cache.failed(source))?;
    }
    Ok(())
}
