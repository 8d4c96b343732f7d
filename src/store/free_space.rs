//! Free space, checked before and while large files are written, so that untrusted input cannot fill
//! the disk.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::fstatvfs;

use crate::diag::size;
use crate::limits::{
    MAX_RESERVED_BYTES, MAX_RESERVED_INODES, RESERVED_HUNDREDTHS, SPACE_CHECK_BYTES,
    SPACE_CHECK_FILES,
};

/// A file system with too little space for a file that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSpace {
    /// Writing would use the reserved part of the free space.
    #[error(
        "the file system of the store has {} left, of which {} are reserved; free some space, for example with \
         `rbuild prune`, or use a larger file system with --root DIR",
        size(*free), size(*reserved)
    )]
    Bytes {
        /// Free bytes.
        free: u64,
        /// Bytes that rbuild leaves free.
        reserved: u64,
    },
    /// The space is too small even for the index.
    #[error(
        "the file system of the store is full: {} left, and the index needs {} more; free some space, for example \
         with `rbuild prune`, or use a larger file system with --root DIR",
        size(*free), size(*missing)
    )]
    Full {
        /// Free bytes.
        free: u64,
        /// Additional bytes that the index needs.
        missing: u64,
    },
    /// There are too few inodes even for the index.
    #[error(
        "the file system of the store has no inodes left; remove some files, for example with `rbuild prune`"
    )]
    NoInodes,
    /// A new file would use a reserved inode.
    #[error(
        "the file system of the store has {free} inodes left, of which {reserved} are reserved; remove some files, \
         for example with `rbuild prune`, or use a larger file system with --root DIR"
    )]
    Inodes {
        /// Free inodes.
        free: u64,
        /// Inodes that rbuild leaves free.
        reserved: u64,
    },
}

/// Checks the free space of one file system now and then: one fstatvfs(3) call for many small files.
#[derive(Debug, Default)]
pub(super) struct SpaceGuard {
    /// Bytes that may be written before the next check: 0 at first, so that a full disk is noticed
    /// at once.
    bytes: u64,
    /// Files that may be created before the next check.
    files: u64,
}

impl SpaceGuard {
    /// Checks that there is space for a file, or a part of one, of `n_bytes` on the file system of
    /// `at`. The inner result says whether there is.
    ///
    /// # Errors
    /// The error of fstatvfs(3).
    pub(super) fn need(&mut self, at: impl AsFd, n_bytes: u64) -> io::Result<Result<(), NoSpace>> {
        if n_bytes <= self.bytes && self.files > 0 {
            self.bytes -= n_bytes;
            self.files -= 1;
            return Ok(Ok(()));
        }
        let found = fstatvfs(at)?;
        (self.bytes, self.files) = (SPACE_CHECK_BYTES, SPACE_CHECK_FILES);
        // File systems without a fixed size or number of inodes report zero.
        if found.f_blocks > 0 {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let total = found.f_blocks.saturating_mul(found.f_frsize);
            let reserved = share(total).min(MAX_RESERVED_BYTES);
            let Some(left) = free.checked_sub(reserved.saturating_add(n_bytes)) else {
                return Ok(Err(NoSpace::Bytes { free, reserved }));
            };
            // The less space is left, the sooner the next check.
            self.bytes = self.bytes.min(left / 2);
        }
        if found.f_files > 0 {
            let (free, reserved) = (found.f_favail, share(found.f_files).min(MAX_RESERVED_INODES));
            let Some(left) = free.checked_sub(reserved) else {
                return Ok(Err(NoSpace::Inodes { free, reserved }));
            };
            self.files = self.files.min(left / 2);
        }
        Ok(Ok(()))
    }
}

/// Checks at once that there is space for `n_bytes` more on the file system of `at`.
///
/// # Errors
/// The error of fstatvfs(3).
pub(super) fn check(at: impl AsFd, n_bytes: u64) -> io::Result<Result<(), NoSpace>> {
    SpaceGuard::default().need(at, n_bytes)
}

/// Returns the part of `total` that stays free.
const fn share(total: u64) -> u64 {
    total / 100 * RESERVED_HUNDREDTHS
}
