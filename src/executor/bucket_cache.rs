//! Build caches in buckets: a document under each of some names, blobs under their digests.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::image::{self, Artifact, BucketUpload, ExportOptions};
use crate::limits::MAX_CACHE_DOCUMENT_BYTES;
use crate::registry::{Bucket, BucketDirectory, BucketOptions, RegistryError};

use super::BuildError;
use super::cache_document::CacheDocument;
use super::options::Services;
use super::remote_cache::bad_cache;

type Result<T> = std::result::Result<T, BuildError>;

/// What a document's key ends with: builders that share a bucket do not read each other's.
const SUFFIX: &str = ".rbuild.json";

/// A cache in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketCache {
    /// Where, and who asks.
    pub bucket: BucketOptions,
    /// What the keys of blobs begin with.
    pub blobs: String,
    /// What the keys of documents begin with.
    pub manifests: String,
    /// The names of the documents; one at least.
    pub names: Vec<String>,
    /// A blob that is used again is made young when it is older than this.
    pub touch_after_s: i64,
    /// How many blobs go up at once.
    pub uploads: NonZeroUsize,
}

impl std::fmt::Display for BucketCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}{}", self.bucket.name, self.manifests, self.names.join(";"))
    }
}

impl BucketCache {
    fn directory(&self) -> Result<BucketDirectory> {
        let bucket = Bucket::new(&self.bucket).map_err(|source| self.failed(source))?;
        Ok(BucketDirectory { bucket, prefix: self.blobs.clone() })
    }

    /// The directory of its blobs, as the store remembers it.
    pub(super) fn place(&self) -> Result<String> {
        Ok(self.directory()?.location())
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}{SUFFIX}", self.manifests)
    }

    fn failed(&self, source: RegistryError) -> BuildError {
        BuildError::Bucket { place: self.to_string(), source }
    }

    /// Reads the documents of its names; that some are not there is no error if others are.
    pub(super) fn documents(&self, services: &Services<'_>) -> Result<Vec<CacheDocument>> {
        let directory = Arc::new(self.directory()?);
        services.registry.add_bucket_directory(Arc::clone(&directory));
        let mut found = Vec::new();
        let mut missing = None;
        for name in &self.names {
            match directory.bucket.read_object(
                services.registry,
                &self.key(name),
                MAX_CACHE_DOCUMENT_BYTES,
            ) {
                Ok(bytes) => found.push(serde_json::from_slice(&bytes).map_err(bad_cache)?),
                Err(error @ RegistryError::NotFound { .. }) => missing = Some(error),
                Err(error) => return Err(self.failed(error)),
            }
        }
        match missing.filter(|_| found.is_empty()) {
            Some(error) => Err(self.failed(error)),
            None => Ok(found),
        }
    }

    /// Writes the blobs, and then the document under each name.
    pub(super) fn write(
        &self,
        services: &Services<'_>,
        artifact: &Artifact<'_>,
        options: &ExportOptions,
        now_s: i64,
    ) -> Result<()> {
        let directory = Arc::new(self.directory()?);
        services.registry.add_bucket_directory(Arc::clone(&directory));
        let (touch_after_s, uploads) = (self.touch_after_s, self.uploads);
        let upload = BucketUpload { now_s, touch_after_s, uploads };
        let (store, registry) = (services.store, services.registry);
        let blobs =
            image::send_to_bucket(store, registry, &directory, artifact.layers, options, &upload)?;
        let document = (artifact.document)(&blobs);
        for name in &self.names {
            let written = directory.bucket.put_object(registry, &self.key(name), &document);
            written.map_err(|source| self.failed(source))?;
        }
        Ok(())
    }
}
