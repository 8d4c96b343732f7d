//! Space reserved for a full disk: SQLite writes files beside the index when it opens it
//! (<https://www.sqlite.org/wal.html>), and without the index `prune` cannot free anything.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, fallocate, statvfs, unlink};

use super::private_files;

/// Names of the reserve files. There are two because SQLite creates two files, `-wal` and `-shm`,
/// which need inodes as well.
const FILES: [&str; 2] = ["reserve-1", "reserve-2"];
/// Length of each reserve file, bytes.
const FILE_BYTES: u64 = 256 * 1024;
/// Maximum number of bytes that the index needs while a few records are removed.
pub(super) const INDEX_BYTES: u64 = 512 * 1024;
/// Minimum free space, bytes, at which the reserve files are created.
const ENOUGH_BYTES: u64 = 8 << 20;

/// The reserve files of an open store.
#[derive(Debug)]
pub(super) struct Reserve {
    /// Root of the store if the files were removed, so that they are created again on drop.
    taken: Option<PathBuf>,
}

impl Reserve {
    /// Creates the files in the store at `root` unless they exist or the disk is nearly full.
    /// Errors are ignored: only a later command that frees space needs them.
    pub(super) fn keep(root: &Path) -> Self {
        if !is_there(root) && free_bytes(root).is_none_or(|free| free >= ENOUGH_BYTES) {
            make(root);
        }
        Self { taken: None }
    }

    /// Removes the files if the disk is nearly full, until the value is dropped.
    pub(super) fn take(root: &Path) -> Self {
        if free_bytes(root).is_none_or(|free| free >= INDEX_BYTES) && has_inodes(root) {
            return Self::keep(root);
        }
        for name in FILES {
            let _gone = unlink(root.join(name));
        }
        Self { taken: Some(root.to_owned()) }
    }
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
pub(super) fn free_bytes(root: &Path) -> Option<u64> {
    let found = statvfs(root).ok().filter(|found| found.f_blocks > 0)?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Returns whether the file system of `root` has enough inodes for the files of the index.
pub(super) fn has_inodes(root: &Path) -> bool {
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
