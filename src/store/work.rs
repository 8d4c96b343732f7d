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

impl ProcessFolder {
    fn new(tmp: &Path) -> Result<Self, PathError> {
        let prefix = format!("{}.", std::process::id());
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(tmp)
            .context("create a folder in", tmp)?;
        // The lock comes before the name is kept: `sweep` takes only folders without a lock file
        // in use, and one without any is younger than a process can be slow.
        let lease = Lease::exclusive(&folder.path().join("lock"))?;
        Ok(Self { path: folder.keep(), next: AtomicU64::new(0), _lease: lease })
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
        let folder = entry.path();
        let lock = folder.join("lock");
        // Without a lock file it is a folder in the making, or one half removed.
        let is_old = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age.as_secs() > 60));
        let dead = if rustix::fs::access(&lock, rustix::fs::Access::EXISTS).is_ok() {
            matches!(Lease::try_exclusive(&lock), Ok(Some(_)))
        } else {
            is_old
        };
        if dead {
            remove_tree(&folder);
        }
    }
}

/// Removes a folder, its lock file last, so that a removal cut short is taken up again. Folders of
/// images may lack the bits that removing needs when the caller is not root.
fn remove_tree(folder: &Path) {
    if let Ok(entries) = std::fs::read_dir(folder) {
        for entry in entries.flatten().filter(|entry| entry.file_name() != "lock") {
            let path = entry.path();
            let _done = pathio::remove_dir_all(&path).or_else(|_error| pathio::remove_file(&path));
        }
    }
    let _done = pathio::remove_dir_all(folder);
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
