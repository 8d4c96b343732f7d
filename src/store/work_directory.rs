//! Unfinished work: a directory below `tmp` for each process, removed after the process has ended.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode};

use crate::pathio::{self, Context as _, PathError};
use crate::pool;

use super::locks::FileLock;
use super::private_files;

/// The directory of this process below `tmp`; removed with its content when dropped.
#[derive(Debug)]
pub(super) struct ProcessDirectory {
    path: PathBuf,
    tmp: OwnedFd,
    next: AtomicU64,
    _lock: FileLock,
}

/// Prefix of the directory's name until its lock is held.
const UNLOCKED: &str = "new.";
/// Name of the file in it that the process holds locked.
const LOCK: &str = "lock";

impl ProcessDirectory {
    fn new(tmp: &Path) -> Result<Self, PathError> {
        let opened = private_files::open_directory(tmp)?;
        let directory = tempfile::Builder::new()
            .prefix(UNLOCKED)
            .tempdir_in(tmp)
            .context("create a directory in", tmp)?;
        let lock = FileLock::exclusive(&directory.path().join(LOCK))?;
        let made = directory.keep();
        let unique = made.file_name().map_or("".into(), |name| name.to_string_lossy());
        let unique = unique.strip_prefix(UNLOCKED).unwrap_or(&unique);
        // From here on, a sweep that finds the lock free knows that its holder has ended.
        let path = tmp.join(format!("{}.{unique}", std::process::id()));
        pathio::rename(&made, &path)?;
        Ok(Self { path, tmp: opened, next: AtomicU64::new(0), _lock: lock })
    }

    /// Returns a path in it that was never used.
    pub(super) fn fresh_path(&self) -> PathBuf {
        self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for ProcessDirectory {
    fn drop(&mut self) {
        remove_tree(&self.tmp, self.path.file_name().unwrap_or_default());
    }
}

/// Removes the directories of processes that have ended, without following symbolic links. Errors
/// are ignored: the next sweep tries again.
pub(super) fn sweep(tmp: &Path) {
    let Ok(directory) = private_files::open_directory(tmp) else { return };
    for name in private_files::entry_names(&directory) {
        let is_young = || {
            let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW);
            let modified_s = stat.map(|stat| stat.st_mtime.unsigned_abs());
            let time = modified_s.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            time.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < GRACE))
        };
        // A directory without a lock is being created, or was partly removed.
        let is_locked = |opened: &OwnedFd| {
            !name.to_string_lossy().starts_with(UNLOCKED) && private_files::has_entry(opened, LOCK)
        };
        let opened = private_files::open_entry(&directory, &name).ok();
        let dead = match opened.as_ref().filter(|opened| is_locked(opened)) {
            Some(opened) => FileLock::is_free(opened, LOCK),
            None => !is_young(),
        };
        if dead {
            remove_tree(&directory, &name);
        }
    }
}

/// Age at which a directory without a lock is removed: creating one and locking it takes far less.
const GRACE: Duration = Duration::from_secs(60);

/// Removes an entry of an open directory. Its lock file goes last, so that an interrupted removal is
/// continued by the next sweep.
fn remove_tree(directory: &OwnedFd, name: &OsStr) {
    if let Ok(opened) = private_files::open_entry(directory, name) {
        let names = private_files::entry_names(&opened);
        for inner in names.into_iter().filter(|inner| inner != LOCK) {
            remove_entry(&opened, &inner);
        }
    }
    remove_entry(directory, name);
}

/// Removes a file or a directory. Directories of images may lack the permissions that an ordinary
/// user needs to remove their content.
fn remove_entry(directory: &OwnedFd, name: &OsStr) {
    // Through the descriptor, so that no symbolic link is followed; the last name never is.
    let path = Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    let _done = pathio::remove_tree(&path).or_else(|_error| pathio::remove_file(&path));
}

/// The directory `tmp` of a store, and the directory of this process in it.
#[derive(Debug)]
pub(super) struct WorkArea {
    tmp: PathBuf,
    /// Created when it is first needed: a command that only reads leaves no trace.
    process: Mutex<Option<Arc<ProcessDirectory>>>,
}

impl WorkArea {
    /// Returns the work area of the store at `root`.
    pub(super) fn of_store(root: &Path) -> Self {
        Self { tmp: root.join("tmp"), process: Mutex::new(None) }
    }

    /// Returns the path of `tmp`.
    pub(super) fn path(&self) -> &Path {
        &self.tmp
    }

    /// Returns the directory of this process, and creates it the first time.
    pub(super) fn process(&self) -> Result<Arc<ProcessDirectory>, PathError> {
        let mut process = pool::lock(&self.process);
        if let Some(directory) = &*process {
            return Ok(Arc::clone(directory));
        }
        let directory = Arc::new(ProcessDirectory::new(&self.tmp)?);
        *process = Some(Arc::clone(&directory));
        Ok(directory)
    }

    /// Creates an empty work directory.
    pub(super) fn directory(&self) -> Result<WorkDirectory, PathError> {
        let process = self.process()?;
        let path = process.fresh_path();
        private_files::create_directory(&path).context("create directory", &path)?;
        let fd = private_files::open_directory(&path)?;
        Ok(WorkDirectory { path, fd, _process: process })
    }
}

/// A directory for one piece of unfinished work.
#[derive(Debug)]
pub struct WorkDirectory {
    path: PathBuf,
    fd: OwnedFd,
    /// Keeps the parent directory from being removed.
    _process: Arc<ProcessDirectory>,
}

impl WorkDirectory {
    /// Returns the directory's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a descriptor of the directory.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Creates a subdirectory with mode 0755 and opens it.
    ///
    /// # Errors
    /// [`PathError`] if the kernel refuses one of the calls.
    pub fn directory(&self, name: &str) -> Result<OwnedFd, PathError> {
        let path = self.path.join(name);
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).context("create directory", &path)?;
        // mkdir(2) applies the umask.
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o755))
            .context("change the mode of", &path)?;
        private_files::open_directory(&path)
    }
}
