//! Free space: looked at before and while something large is written, so that what comes from
//! outside cannot fill a disk.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::fstatvfs;

use crate::diag::size;
use crate::limits::{
    MAX_RESERVED_BYTES, MAX_RESERVED_INODES, RESERVED_HUNDREDTHS, SPACE_CHECK_BYTES,
    SPACE_CHECK_FILES,
};

use super::reserve;

/// A file system without space for what is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSpace {
    /// Too little space.
    #[error(
        "the store's file system has {} left, of which {} stay unused; free some space (`rbuild prune` helps), or use a larger file system with --root",
        size(*free), size(*reserved)
    )]
    Bytes {
        /// Bytes that are left.
        free: u64,
        /// Bytes that are to be left.
        reserved: u64,
    },
    /// No space even for the index.
    #[error(
        "the store's file system is full: {} left, and the index needs {} more; `rbuild prune` frees some, or remove something else from it",
        size(*free), size(*missing)
    )]
    Full {
        /// Bytes that are left.
        free: u64,
        /// Bytes that are missing.
        missing: u64,
    },
    /// No inodes even for the index.
    #[error(
        "the store's file system has no inodes left; `rbuild prune` frees some, or remove some files from it"
    )]
    NoInodes,
    /// Too few inodes.
    #[error(
        "the store's file system has {free} inodes left, of which {reserved} stay unused; remove some files (`rbuild prune` helps), or use a larger file system with --root"
    )]
    Inodes {
        /// Inodes that are left.
        free: u64,
        /// Inodes that are to be left.
        reserved: u64,
    },
}

impl NoSpace {
    /// Returns what the file system of `directory` lacks for the index, if that may be why it fails.
    pub(super) fn of_index(directory: &Path) -> Option<Self> {
        if !reserve::has_inodes(directory) {
            return Some(Self::NoInodes);
        }
        let free = reserve::free_bytes(directory)?;
        let missing = reserve::INDEX_BYTES.checked_sub(free).filter(|missing| *missing > 0)?;
        Some(Self::Full { free, missing })
    }
}

/// Looks at the free space of one file system now and then.
#[derive(Debug, Default)]
pub(super) struct SpaceGuard {
    /// Bytes that may be written before the next look: none at first, so that a full disk is
    /// noticed at once.
    bytes: u64,
    /// Files that may be created before the next look.
    files: u64,
}

impl SpaceGuard {
    /// Checks that there is space for one file, or a part of one, of `n_bytes` on the file system of
    /// `at`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn need(&mut self, at: impl AsFd, n_bytes: u64) -> io::Result<Result<(), NoSpace>> {
        if n_bytes <= self.bytes && self.files > 0 {
            self.bytes -= n_bytes;
            self.files -= 1;
            return Ok(Ok(()));
        }
        let found = fstatvfs(at)?;
        (self.bytes, self.files) = (SPACE_CHECK_BYTES, SPACE_CHECK_FILES);
        // Some file systems have no fixed size or number of inodes and report zero.
        if found.f_blocks > 0 {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let total = found.f_blocks.saturating_mul(found.f_frsize);
            let reserved = share(total).min(MAX_RESERVED_BYTES);
            let Some(left) = free.checked_sub(reserved.saturating_add(n_bytes)) else {
                return Ok(Err(NoSpace::Bytes { free, reserved }));
            };
            // The closer to the end, the shorter the way to the next look.
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

/// Checks now that there is space for `n_bytes` more on the file system of `at`.
///
/// # Errors
/// The kernel's.
pub(super) fn check(at: impl AsFd, n_bytes: u64) -> io::Result<Result<(), NoSpace>> {
    SpaceGuard::default().need(at, n_bytes)
}

const fn share(total: u64) -> u64 {
    total / 100 * RESERVED_HUNDREDTHS
}
