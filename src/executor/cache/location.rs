//! Locations of build caches elsewhere, as `--cache-from` and `--cache-to` name them.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::archive::Packing;
use crate::executor::BuildError;
use crate::executor::inputs::layout_path;
use crate::oci::Reference;
use crate::registry::{Bucket, BucketDirectory, BucketOptions, RegistryError};

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
    pub(super) fn directory(&self) -> Result<BucketDirectory> {
        let bucket = Bucket::new(&self.bucket).map_err(|source| self.failed(source))?;
        Ok(BucketDirectory { bucket, prefix: self.blobs.clone() })
    }

    pub(super) fn failed(&self, source: RegistryError) -> BuildError {
        BuildError::Bucket { place: self.to_string(), source }
    }
}

/// The place as the store remembers it, unless it is the image that is being built.
pub(in crate::executor) fn store_place(place: &CachePlace) -> Result<Option<String>> {
    match place {
        CachePlace::Registry(name) => Ok(Some(name.name())),
        CachePlace::Directory(path, _) => layout_path::absolute(path).map(Some),
        CachePlace::Bucket(cache) => Ok(Some(cache.directory()?.place())),
        CachePlace::Inline => Ok(None),
    }
}
