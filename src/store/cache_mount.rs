//! Directories that survive builds, for `RUN --mount=type=cache`.
//!
//! ```text
//! cache-mounts/<key>/id             what the Dockerfile calls it
//! cache-mounts/<key>/<n>/fs         what steps see
//! cache-mounts/<key>/<n>/lock       held for as long as a step uses it
//! cache-mounts/<key>/<n>/archived   the archive that holds the same, until a step uses the directory
//! ```
//!
//! Number 0 is the one that everybody uses; the others are for steps that want one of their own
//! while it is in use. A directory `fs` is complete: it was made elsewhere and renamed.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::pathio::{self, Context as _, PathError};
use crate::plan::CacheKey;

use super::last_use::note_cache_used;
use super::lock::Lease;
use super::work::open_directory;
use super::{Store, StoreError, WorkDirectory, guard};

/// Copies of one cache that steps have to themselves.
pub(super) const MAX_COPIES: u32 = 1024;
/// The file that names the archive of a directory that has not been used since it was made.
pub(super) const ARCHIVED: &str = "archived";

/// A cache in use; others learn of it until this is dropped.
#[derive(Debug)]
pub struct CacheMount {
    directory: OwnedFd,
    _lease: Lease,
}

impl CacheMount {
    /// The directory that the step sees.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheUse {
    /// All that want the same.
    Shared,
    /// Nobody else, but any copy will do.
    AnyCopy,
    /// Nobody else.
    Alone,
}

/// What is wanted of a cache.
#[derive(Debug, Clone, Copy)]
pub struct CacheRequest {
    /// Which.
    pub key: CacheKey,
    /// With whom.
    pub usage: CacheUse,
    /// Whether it begins anew.
    pub reset: bool,
}

impl Store {
    /// Takes a cache if nobody uses it in another way; `None` when somebody does. `make` makes the
    /// directory `fs` of a new one, in a directory for work.
    ///
    /// # Errors
    /// The kernel's, with the path, and those of `make`.
    pub fn try_cache_mount<E: From<StoreError>>(
        &self,
        request: &CacheRequest,
        make: &dyn Fn() -> Result<WorkDirectory, E>,
    ) -> Result<Option<CacheMount>, E> {
        let n_copies = if request.usage == CacheUse::AnyCopy { MAX_COPIES } else { 1 };
        for copy in 0..n_copies {
            if let Some(found) = self.try_copy(request, copy, make)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn try_copy<E: From<StoreError>>(
        &self,
        request: &CacheRequest,
        copy: u32,
        make: &dyn Fn() -> Result<WorkDirectory, E>,
    ) -> Result<Option<CacheMount>, E> {
        let CacheRequest { key, usage, reset } = *request;
        let home = self.cache_home(key, copy);
        let (directory, lock) = (home.join("fs"), home.join("lock"));
        let known = access(&directory, Access::EXISTS).is_ok();
        if !known {
            guard::create_directories(&home).map_err(StoreError::from)?;
        }
        let shared = usage == CacheUse::Shared;
        let lease = if shared && known && !reset {
            Lease::try_shared(&lock)
        } else {
            Lease::try_exclusive(&lock)
        };
        let Some(lease) = lease.map_err(StoreError::from)? else { return Ok(None) };
        self.fill(&directory, reset, make)?;
        // Whatever the step does, its archive no longer tells.
        match rustix::fs::unlink(home.join(ARCHIVED)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                return Err(StoreError::from(PathError::new("remove", home, error)).into());
            }
        }
        let now_s = self.with_index(|index| index.now_s);
        note_cache_used(&lock, now_s).map_err(StoreError::from)?;
        if shared {
            lease.downgrade();
        }
        let directory = open_directory(&directory).map_err(StoreError::from)?;
        Ok(Some(CacheMount { directory, _lease: lease }))
    }

    /// Where copy number `copy` of a cache is.
    pub(super) fn cache_home(&self, key: CacheKey, copy: u32) -> PathBuf {
        self.root.join("cache-mounts").join(self.cache_name(key)).join(copy.to_string())
    }

    /// The name of a cache's directory.
    pub(super) fn cache_name(&self, key: CacheKey) -> String {
        format!("{key}{}", self.id_map.suffix())
    }

    /// Sees to it that the directory of a cache, which this process alone has, is there.
    fn fill<E: From<StoreError>>(
        &self,
        directory: &PathBuf,
        reset: bool,
        make: &dyn Fn() -> Result<WorkDirectory, E>,
    ) -> Result<(), E> {
        if access(directory, Access::EXISTS).is_ok() {
            if !reset {
                return Ok(());
            }
            let aside = self.process_directory().map_err(StoreError::from)?.fresh();
            let moved = rustix::fs::rename(directory, &aside).context("move away", directory);
            moved.map_err(StoreError::from)?;
        }
        let made = make()?;
        pathio::rename(&made.path().join("fs"), directory).map_err(StoreError::from)?;
        Ok(())
    }
}
