//! Unfinished work: one directory a process below `tmp`, swept when the process is gone.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode};

use crate::pathio::{self, Context as _, PathError};

use super::lock::Lease;
use super::{Store, StoreError, guard};

/// This process's directory below `tmp`; removed with all it holds when dropped.
#[derive(Debug)]
pub(super) struct ProcessDirectory {
    path: PathBuf,
    tmp: OwnedFd,
    next: AtomicU64,
    _lease: Lease,
}

/// What the name of a directory begins with before its lock is held.
const UNLOCKED: &str = "new.";
/// The file in it that the process holds locked.
const LOCK: &str = "lock";

impl ProcessDirectory {
    fn new(tmp: &Path) -> Result<Self, PathError> {
        let opened = guard::open_directory(tmp)?;
        let directory = tempfile::Builder::new()
            .prefix(UNLOCKED)
            .tempdir_in(tmp)
            .context("create a directory in", tmp)?;
        let lease = Lease::exclusive(&directory.path().join(LOCK))?;
        let made = directory.keep();
        let unique = made.file_name().map_or("".into(), |name| name.to_string_lossy());
        let unique = unique.strip_prefix(UNLOCKED).unwrap_or(&unique);
        // From here on a sweep that finds the lock free knows that its holder is dead.
        let path = tmp.join(format!("{}.{unique}", std::process::id()));
        pathio::rename(&made, &path)?;
        Ok(Self { path, tmp: opened, next: AtomicU64::new(0), _lease: lease })
    }

    /// A path in it that was never used.
    pub(super) fn fresh(&self) -> PathBuf {
        self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for ProcessDirectory {
    fn drop(&mut self) {
        remove_tree(&self.tmp, self.path.file_name().unwrap_or_default());
    }
}

/// Removes what dead processes left; no symbolic link is followed. Errors do not matter: the next
/// sweep tries again.
pub(super) fn sweep(tmp: &Path) {
    let Ok(directory) = guard::open_directory(tmp) else { return };
    for name in names_in(&directory) {
        let is_young = || {
            let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW);
            let modified_s = stat.map(|stat| stat.st_mtime.unsigned_abs());
            let time = modified_s.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            time.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < GRACE))
        };
        // Without a lock to look at it is a directory in the making, or one half removed.
        let is_locked = |opened: &OwnedFd| {
            !name.to_string_lossy().starts_with(UNLOCKED) && guard::has_entry(opened, LOCK)
        };
        let opened = guard::open_entry(&directory, &name).ok();
        let dead = match opened.as_ref().filter(|opened| is_locked(opened)) {
            Some(opened) => Lease::is_free(opened, LOCK),
            None => !is_young(),
        };
        if dead {
            remove_tree(&directory, &name);
        }
    }
}

/// No process takes longer to lock the directory that it has just made.
const GRACE: Duration = Duration::from_secs(60);

/// The names in an open directory.
pub(super) fn names_in(directory: &OwnedFd) -> Vec<OsString> {
    let entries = rustix::fs::Dir::read_from(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
    names.filter(|name| name != "." && name != "..").collect()
}

/// Removes an entry of an open directory, its lock file last, so that a removal cut short is taken
/// up again. Directories of images may lack the bits that removing needs when the caller is not root.
fn remove_tree(directory: &OwnedFd, name: &OsStr) {
    if let Ok(opened) = guard::open_entry(directory, name) {
        for inner in names_in(&opened).into_iter().filter(|inner| inner != LOCK) {
            remove_entry(&opened, &inner);
        }
    }
    remove_entry(directory, name);
}

fn remove_entry(directory: &OwnedFd, name: &OsStr) {
    // Through the descriptor; the last name is never followed.
    let path = Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    let _done = pathio::remove_dir_all(&path).or_else(|_error| pathio::remove_file(&path));
}

/// A directory for one piece of work.
#[derive(Debug)]
pub struct WorkDirectory {
    path: PathBuf,
    fd: OwnedFd,
    /// Its parent must live as long.
    _process: Arc<ProcessDirectory>,
}

impl WorkDirectory {
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

    /// Makes a directory in it and opens that.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn directory(&self, name: &str) -> Result<OwnedFd, PathError> {
        let path = self.path.join(name);
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).context("create directory", &path)?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o755))
            .context("change the mode of", &path)?;
        open_directory(&path)
    }
}

/// Opens a directory for calls relative to it.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, PathError> {
    guard::open_directory(path)
}

impl Store {
    pub(super) fn process_directory(&self) -> Result<Arc<ProcessDirectory>, PathError> {
        let mut work = self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(directory) = &*work {
            return Ok(Arc::clone(directory));
        }
        let directory = Arc::new(ProcessDirectory::new(&self.root.join("tmp"))?);
        *work = Some(Arc::clone(&directory));
        Ok(directory)
    }

    /// Makes an empty directory on the store's file system; it is gone, at the latest, some time
    /// after the process is.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn work_directory(&self) -> Result<WorkDirectory, StoreError> {
        let process = self.process_directory()?;
        let path = process.fresh();
        guard::create_directory(&path).context("create directory", &path)?;
        let fd = open_directory(&path)?;
        Ok(WorkDirectory { path, fd, _process: process })
    }
}
