//! Directories of `RUN --mount=type=cache`
//! (<https://docs.docker.com/reference/dockerfile/#run---mounttypecache>), which survive builds.
//!
//! ```text
//! cache-mounts/<key>/id             id of the cache in the Dockerfile
//! cache-mounts/<key>/<n>/fs         the directory that steps see
//! cache-mounts/<key>/<n>/lock       held while a step uses the directory
//! cache-mounts/<key>/<n>/archived   record of the archive with the same content; removed when a step
//!                                   uses the directory
//! ```
//!
//! Copy 0 is used by all steps; further copies are for steps with `sharing=private` that run at the
//! same time. A directory `fs` is complete: it was created elsewhere and renamed.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::pathio::{self, Context as _, PathError};
use crate::plan::CacheKey;

use super::locks::FileLock;
use super::private_files::open_directory;
use super::{Store, StoreError, WorkDirectory, private_files};

/// Maximum number of copies of one cache.
pub(super) const MAX_COPIES: u32 = 1024;
/// Name of the file with the record of the archive that has the same content as the directory.
pub(super) const ARCHIVED: &str = "archived";
/// Maximum size of the file `id`, bytes: the id is part of a line of a Dockerfile.
const MAX_ID_BYTES: u64 = 64 << 10;

/// A cache directory that a step uses; its lock is released on drop.
#[derive(Debug)]
pub struct CacheMount {
    directory: OwnedFd,
    _lock: FileLock,
}

impl CacheMount {
    /// Returns the directory that the step sees.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The option `sharing` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheSharing {
    /// Several steps use one directory at the same time.
    Shared,
    /// Steps that run at the same time use different copies.
    Private,
    /// A step waits until no other uses the directory.
    Locked,
}

/// A cache mount that a step needs.
#[derive(Debug, Clone, Copy)]
pub struct CacheRequest {
    /// Key of the cache.
    pub key: CacheKey,
    /// Sharing with other steps.
    pub sharing: CacheSharing,
    /// True to begin with a new directory.
    pub reset: bool,
}

/// The cache mounts of a store.
#[derive(Debug, Clone, Copy)]
pub struct CacheMounts<'a> {
    pub(super) store: &'a Store,
}

impl CacheMounts<'_> {
    /// Locks a cache and returns its directory; `None` if steps use it in a way that excludes this
    /// one. `make` creates the directory `fs` of a new cache, in a work directory.
    ///
    /// # Errors
    /// [`StoreError::Io`], and errors of `make`.
    pub fn try_take<E: From<StoreError>>(
        self,
        request: &CacheRequest,
        make: &dyn Fn() -> Result<WorkDirectory, E>,
    ) -> Result<Option<CacheMount>, E> {
        let n_copies = if request.sharing == CacheSharing::Private { MAX_COPIES } else { 1 };
        for copy in 0..n_copies {
            if let Some(found) = self.try_copy(request, copy, make)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn try_copy<E: From<StoreError>>(
        self,
        request: &CacheRequest,
        copy: u32,
        make: &dyn Fn() -> Result<WorkDirectory, E>,
    ) -> Result<Option<CacheMount>, E> {
        let CacheRequest { key, sharing, reset } = *request;
        let home = self.copy_path(key, copy);
        let (directory, lock_path) = (home.join("fs"), home.join("lock"));
        let known = access(&directory, Access::EXISTS).is_ok();
        if !known {
            private_files::create_directories(&home).map_err(StoreError::from)?;
        }
        let shared = sharing == CacheSharing::Shared;
        let lock = if shared && known && !reset {
            FileLock::try_shared(&lock_path)
        } else {
            FileLock::try_exclusive(&lock_path)
        };
        let Some(lock) = lock.map_err(StoreError::from)? else { return Ok(None) };
        self.ensure_directory(&directory, reset, make)?;
        // The step may change the directory, so the archive no longer describes it.
        match rustix::fs::unlink(home.join(ARCHIVED)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                return Err(StoreError::from(PathError::new("remove", home, error)).into());
            }
        }
        let now_s = self.store.with_index(|index| index.now_s);
        note_use(&lock_path, now_s).map_err(StoreError::from)?;
        if shared {
            lock.downgrade();
        }
        let directory = open_directory(&directory).map_err(StoreError::from)?;
        Ok(Some(CacheMount { directory, _lock: lock }))
    }

    /// Ensures that the directory of a cache exists, whose exclusive lock the caller holds.
    fn ensure_directory<E: From<StoreError>>(
        self,
        directory: &PathBuf,
        reset: bool,
        make: &dyn Fn() -> Result<WorkDirectory, E>,
    ) -> Result<(), E> {
        if access(directory, Access::EXISTS).is_ok() {
            if !reset {
                return Ok(());
            }
            let aside = self.store.work.process().map_err(StoreError::from)?.fresh_path();
            let moved = rustix::fs::rename(directory, &aside).context("move away", directory);
            moved.map_err(StoreError::from)?;
        }
        let made = make()?;
        pathio::rename(&made.path().join("fs"), directory).map_err(StoreError::from)?;
        Ok(())
    }

    /// Records the id that the Dockerfile gives the cache `key`, for `rbuild du` and `prune`.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be written.
    pub fn note_id(self, key: CacheKey, id: &str) -> Result<(), StoreError> {
        let path = self.id_path(&self.directory_name(key));
        if access(&path, Access::EXISTS).is_ok() {
            return Ok(());
        }
        let draft = self.store.work.process()?.fresh_path();
        private_files::write_file(&draft, id.as_bytes())?;
        Ok(pathio::rename(&draft, &path)?)
    }

    /// Returns the id of the cache in the directory `name`, if it was recorded.
    pub(super) fn id(self, name: &str) -> Option<String> {
        let bytes = private_files::read_file(&self.id_path(name), MAX_ID_BYTES).ok()?;
        String::from_utf8(bytes).ok()
    }

    fn id_path(self, name: &str) -> PathBuf {
        self.store.root().join("cache-mounts").join(name).join("id")
    }

    /// Returns the directory with copy number `copy` of a cache and its lock.
    pub(super) fn copy_path(self, key: CacheKey, copy: u32) -> PathBuf {
        let name = self.directory_name(key);
        self.store.root().join("cache-mounts").join(name).join(copy.to_string())
    }

    /// Returns the name of a cache's directory: its files have owners, so each map of ids has its own.
    fn directory_name(self, key: CacheKey) -> String {
        format!("{key}{}", self.store.id_map.suffix())
    }
}

/// Notes that the cache with this lock file is used now.
fn note_use(lock: &Path, now_s: i64) -> Result<(), PathError> {
    let now = rustix::fs::Timespec { tv_sec: now_s, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    let (cwd, flags) = (rustix::fs::CWD, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    rustix::fs::utimensat(cwd, lock, &times, flags).context("change the time of", lock)
}
