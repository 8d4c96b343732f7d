//! Unfinished work: one folder a process below `tmp`, swept when the process is gone.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::pathio::{self, Context as _, PathError};

use super::lock::Lease;
use super::{Store, StoreError};

/// This process's folder below `tmp`; removed with all it holds when dropped.
#[derive(Debug)]
pub(super) struct ProcessFolder {
    path: PathBuf,
    next: AtomicU64,
    _lease: Lease,
}

/// What the name of a folder begins with before its lock is held.
const UNLOCKED: &str = "new.";

impl ProcessFolder {
    fn new(tmp: &Path) -> Result<Self, PathError> {
        let folder = tempfile::Builder::new()
            .prefix(UNLOCKED)
            .tempdir_in(tmp)
            .context("create a folder in", tmp)?;
        let lease = Lease::exclusive(&folder.path().join("lock"))?;
        let made = folder.keep();
        let unique = made.file_name().map_or("".into(), |name| name.to_string_lossy());
        let unique = unique.strip_prefix(UNLOCKED).unwrap_or(&unique);
        // From here on a sweep that finds the lock free knows that its holder is dead.
        let path = tmp.join(format!("{}.{unique}", std::process::id()));
        pathio::rename(&made, &path)?;
        Ok(Self { path, next: AtomicU64::new(0), _lease: lease })
    }

    /// A path in it that was never used.
    pub(super) fn fresh(&self) -> PathBuf {
        self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for ProcessFolder {
    fn drop(&mut self) {
        remove_tree(&self.path);
    }
}

/// Removes what dead processes left. Errors do not matter: the next sweep tries again.
pub(super) fn sweep(tmp: &Path) {
    let Ok(entries) = std::fs::read_dir(tmp) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let lock = path.join("lock");
        let is_young = || {
            let modified = entry.metadata().and_then(|meta| meta.modified());
            modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < GRACE))
        };
        // Without a lock to look at it is a folder in the making, or one half removed.
        let unlocked = entry.file_name().to_string_lossy().starts_with(UNLOCKED)
            || rustix::fs::access(&lock, rustix::fs::Access::EXISTS).is_err();
        let dead =
            if unlocked { !is_young() } else { matches!(Lease::try_exclusive(&lock), Ok(Some(_))) };
        if dead {
            remove_tree(&path);
        }
    }
}

/// No process takes longer to lock the folder that it has just made.
const GRACE: std::time::Duration = std::time::Duration::from_secs(60);

/// Removes a folder, its lock file last, so that a removal cut short is taken up again. Folders of
/// images may lack the bits that removing needs when the caller is not root.
fn remove_tree(folder: &Path) {
    if let Ok(entries) = std::fs::read_dir(folder) {
        for entry in entries.flatten().filter(|entry| entry.file_name() != "lock") {
            let path = entry.path();
            let _done = pathio::remove_dir_all(&path).or_else(|_error| pathio::remove_file(&path));
        }
    }
    let _done = pathio::remove_dir_all(folder).or_else(|_error| pathio::remove_file(folder));
}

/// A folder for one piece of work.
#[derive(Debug)]
pub struct WorkFolder {
    path: PathBuf,
    fd: OwnedFd,
    /// Its parent must live as long.
    _process: Arc<ProcessFolder>,
}

impl WorkFolder {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes a folder in it and opens that.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn folder(&self, name: &str) -> Result<OwnedFd, PathError> {
        let path = self.path.join(name);
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).context("create folder", &path)?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o755))
            .context("change the mode of", &path)?;
        open_folder(&path)
    }
}

/// Opens a folder for calls relative to it.
pub(super) fn open_folder(path: &Path) -> Result<OwnedFd, PathError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).context("open folder", path)
}

impl Store {
    pub(super) fn process_folder(&self) -> Result<Arc<ProcessFolder>, PathError> {
        let mut work = self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(folder) = &*work {
            return Ok(Arc::clone(folder));
        }
        let folder = Arc::new(ProcessFolder::new(&self.root.join("tmp"))?);
        *work = Some(Arc::clone(&folder));
        Ok(folder)
    }

    /// Makes an empty folder on the store's file system; it is gone, at the latest, some time
    /// after the process is.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn work_folder(&self) -> Result<WorkFolder, StoreError> {
        let process = self.process_folder()?;
        let path = process.fresh();
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).context("create folder", &path)?;
        let fd = open_folder(&path)?;
        Ok(WorkFolder { path, fd, _process: process })
    }
}
