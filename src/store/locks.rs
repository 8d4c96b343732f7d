//! Locks between processes, by flock(2): the kernel releases them when their holder ends, however it
//! ends.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::oci::DiffId;
use crate::pathio::{Context as _, PathError};
use crate::plan::CacheKey;

use super::private_files;

/// A held `flock`; released when dropped.
#[derive(Debug)]
pub(super) struct FileLock {
    file: OwnedFd,
}

impl FileLock {
    /// Waits for a shared lock.
    pub(super) fn shared(path: &Path) -> Result<Self, PathError> {
        Self::take(path, FlockOperation::LockShared)
    }

    /// Waits for an exclusive lock.
    pub(super) fn exclusive(path: &Path) -> Result<Self, PathError> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Takes an exclusive lock; `None` if another process holds the lock.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Self>, PathError> {
        Self::try_take(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Returns whether the lock file `name` of an open directory exists and is not locked.
    pub(super) fn is_free(directory: &OwnedFd, name: &str) -> bool {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name, flags, Mode::empty());
        file.is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_ok())
    }

    /// Takes a shared lock; `None` if another process holds an exclusive one.
    pub(super) fn try_shared(path: &Path) -> Result<Option<Self>, PathError> {
        Self::try_take(path, FlockOperation::NonBlockingLockShared)
    }

    fn try_take(path: &Path, operation: FlockOperation) -> Result<Option<Self>, PathError> {
        let file = private_files::open_lock(path)?;
        match flock(&file, operation) {
            Ok(()) => Ok(Some(Self { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(PathError::new("lock", path, error)),
        }
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Self, PathError> {
        let file = private_files::open_lock(path)?;
        loop {
            match flock(&file, operation) {
                // A signal handler has run meanwhile (flock(2), EINTR).
                Err(rustix::io::Errno::INTR) => {}
                done => return done.context("lock", path).map(|()| Self { file }),
            }
        }
    }

    /// Releases the lock, which can be taken again by [`FileLock::try_upgrade`].
    pub(super) fn unlock(&self) {
        // The kernel refuses this for bad descriptors only.
        let _unlocked = flock(&self.file, FlockOperation::Unlock);
    }

    /// Turns a shared lock into an exclusive one, if no other process holds the lock.
    ///
    /// The conversion is not atomic: on failure the shared lock is lost as well (flock(2)).
    pub(super) fn try_upgrade(&self) -> bool {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Turns the lock into a shared one, or takes a shared one after a failed upgrade.
    pub(super) fn downgrade(&self) {
        // It may wait for another process, and fails for bad descriptors only.
        let _shared = flock(&self.file, FlockOperation::LockShared);
    }
}

/// Prefixes of the locks that are held while a layer is unpacked or published.
const OF_LAYERS: [&str; 2] = ["unpack-", "publish-"];
/// Length of the hexadecimal hash in the name of such a lock, and of a step's lock.
const HASH_DIGITS: usize = 64;

/// Returns whether a lock with this name is removed by its holder.
fn is_removed_after_use(name: &str) -> bool {
    let hash = OF_LAYERS.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    hash.len() == HASH_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Removes the lock files of processes that were killed. Errors are ignored: the next sweep tries
/// again.
pub(super) fn sweep(locks: &Path) {
    let Ok(directory) = private_files::open_directory(locks) else { return };
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    for name in private_files::entry_names(&directory) {
        if !name.to_str().is_some_and(is_removed_after_use) {
            continue;
        }
        let Ok(file) = rustix::fs::openat(&directory, &name, flags, Mode::empty()) else {
            continue;
        };
        let is_free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Without a link, it was removed by its holder; another process may have a new file there.
        if is_free && rustix::fs::fstat(&file).is_ok_and(|stat| stat.st_nlink > 0) {
            drop(StoreLock { path: locks.join(&name), _lock: FileLock { file } });
        }
    }
}

/// A held lock file below `locks`, removed when dropped.
///
/// Another process or stage that wants to do the same work waits for it, and then finds the work
/// done.
#[derive(Debug)]
pub struct StoreLock {
    path: PathBuf,
    _lock: FileLock,
}

impl StoreLock {
    /// Waits for the exclusive right to run the step `key` in the store at `root`.
    pub(super) fn of_step(root: &Path, key: CacheKey) -> Result<Self, PathError> {
        Self::named(root, &key.to_string())
    }

    /// Waits for the exclusive right to unpack the layer.
    pub(super) fn of_unpacking(root: &Path, layer: DiffId) -> Result<Self, PathError> {
        Self::named(root, &format!("unpack-{}", layer.digest().hex()))
    }

    /// Waits for the exclusive right to publish the layer, that is to rename it to its final name.
    pub(super) fn of_publishing(root: &Path, layer: DiffId) -> Result<Self, PathError> {
        Self::named(root, &format!("publish-{}", layer.digest().hex()))
    }

    /// Waits for the exclusive lock `name` of the store at `root`.
    pub(super) fn named(root: &Path, name: &str) -> Result<Self, PathError> {
        let path = root.join("locks").join(name);
        loop {
            let lock = FileLock::exclusive(&path)?;
            let held = rustix::fs::fstat(lock.file.as_fd()).context("examine", &path)?;
            if held.st_nlink > 0 {
                return Ok(Self { path, _lock: lock });
            }
        }
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        // Still locked: processes that wait for it notice that the file is gone and open a new one.
        let _gone = rustix::fs::unlink(&self.path);
    }
}
