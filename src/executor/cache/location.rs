//! Locations of build caches elsewhere, as `--cache-from` and `--cache-to` name them.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::archive::Packing;
use crate::executor::BuildError;
use crate::executor::inputs::layout_path;
use crate::oci::Reference;
use crate::registry::{
    ActionsCache, ActionsOptions, BlobDirectory as _, Bucket, BucketDirectory, BucketOptions,
    RegistryError,
};

use super::actions_sink;
use super::merge::CacheBounds;

type Result<T> = std::result::Result<T, BuildError>;

/// Location of a build cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheLocation {
    /// A name in a registry, of a cache or of an image with an inline cache.
    Registry(Reference),
    /// An OCI layout, and a tag in it.
    Directory(PathBuf, String),
    /// A bucket, and names in it.
    Bucket(Box<BucketCache>),
    /// The cache of GitHub Actions.
    Actions(Box<ActionsOptions>),
    /// The config of the image that is built.
    Inline,
}

/// A cache to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFrom {
    /// Location to read from.
    pub place: CacheLocation,
    /// True if its directories of `RUN --mount=type=cache` are used, too.
    pub mounts: bool,
    /// Steps that were executed before this time are not used, seconds since 1970.
    pub made_since_s: Option<i64>,
    /// True if a cache that cannot be read is only a warning.
    pub ignore_error: bool,
}

/// A cache to export to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTo {
    /// Location to write to.
    pub place: CacheLocation,
    /// True to write every step (`mode=max`), and not only those whose layers are in the image.
    pub all_steps: bool,
    /// Maximum size of the directories of `RUN --mount=type=cache` that are exported, as tars;
    /// `None` to export none.
    pub mounts: Option<u64>,
    /// Compression of the layers.
    pub packing: Packing,
    /// Bounds on what the location keeps of earlier builds.
    pub bounds: CacheBounds,
    /// True if a cache that cannot be written is only a warning.
    pub ignore_error: bool,
}

impl std::fmt::Display for CacheLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(name) => f.write_str(&name.familiar()),
            Self::Directory(path, tag) => write!(f, "{} ({tag})", path.display()),
            Self::Bucket(cache) => write!(f, "{cache}"),
            Self::Actions(options) => f.write_str(&actions_sink::shown(options)),
            Self::Inline => f.write_str("the image"),
        }
    }
}

/// A cache in a bucket, with the options of BuildKit's s3 cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketCache {
    /// Address of the bucket, and credentials.
    pub bucket: BucketOptions,
    /// Prefix of the keys of blobs.
    pub blobs: String,
    /// Prefix of the keys of documents.
    pub manifests: String,
    /// Names of the documents, at least one.
    pub names: Vec<String>,
    /// Age in seconds after which a reused blob is touched, so that lifecycle rules keep it.
    pub touch_after_s: i64,
    /// Maximum number of blobs that are uploaded at once.
    pub uploads: NonZeroUsize,
}

impl std::fmt::Display for BucketCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}{}", self.bucket.name, self.manifests, self.names.join(";"))
    }
}

impl BucketCache {
    pub(super) fn directory(&self) -> Result<BucketDirectory> {
        let bucket = Bucket::new(&self.bucket).map_err(|source| self.failed(source))?;
        Ok(BucketDirectory { bucket, prefix: self.blobs.clone() })
    }

    pub(super) fn failed(&self, source: RegistryError) -> BuildError {
        BuildError::Bucket { place: self.to_string(), source }
    }
}

/// Returns the location as the store records it; `None` for the image that is being built.
pub(in crate::executor) fn store_place(place: &CacheLocation) -> Result<Option<String>> {
    match place {
        CacheLocation::Registry(name) => Ok(Some(name.name())),
        CacheLocation::Directory(path, _) => layout_path::absolute(path).map(Some),
        CacheLocation::Bucket(cache) => Ok(Some(cache.directory()?.location())),
        CacheLocation::Actions(options) => {
            let cache = ActionsCache::new(options);
            let cache = cache.map_err(|source| actions_sink::failed(options, source))?;
            Ok(Some(cache.location()))
        }
        CacheLocation::Inline => Ok(None),
    }
}
