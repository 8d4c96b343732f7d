//! Locks between processes: `flock`, gone when the process dies.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::oci::DiffId;
use crate::pathio::{Context as _, PathError};
use crate::plan::CacheKey;

use super::work::names_in;
use super::{Store, guard};

/// A held `flock`; released when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    file: OwnedFd,
}

impl Lease {
    /// Waits until it holds the lock shared.
    pub(super) fn shared(path: &Path) -> Result<Self, PathError> {
        Self::take(path, FlockOperation::LockShared)
    }

    /// Waits until it holds the lock alone.
    pub(super) fn exclusive(path: &Path) -> Result<Self, PathError> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Takes the lock alone if nobody holds it.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Self>, PathError> {
        Self::try_take(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Returns whether nobody holds the lock `name` of an open directory.
    pub(super) fn is_free(directory: &OwnedFd, name: &str) -> bool {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name, flags, Mode::empty());
        file.is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_ok())
    }

    /// Takes the lock shared if nobody holds it alone.
    pub(super) fn try_shared(path: &Path) -> Result<Option<Self>, PathError> {
        Self::try_take(path, FlockOperation::NonBlockingLockShared)
    }

    fn try_take(path: &Path, operation: FlockOperation) -> Result<Option<Self>, PathError> {
        let file = guard::open_lock(path)?;
        match flock(&file, operation) {
            Ok(()) => Ok(Some(Self { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(PathError::new("lock", path, error)),
        }
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Self, PathError> {
        let file = guard::open_lock(path)?;
        loop {
            match flock(&file, operation) {
                Err(rustix::io::Errno::INTR) => {}
                done => return done.context("lock", path).map(|()| Self { file }),
            }
        }
    }

    /// Returns the path of the lock that every process that uses a store holds shared.
    pub(super) fn of_store(root: &Path) -> PathBuf {
        root.join("locks/in-use")
    }

    /// Gives the lock up until it is taken again.
    pub(super) fn unlock(&self) {
        // The kernel refuses this for bad descriptors only.
        let _unlocked = flock(&self.file, FlockOperation::Unlock);
    }

    /// Turns a shared lock into one held alone, if nobody else holds it.
    pub(super) fn try_upgrade(&self) -> bool {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// The reverse of [`Lease::try_upgrade`].
    pub(super) fn downgrade(&self) {
        // Going from alone to shared cannot fail: nobody else can hold it.
        let _shared = flock(&self.file, FlockOperation::LockShared);
    }
}

/// Prefixes of the locks that are held while a layer is unpacked, or gets its name.
const OF_LAYERS: [&str; 2] = ["unpack-", "publish-"];
/// Length of the hexadecimal hash in the name of such a lock, and of a step's.
const HASH_DIGITS: usize = 64;

/// Returns whether a lock with this name is removed by its holder.
fn is_removed_after_use(name: &str) -> bool {
    let hash = OF_LAYERS.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    hash.len() == HASH_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Removes the locks that dead processes left. Errors do not matter: the next sweep tries again.
pub(super) fn sweep(locks: &Path) {
    let Ok(directory) = guard::open_directory(locks) else { return };
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    for name in names_in(&directory) {
        if !name.to_str().is_some_and(is_removed_after_use) {
            continue;
        }
        let Ok(file) = rustix::fs::openat(&directory, &name, flags, Mode::empty()) else {
            continue;
        };
        let is_free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // A file without a name was removed by its holder, and its name may be another one's.
        if is_free && rustix::fs::fstat(&file).is_ok_and(|found| found.st_nlink > 0) {
            drop(StepLock { path: locks.join(&name), _lease: Lease { file } });
        }
    }
}

/// Held while a step is made: another process, or stage, that needs the same step waits and then
/// finds it done.
#[derive(Debug)]
pub struct StepLock {
    path: PathBuf,
    _lease: Lease,
}

impl Drop for StepLock {
    fn drop(&mut self) {
        // The lock is still held: whoever waits sees that the file is gone and opens a new one.
        let _gone = rustix::fs::unlink(&self.path);
    }
}

impl Store {
    /// Waits until this process alone makes the step `key`.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn lock_step(&self, key: CacheKey) -> Result<StepLock, PathError> {
        self.lock_name(&key.to_string())
    }

    /// Waits until this process alone unpacks the layer.
    pub(super) fn lock_unpacking(&self, layer: DiffId) -> Result<StepLock, PathError> {
        self.lock_name(&format!("unpack-{}", layer.digest().hex()))
    }

    /// Waits until this process alone gives the layer its name.
    pub(super) fn lock_publishing(&self, layer: DiffId) -> Result<StepLock, PathError> {
        self.lock_name(&format!("publish-{}", layer.digest().hex()))
    }

    pub(super) fn lock_name(&self, name: &str) -> Result<StepLock, PathError> {
        let path = self.root.join("locks").join(name);
        loop {
            let lease = Lease::exclusive(&path)?;
            let held = rustix::fs::fstat(lease.file.as_fd()).context("examine", &path)?;
            if held.st_nlink > 0 {
                return Ok(StepLock { path, _lease: lease });
            }
        }
    }
}
