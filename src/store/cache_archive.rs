//! Directories of `RUN --mount=type=cache` as archives, so that they can go to other stores.
//!
//! An archive is a layer's tar, packed: the same files give the same bytes. Times are whole seconds.
//! Devices and sockets stay behind, and what comes in is unpacked with the care that layers get.

use std::io::Read;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use crate::archive::{self, ArchiveBounds, DigestWriter, Packing, ReadAhead};
use crate::oci::{Descriptor, DiffId, LayerCompression, MediaType};
use crate::pathio::{self, Context as _, PathError};
use crate::plan::CacheKey;
use crate::tree::{Entry, FileOrigin, Item, Node, TreePath};

use super::cache_mount::{ARCHIVED, MAX_COPIES};
use super::forms::TarSource;
use super::layer_diff::{self, DiffOptions};
use super::lock::Lease;
use super::unpack::{self, UnpackOptions, Whiteouts};
use super::work::open_directory;
use super::{Store, StoreError, WorkDirectory, guard};

type Result<T> = std::result::Result<T, StoreError>;

/// A record of an archive is no longer than this.
const MAX_RECORD_BYTES: u64 = 64 << 10;
/// What a tar needs for each entry, and rounds contents up to.
const TAR_BLOCK: u64 = 512;

/// A cache directory's content, packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheArchive {
    /// The tar's identity.
    pub diff_id: DiffId,
    /// Its length.
    pub tar_bytes: u64,
    /// How it is packed.
    pub blob: Descriptor,
}

/// What came of asking for a cache directory.
#[derive(Debug)]
pub enum Holding {
    /// There is none.
    Absent,
    /// Somebody uses it.
    InUse,
    /// It is the caller's.
    Held(Box<HeldCache>),
}

/// A cache directory that nobody else uses until this is dropped.
#[derive(Debug)]
pub struct HeldCache {
    home: PathBuf,
    directory: OwnedFd,
    /// What lies in it; empty while an archive is known that holds it.
    entries: Vec<Entry>,
    known: Option<CacheArchive>,
    _lease: Lease,
}

impl HeldCache {
    /// The archive that holds what the directory does, if it was packed before and not used since.
    #[must_use]
    pub const fn known(&self) -> Option<&CacheArchive> {
        self.known.as_ref()
    }

    /// How long the tar of it is, or will be.
    #[must_use]
    pub fn tar_bytes(&self) -> u64 {
        if let Some(known) = &self.known {
            return known.tar_bytes;
        }
        let content = |entry: &Entry| match &entry.item {
            Item::Node(_, Node::File(file)) => file.size.next_multiple_of(TAR_BLOCK),
            Item::Node(..) | Item::HardLink(_) | Item::Whiteout | Item::Opaque => 0,
        };
        let sizes = self.entries.iter().map(|entry| content(entry).saturating_add(TAR_BLOCK));
        sizes.fold(2 * TAR_BLOCK, u64::saturating_add)
    }

    /// Lists the directory, whatever archive is known.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn list(&mut self) -> Result<()> {
        let options = DiffOptions { user_xattr: false, skip: &[] };
        let entries = layer_diff::diff_upper(self.directory.as_fd(), &[], &options)?;
        self.entries = entries.into_iter().filter_map(travelling).collect();
        self.known = None;
        Ok(())
    }
}

/// What goes into an archive. A directory that is marked opaque is only a directory here.
fn travelling(mut entry: Entry) -> Option<Entry> {
    match &mut entry.item {
        Item::Node(_, Node::CharDevice(_) | Node::BlockDevice(_))
        | Item::Whiteout
        | Item::Opaque => {
            return None;
        }
        Item::Node(_, Node::Directory { opaque }) => *opaque = false,
        Item::Node(_, Node::File(_) | Node::Symlink(_) | Node::Fifo) | Item::HardLink(_) => {}
    }
    Some(entry)
}

impl Store {
    /// Takes a cache's directory, so that nobody changes it; of several copies the first one that is
    /// free. Nothing of it is read yet but its names, and those only if no archive is known.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn hold_cache(&self, key: CacheKey) -> Result<Holding> {
        let mut in_use = false;
        for copy in 0..MAX_COPIES {
            let home = self.cache_home(key, copy);
            if access(home.join("fs"), Access::EXISTS).is_err() {
                break;
            }
            let Some(lease) = Lease::try_exclusive(&home.join("lock"))? else {
                in_use = true;
                continue;
            };
            let directory = open_directory(&home.join("fs"))?;
            let known = known_archive(&home.join(ARCHIVED))?;
            let entries = Vec::new();
            let mut held = Box::new(HeldCache { home, directory, entries, known, _lease: lease });
            if held.known.is_none() {
                held.list()?;
            }
            return Ok(Holding::Held(held));
        }
        Ok(if in_use { Holding::InUse } else { Holding::Absent })
    }

    /// Packs what lies in a cache's directory into a blob of this process, and remembers that it did.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn archive_cache(&self, held: HeldCache, jobs: NonZeroUsize) -> Result<CacheArchive> {
        let HeldCache { home, directory, entries, _lease, .. } = held;
        let packer = archive::packer(self.draft()?, Packing::ZSTD, jobs);
        let mut tar = DigestWriter::new(packer.context("pack", &home)?);
        layer_diff::write_layer(entries, directory.as_fd(), &mut tar, &mut |_, _| Ok(()))?;
        let (packer, digest, tar_bytes) = tar.finish();
        let (blob, n_bytes) = self.keep(packer.finish().context("pack", &home)?);
        let media_type = MediaType::OciLayer(LayerCompression::Zstd);
        let blob = Descriptor::new(media_type, blob, n_bytes);
        let archive = CacheArchive { diff_id: DiffId::new(digest), tar_bytes, blob };
        let record = serde_json::to_vec(&archive).expect("texts and numbers always serialize");
        let draft = self.process_directory()?.fresh();
        guard::write_file(&draft, &record)?;
        pathio::rename(&draft, &home.join(ARCHIVED))?;
        Ok(archive)
    }

    /// Unpacks an archive into the directory `fs` of a new work directory.
    ///
    /// # Errors
    /// [`StoreError::WrongArchive`] when it is another one than promised; `UnpackCache` when it is
    /// none, or leads out of the directory.
    pub fn unpack_cache(
        &self,
        archive: &CacheArchive,
        packed: Box<dyn Read + Send>,
    ) -> Result<WorkDirectory> {
        let work = self.work_directory()?;
        let into = work.directory("fs")?;
        let (_found, tar) =
            archive::decoder(packed, &self.archive_bounds).context("unpack", work.path())?;
        // A stream that never ends shows as one that is too long.
        let tar = tar.take(archive.tar_bytes.saturating_add(1));
        let mut tar = TarSource::new(Box::new(ReadAhead::new(Box::new(tar))));
        let options = UnpackOptions {
            ownership: true,
            // Nobody caches devices: one in an archive is there to do harm.
            devices: false,
            whiteouts: Whiteouts::Keep,
            bounds: ArchiveBounds {
                max_bytes: archive.tar_bytes.min(self.archive_bounds.max_bytes),
                ..self.archive_bounds
            },
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

/// The archive that the record at `path` names; a damaged record is none.
fn known_archive(path: &std::path::Path) -> std::result::Result<Option<CacheArchive>, PathError> {
    match guard::read_file(path, MAX_RECORD_BYTES) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
