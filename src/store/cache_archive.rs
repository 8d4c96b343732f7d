//! Directories of `RUN --mount=type=cache` as archives, which can be transferred to other stores.
//!
//! An archive is a compressed layer tar: the same files give the same bytes. Times are whole seconds.
//! Devices and sockets are left out. Imported archives are untrusted and unpacked like layers.

use std::io::Read;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use crate::archive::{self, ArchiveBounds, DigestWriter, Packing, ReadAhead};
use crate::oci::{Descriptor, DiffId, LayerCompression, MediaType};
use crate::pathio::{self, Context as _, PathError};
use crate::plan::CacheKey;
use crate::tree::{Entry, FileOrigin, LayerItem, Node, TreePath};

use super::cache_mounts::{ARCHIVED, CacheMounts, MAX_COPIES};
use super::layer_diff;
use super::layer_tar::LayerTarReader;
use super::locks::FileLock;
use super::private_files::open_directory;
use super::unpack::{self, UnpackOptions, Whiteouts};
use super::{StoreError, WorkDirectory, private_files};

type Result<T> = std::result::Result<T, StoreError>;

/// Maximum size of the file [`ARCHIVED`], bytes.
const MAX_RECORD_BYTES: u64 = 64 << 10;
/// Size of a tar header, and the unit to which contents are padded (tar(5)).
const TAR_BLOCK: u64 = 512;

/// The archive of a cache directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheArchive {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Length of the uncompressed tar, bytes.
    pub tar_bytes: u64,
    /// Descriptor of the compressed tar.
    pub blob: Descriptor,
}

/// Result of an attempt to lock a cache directory for export.
#[derive(Debug)]
pub enum HoldOutcome {
    /// The store has no directory for the cache.
    Absent,
    /// Steps use every copy of the directory.
    InUse,
    /// The caller holds the directory.
    Held(Box<HeldCache>),
}

/// A cache directory that no step uses until the value is dropped.
#[derive(Debug)]
pub struct HeldCache {
    home: PathBuf,
    directory: OwnedFd,
    /// Entries of the directory; empty while an archive with the same content is known.
    entries: Vec<Entry>,
    known: Option<CacheArchive>,
    _lock: FileLock,
}

impl HeldCache {
    /// Returns the archive with the content of the directory, if it was archived and not used since.
    #[must_use]
    pub const fn known(&self) -> Option<&CacheArchive> {
        self.known.as_ref()
    }

    /// Returns the length of the uncompressed tar, exact if the archive is known and else an
    /// estimate.
    #[must_use]
    pub fn tar_bytes(&self) -> u64 {
        if let Some(known) = &self.known {
            return known.tar_bytes;
        }
        let content = |entry: &Entry| match &entry.item {
            LayerItem::Node(_, Node::File(file)) => file.size.next_multiple_of(TAR_BLOCK),
            LayerItem::Node(..)
            | LayerItem::HardLink(_)
            | LayerItem::Whiteout
            | LayerItem::Opaque => 0,
        };
        let sizes = self.entries.iter().map(|entry| content(entry).saturating_add(TAR_BLOCK));
        sizes.fold(2 * TAR_BLOCK, u64::saturating_add)
    }

    /// Lists the directory and forgets the known archive.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a directory cannot be read.
    pub fn list(&mut self) -> Result<()> {
        let entries = layer_diff::diff_upper(self.directory.as_fd(), &[], false)?;
        self.entries = entries.into_iter().filter_map(archived_entry).collect();
        self.known = None;
        Ok(())
    }
}

/// Returns the entry as the archive has it; `None` if it is left out. Overlay marks have no meaning in
/// a cache directory, which is mounted without lower directories.
fn archived_entry(mut entry: Entry) -> Option<Entry> {
    match &mut entry.item {
        LayerItem::Node(_, Node::CharDevice(_) | Node::BlockDevice(_))
        | LayerItem::Whiteout
        | LayerItem::Opaque => {
            return None;
        }
        LayerItem::Node(_, Node::Directory { opaque }) => *opaque = false,
        LayerItem::Node(_, Node::File(_) | Node::Symlink(_) | Node::Fifo)
        | LayerItem::HardLink(_) => {}
    }
    Some(entry)
}

impl CacheMounts<'_> {
    /// Locks the first copy of a cache's directory that no step uses. Its entries are listed, but no
    /// file is read; if an archive is known, not even that.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a directory cannot be read.
    pub fn hold(self, key: CacheKey) -> Result<HoldOutcome> {
        let mut in_use = false;
        for copy in 0..MAX_COPIES {
            let home = self.copy_path(key, copy);
            if access(home.join("fs"), Access::EXISTS).is_err() {
                break;
            }
            let Some(lock) = FileLock::try_exclusive(&home.join("lock"))? else {
                in_use = true;
                continue;
            };
            let directory = open_directory(&home.join("fs"))?;
            let known = known_archive(&home.join(ARCHIVED))?;
            let entries = Vec::new();
            let mut held = Box::new(HeldCache { home, directory, entries, known, _lock: lock });
            if held.known.is_none() {
                held.list()?;
            }
            return Ok(HoldOutcome::Held(held));
        }
        Ok(if in_use { HoldOutcome::InUse } else { HoldOutcome::Absent })
    }

    /// Archives a cache directory into a private blob of this process, and records the archive beside
    /// the directory.
    ///
    /// # Errors
    /// [`StoreError::Layer`], [`StoreError::NoSpace`] or [`StoreError::Io`].
    pub fn archive(self, held: HeldCache, jobs: NonZeroUsize) -> Result<CacheArchive> {
        let HeldCache { home, directory, entries, _lock, .. } = held;
        let packer = archive::packer(self.store.draft()?, Packing::ZSTD, jobs);
        let mut tar = DigestWriter::new(packer.context("pack", &home)?);
        layer_diff::write_layer(&entries, directory.as_fd(), &mut tar, &mut |_, _| Ok(()))?;
        let (packer, digest, tar_bytes) = tar.finish();
        let (blob, n_bytes) = self.store.keep_private(packer.finish().context("pack", &home)?);
        let media_type = MediaType::OciLayer(LayerCompression::Zstd);
        let blob = Descriptor::new(media_type, blob, n_bytes);
        let archive = CacheArchive { diff_id: DiffId::new(digest), tar_bytes, blob };
        let record = serde_json::to_vec(&archive).expect("texts and numbers always serialize");
        let draft = self.store.work.process()?.fresh_path();
        private_files::write_file(&draft, &record)?;
        pathio::rename(&draft, &home.join(ARCHIVED))?;
        Ok(archive)
    }

    /// Unpacks an archive into the directory `fs` of a new work directory.
    ///
    /// # Errors
    /// [`StoreError::WrongArchive`] if the bytes do not match the record, [`StoreError::UnpackCache`]
    /// if they are not a valid archive; [`StoreError::Io`].
    pub fn unpack_archive(
        self,
        archive: &CacheArchive,
        packed: Box<dyn Read + Send>,
    ) -> Result<WorkDirectory> {
        let work = self.store.work_directory()?;
        let into = work.directory("fs")?;
        let bounds = self.store.archive_bounds();
        let (_found, tar) = archive::decoder(packed, &bounds).context("unpack", work.path())?;
        // One byte more than recorded: an endless stream then fails because it is too long.
        let tar = tar.take(archive.tar_bytes.saturating_add(1));
        let mut tar = LayerTarReader::new(Box::new(ReadAhead::new(Box::new(tar))));
        let options = UnpackOptions {
            ownership: true,
            // rbuild archives no devices, so one can only come from an attacker.
            devices: false,
            whiteouts: Whiteouts::Keep,
            bounds: ArchiveBounds { max_bytes: archive.tar_bytes.min(bounds.max_bytes), ..bounds },
        };
        let origin = |path: &TreePath, _tar_at| FileOrigin::directory(0, path.clone());
        unpack::unpack(&mut tar, into.as_fd(), &options, &origin)
            .map_err(StoreError::UnpackCache)?;
        let (got, _n_bytes) = tar.finish()?;
        if got != archive.diff_id {
            return Err(StoreError::WrongArchive { want: archive.diff_id, got });
        }
        Ok(work)
    }
}

/// Reads the record at `path`; `None` if it does not exist or is damaged.
fn known_archive(path: &Path) -> std::result::Result<Option<CacheArchive>, PathError> {
    match private_files::read_file(path, MAX_RECORD_BYTES) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
