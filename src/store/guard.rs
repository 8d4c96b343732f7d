//! The store's own files: opened without following a symbolic link, and for their owner alone.
//!
//! A store belongs to one user. One that another user owns, or wrote into, can hold links that lead
//! rbuild anywhere, and records that nobody made: it is refused. What was only readable for others
//! is closed to them. From then on nobody else can put anything into the store, and every path in
//! it is opened with `RESOLVE_NO_SYMLINKS` all the same.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::pathio::output::is_trusted_owner;
use crate::pathio::{self, Context as _, PathError};

use super::StoreError;

/// A directory of the store.
const PRIVATE_DIRECTORY: Mode = Mode::from_raw_mode(0o700);
/// A file of the store.
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
/// Bits by which the group or others can read, write or enter.
const FOR_OTHERS: u32 = 0o077;
/// Bits by which the group or others can write.
const OTHERS_WRITE: u32 = 0o022;
const EVERYONE_WRITES: u32 = 0o002;
/// Only the owner of a file may remove it from a directory with this bit.
const STICKY: u32 = 0o1000;

/// The directory of [`super::id_maps`].
pub(super) const ID_MAPS: &str = "id-maps";
const DIRECTORIES: [&str; 10] = [
    "blobs",
    "blobs/sha256",
    "layers",
    "tags",
    "memo",
    "builds",
    "cache-mounts",
    ID_MAPS,
    "locks",
    "tmp",
];
/// Files that are opened by name while the store is opened.
const FILES: [&str; 7] = [
    "version",
    "index.db",
    "index.db-wal",
    "index.db-shm",
    "index.db-journal",
    "locks/in-use",
    "locks/index",
];

/// Opens the directory of a store and makes what it lacks; returns its path without any symbolic
/// link.
///
/// # Errors
/// [`StoreError::Unsafe`] when others could have written into it, [`StoreError::Replaceable`] when
/// they can put another directory in its place; the kernel's, with the path.
pub(super) fn open(root: &Path) -> Result<PathBuf, StoreError> {
    check_length(&std::path::absolute(root).context("resolve", root)?)?;
    if matches!(rustix::fs::stat(root), Err(Errno::NOENT)) {
        create_directories(root)?;
    }
    let path = root.canonicalize().context("open directory", root)?;
    check_length(&path)?;
    check_parents(&path)?;
    let directory = open_directory(&path)?;
    let store = Guard { root: &path, directory };
    store.check_root()?;
    DIRECTORIES.iter().try_for_each(|name| store.ensure(name))?;
    FILES.iter().try_for_each(|name| store.check_file(name))?;
    store.check_index()?;
    Ok(path)
}

/// SQLite, as it is built, opens files by paths of 512 bytes at most (`MAX_PATHNAME` in its
/// `os_unix.c`), and the longest name beside the index is `index.db-journal`.
const MAX_ROOT_BYTES: usize = 512 - 32;

fn check_length(root: &Path) -> Result<(), StoreError> {
    let n_bytes = root.as_os_str().len();
    if n_bytes > MAX_ROOT_BYTES {
        return Err(StoreError::LongPath { n_bytes, most: MAX_ROOT_BYTES });
    }
    Ok(())
}

/// Whoever may rename a directory above the store can put another one in its place.
fn check_parents(path: &Path) -> Result<(), StoreError> {
    for parent in path.ancestors().skip(1) {
        let stat = rustix::fs::stat(parent).context("examine", parent)?;
        let owner = stat.st_uid;
        let shown = parent.display();
        let refused = |which: &str, remedy: String| {
            let reason = format!("it is below {shown}, which {which}");
            Err(StoreError::Replaceable { path: path.to_owned(), reason, remedy })
        };
        if !is_trusted_owner(owner).context("examine", Path::new("/"))? {
            let which = format!("belongs to user {owner}");
            return refused(&which, "make that directory your own with `chown`".to_owned());
        }
        if stat.st_mode & EVERYONE_WRITES != 0 && stat.st_mode & STICKY == 0 {
            return refused(
                "everybody can write to",
                format!("close it with `chmod go-w {shown}`"),
            );
        }
    }
    Ok(())
}

struct Guard<'a> {
    root: &'a Path,
    directory: OwnedFd,
}

impl Guard<'_> {
    fn refused<T>(&self, name: &str, reason: impl Into<String>) -> Result<T, StoreError> {
        let path = if name.is_empty() { self.root.to_owned() } else { self.root.join(name) };
        Err(StoreError::Unsafe { path, reason: reason.into() })
    }

    fn check_owner(&self, name: &str, stat: &Stat) -> Result<(), StoreError> {
        let own = rustix::process::geteuid().as_raw();
        if stat.st_uid == own {
            return Ok(());
        }
        self.refused(name, format!("it belongs to user {}, and rbuild runs as {own}", stat.st_uid))
    }

    fn check_root(&self) -> Result<(), StoreError> {
        let failed = |error| PathError::new("examine", self.root, error);
        let stat = rustix::fs::fstat(&self.directory).map_err(failed)?;
        self.check_owner("", &stat)?;
        if stat.st_mode & FOR_OTHERS == 0 {
            return Ok(());
        }
        let could_write = stat.st_mode & OTHERS_WRITE != 0;
        // First without touching it: it may be a directory that was never meant to be a store.
        if could_write && !is_empty(&self.directory).map_err(failed)? {
            return self.refused("", "others can write to it");
        }
        close_to_others(&self.directory, PRIVATE_DIRECTORY).map_err(failed)?;
        // Again, after others were shut out: nothing can come in any more.
        if could_write && !is_empty(&self.directory).map_err(failed)? {
            // As it was, so that the next call does not find it in order.
            let was = Mode::from_raw_mode(stat.st_mode & 0o7777);
            close_to_others(&self.directory, was).map_err(failed)?;
            return self.refused("", "others can write to it");
        }
        Ok(())
    }

    /// Makes a directory unless it is there; it is the owner's alone then.
    fn ensure(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let failed = |error| PathError::new("create directory", &path, error);
        match rustix::fs::mkdirat(&self.directory, name, PRIVATE_DIRECTORY) {
            Ok(()) | Err(Errno::EXIST) => {}
            // An earlier rbuild made the store without it, and what is too much can be removed without.
            Err(Errno::NOSPC | Errno::DQUOT) if name == ID_MAPS => return Ok(()),
            Err(error) => return Err(failed(error).into()),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let opened = match self.open(name, flags) {
            Err(Errno::LOOP | Errno::NOTDIR) => return self.refused(name, "it is not a directory"),
            opened => opened.map_err(failed)?,
        };
        let stat = rustix::fs::fstat(&opened).map_err(failed)?;
        self.check_owner(name, &stat)?;
        // The umask may have taken bits from a new one.
        if stat.st_mode & 0o777 != PRIVATE_DIRECTORY.as_raw_mode() {
            close_to_others(&opened, PRIVATE_DIRECTORY).map_err(failed)?;
        }
        Ok(())
    }

    /// Checks a file that is opened by its name later; it need not be there.
    fn check_file(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let failed = |error| PathError::new("examine", &path, error);
        let opened = match self.open(name, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        let stat = rustix::fs::fstat(&opened).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return self.refused(name, "it is not a regular file");
        }
        self.check_owner(name, &stat)?;
        if stat.st_nlink > 1 {
            return self.refused(name, "it has another name elsewhere");
        }
        if stat.st_mode & FOR_OTHERS != 0 {
            close_to_others(&opened, PRIVATE_FILE).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes the index's file: SQLite gives the files beside it the same mode.
    fn check_index(&self) -> Result<(), StoreError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = self.root.join("index.db");
        let made = rustix::fs::openat(&self.directory, "index.db", flags, PRIVATE_FILE);
        made.map(drop).context("create", &path)?;
        Ok(())
    }

    fn open(&self, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = if flags.contains(OFlags::NOFOLLOW) {
            ResolveFlags::BENEATH
        } else {
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS
        };
        rustix::fs::openat2(&self.directory, name, flags, Mode::empty(), resolve)
    }
}

/// Sets the mode of what an `O_PATH` descriptor stands for.
fn close_to_others(opened: &OwnedFd, mode: Mode) -> rustix::io::Result<()> {
    rustix::fs::chmod(format!("/proc/self/fd/{}", opened.as_raw_fd()), mode)
}

fn is_empty(directory: &OwnedFd) -> rustix::io::Result<bool> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens a file of the store: a regular one, with no symbolic link on its path.
pub(super) fn open_file(path: &Path) -> Result<File, PathError> {
    // A FIFO that was put there must not make rbuild wait.
    let opened = at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty());
    let file = File::from(opened.context("open", path)?);
    let stat = rustix::fs::fstat(&file).context("examine", path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(PathError::new("open", path, error));
    }
    Ok(file)
}

/// Reads a file of the store, at most `max_bytes`.
pub(super) fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, PathError> {
    pathio::read_bounded(open_file(path)?, max_bytes, path)
}

/// Creates a file of the store, which is not there yet.
pub(super) fn create_file(path: &Path) -> Result<File, PathError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    at(path, flags, PRIVATE_FILE).map(File::from).context("create", path)
}

/// Creates a file of the store, which is not there yet, and to which only is appended.
pub(super) fn create_journal(path: &Path) -> Result<File, PathError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND;
    at(path, flags, PRIVATE_FILE).map(File::from).context("create", path)
}

/// Creates a file of the store, which is not there yet, with this content.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    create_file(path)?.write_all(bytes).context("write", path)
}

/// Opens a lock file, and makes it if need be.
pub(super) fn open_lock(path: &Path) -> Result<OwnedFd, PathError> {
    at(path, OFlags::CREATE | OFlags::RDWR | OFlags::NONBLOCK, PRIVATE_FILE).context("open", path)
}

/// Opens a directory of the store for calls relative to it.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, PathError> {
    at(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).context("open directory", path)
}

/// Creates a directory of the store.
pub(super) fn create_directory(path: &Path) -> rustix::io::Result<()> {
    rustix::fs::mkdir(path, PRIVATE_DIRECTORY)
}

/// Creates a directory of the store and its missing parents.
pub(super) fn create_directories(path: &Path) -> Result<(), PathError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.context("create directory", path)
}

fn at(path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(CWD, path, flags | OFlags::CLOEXEC, mode, resolve)
}

/// Opens an entry of an open directory if it is a directory itself.
pub(super) fn open_entry(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Returns whether an open directory has an entry of this name.
pub(super) fn has_entry(directory: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
