//! Space reserved for a full disk: SQLite writes files beside the index when it opens it
//! (<https://www.sqlite.org/wal.html>), and without the index `prune` cannot free anything.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, fallocate, statvfs, unlink};

use super::free_space::NoSpace;
use super::private_files;

/// Names of the reserve files. There are several because inodes are needed as well: SQLite creates two
/// files, `-wal` and `-shm`, and rbuild a lock file and a temporary one.
const FILES: [&str; 4] = ["reserve-1", "reserve-2", "reserve-3", "reserve-4"];
/// Length of each reserve file, bytes.
const FILE_BYTES: u64 = 128 * 1024;
/// Maximum number of bytes that the index needs while a few records are removed.
const INDEX_BYTES: u64 = 512 * 1024;
/// Minimum free space, bytes, at which the reserve files are created: they and the index fit.
const ENOUGH_BYTES: u64 = 4 * FILE_BYTES + INDEX_BYTES;

/// The reserve files of an open store.
#[derive(Debug)]
pub(super) struct Reserve {
    /// Root of the store if the files were removed, so that they are created again on drop.
    taken: Option<PathBuf>,
}

impl Reserve {
    /// Creates the files in the store at `root` unless they exist or the disk is nearly full.
    ///
    /// Errors are ignored: only a later command that frees space needs them.
    ///
    /// # Errors
    /// [`NoSpace`] if the store has no index yet, and the index and the files do not both fit. An
    /// index that fills the disk could not be opened again, so `prune` could free nothing.
    pub(super) fn keep(root: &Path) -> Result<Self, NoSpace> {
        if is_there(root) {
            return Ok(Self { taken: None });
        }
        let missing = free_bytes(root).and_then(|free| missing_bytes(ENOUGH_BYTES, free));
        if missing.is_none() {
            make(root);
        }
        let missing = missing.or_else(|| (!has_inodes(root)).then_some(NoSpace::NoInodes));
        match missing {
            Some(missing) if !has_index(root) => Err(missing),
            _ => Ok(Self { taken: None }),
        }
    }

    /// Removes the files if the disk is nearly full, until the value is dropped.
    ///
    /// # Errors
    /// The errors of [`Reserve::keep`].
    pub(super) fn take(root: &Path) -> Result<Self, NoSpace> {
        if missing_for_index(root).is_none() || !has_index(root) {
            return Self::keep(root);
        }
        for name in FILES {
            let _gone = unlink(root.join(name));
        }
        Ok(Self { taken: Some(root.to_owned()) })
    }
}

/// Returns the error of a disk with `free` bytes of the `needed` ones; `None` if they suffice.
fn missing_bytes(needed: u64, free: u64) -> Option<NoSpace> {
    let missing = needed.checked_sub(free).filter(|missing| *missing > 0)?;
    Some(NoSpace::Full { free, missing })
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if let Some(root) = &self.taken {
            make(root);
        }
    }
}

/// Returns how many bytes the caller may still write to the file system of `root`; `None` if the file
/// system reports no size (statvfs(3)).
fn free_bytes(root: &Path) -> Option<u64> {
    let found = statvfs(root).ok().filter(|found| found.f_blocks > 0)?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Returns whether the store has an index. [`super::root_checks`] creates an empty file.
fn has_index(root: &Path) -> bool {
    root.join("index.db").metadata().is_ok_and(|found| found.len() > 0)
}

/// Returns what the file system of `root` lacks for an existing index.
pub(super) fn missing_for_index(root: &Path) -> Option<NoSpace> {
    if !has_inodes(root) {
        return Some(NoSpace::NoInodes);
    }
    missing_bytes(INDEX_BYTES, free_bytes(root)?)
}

/// Returns whether the file system of `root` has enough inodes for the files of the index.
fn has_inodes(root: &Path) -> bool {
    let needed = u64::try_from(FILES.len()).unwrap_or(u64::MAX);
    statvfs(root).is_ok_and(|found| found.f_files == 0 || found.f_favail >= needed)
}

fn is_there(root: &Path) -> bool {
    FILES.iter().all(|name| {
        let found = rustix::fs::statat(CWD, root.join(name), AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| u64::try_from(found.st_size) == Ok(FILE_BYTES))
    })
}

fn make(root: &Path) {
    for name in FILES {
        let path = root.join(name);
        // An existing one is complete, or another process is creating it.
        let Ok(file) = private_files::create_file(&path) else { continue };
        if fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES).is_err() {
            let _gone = unlink(&path);
        }
    }
}
