//! Space that is kept for a full disk: the index needs some before it can be opened, and without the
//! index nothing can be freed.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, fallocate, statvfs, unlink};

use super::guard;

/// SQLite makes two files beside the index, so that inodes are kept, too.
const FILES: [&str; 2] = ["reserve-1", "reserve-2"];
/// Length of each, bytes.
const FILE_BYTES: u64 = 256 * 1024;
/// Bytes that the index needs, at most, while little is forgotten.
pub(super) const INDEX_BYTES: u64 = 512 * 1024;
/// Free space, bytes, without which none is kept.
const ENOUGH_BYTES: u64 = 8 << 20;

/// The files that keep space, while the store is open.
#[derive(Debug)]
pub(super) struct Reserve {
    /// The store's root, if they were given up.
    taken: Option<PathBuf>,
}

impl Reserve {
    /// Makes the files in the store at `root` unless they are there or the disk is nearly full.
    /// Errors do not matter: it is only for a later command that frees space.
    pub(super) fn keep(root: &Path) -> Self {
        if !is_there(root) && free_bytes(root).is_none_or(|free| free >= ENOUGH_BYTES) {
            make(root);
        }
        Self { taken: None }
    }

    /// Gives the files up if the disk is nearly full, until this is dropped.
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

/// Bytes that the caller may still write to the file system of `root`; `None` if it has no fixed size.
pub(super) fn free_bytes(root: &Path) -> Option<u64> {
    let found = statvfs(root).ok().filter(|found| found.f_blocks > 0)?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Returns whether the file system of `root` has inodes for the index.
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
        // One that is there is whole, or another process is making it.
        let Ok(file) = guard::create_file(&path) else { continue };
        if fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES).is_err() {
            let _gone = unlink(&path);
        }
    }
}
