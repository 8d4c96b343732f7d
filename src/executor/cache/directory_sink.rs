//! Export of caches to directories, as OCI layouts.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::image::{self, ExportError, ExportOptions, ImageLayer, LayoutReader, PackedImage};
use crate::oci::{Descriptor, Digest, ManifestOrIndex, MediaType, Platform};
use crate::pathio::output::open_tree;
use crate::pathio::{Context as _, PathError};

use super::document::{CacheDocument, MEDIA_TYPE};
use super::sink::{CacheSink, Sharing, Written, fetch_missing};

use crate::executor::{BuildError, Services};

type Result<T> = std::result::Result<T, BuildError>;

/// A tag in a layout, which this process has locked.
pub(super) struct DirectorySink<'a> {
    services: &'a Services<'a>,
    path: &'a Path,
    tag: &'a str,
    options: &'a ExportOptions,
    _lock: OwnedFd,
}

impl<'a> DirectorySink<'a> {
    /// Creates the directory if needed. Waits until no other process writes a cache there.
    pub(super) fn new(
        services: &'a Services<'a>,
        path: &'a Path,
        tag: &'a str,
        options: &'a ExportOptions,
    ) -> Result<Self> {
        let lock = lock(path).map_err(|error| BuildError::Export(ExportError::Io(error)))?;
        Ok(Self { services, path, tag, options, _lock: lock })
    }
}

/// Locks a directory itself (flock(2)), so that no file appears in it.
fn lock(path: &Path) -> std::result::Result<OwnedFd, PathError> {
    let directory = open_tree(path)?;
    // An `O_PATH` descriptor cannot be locked (open(2)).
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        rustix::fs::openat(&directory, ".", flags, Mode::empty()).context("open", path)?;
    match rustix::fs::flock(&directory, FlockOperation::LockExclusive) {
        // A file system without locks, such as some of NFS.
        Ok(()) | Err(rustix::io::Errno::NOLCK | rustix::io::Errno::OPNOTSUPP) => Ok(directory),
        Err(error) => Err(PathError::new("lock", path, error)),
    }
}

impl CacheSink for DirectorySink<'_> {
    fn sharing(&self) -> Sharing {
        Sharing::Locked
    }

    /// Returns `None` also for a damaged layout, which is replaced.
    fn version(&self) -> Result<Option<Digest>> {
        let found = LayoutReader::new(self.path).manifest(Some(self.tag), None, &Platform::host());
        Ok(found.ok().map(|(digest, _)| digest))
    }

    fn read(&self, version: Digest) -> Result<Option<CacheDocument>> {
        let reader = LayoutReader::new(self.path);
        let document = || {
            let bytes = reader.document(version).ok()?;
            let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&bytes) else {
                return None;
            };
            let is_cache = manifest.config.media_type.as_str() == MEDIA_TYPE;
            let config =
                is_cache.then(|| reader.document(manifest.config.digest).ok()).flatten()?;
            serde_json::from_slice(&config).ok()
        };
        Ok(document())
    }

    fn send(&self, layers: &[ImageLayer]) -> Result<Vec<Descriptor>> {
        fetch_missing(self.services, layers)?;
        image::pack_layers(self.services.store, layers, self.options).map_err(BuildError::Export)
    }

    /// Puts them into the store, from which the write takes all blobs.
    fn send_bytes(&self, blobs: &[(Descriptor, Vec<u8>)]) -> Result<()> {
        for (_, bytes) in blobs {
            self.services.store.put_blob(bytes)?;
        }
        Ok(())
    }

    fn write(&self, document: &CacheDocument, _over: Option<Digest>) -> Result<Option<Written>> {
        let bytes = document.to_bytes();
        let config = Descriptor::of(MediaType::from(MEDIA_TYPE.to_owned()), &bytes);
        let packed = PackedImage::of_artifact(config, document.blobs(), self.options);
        image::write_artifact(self.services.store, self.path, self.tag, &packed, &bytes)
            .map_err(BuildError::Export)?;
        Ok(Some(Written { version: packed.digest(), window: Duration::ZERO }))
    }

    fn absent(&self, blobs: &[Descriptor]) -> Vec<Digest> {
        let reader = LayoutReader::new(self.path);
        let absent = blobs.iter().filter(|blob| reader.open_blob(blob).is_err());
        absent.map(|blob| blob.digest).collect()
    }
}
