//! Checks, before a store is opened, that no other user can have written to it or can replace it.
//!
//! A store belongs to one user. One that another user owns or wrote to can hold links that lead
//! rbuild anywhere, and records that no build created: it is refused. If others could only read it,
//! its permissions are tightened.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::pathio::output::is_trusted_owner;
use crate::pathio::{Context as _, PathError};

use super::StoreError;
use super::id_maps::ID_MAPS;
use super::private_files::{PRIVATE_DIRECTORY, PRIVATE_FILE, create_directories, open_directory};

/// Bits by which the group or others can read, write or enter (inode(7)).
const FOR_OTHERS: u32 = 0o077;
/// Bits by which the group or others can write.
const OTHERS_WRITE: u32 = 0o022;
/// The bit by which users outside the group can write.
const EVERYONE_WRITES: u32 = 0o002;
/// The sticky bit: in a directory with it, only the owner of a file may remove the file (inode(7)).
const STICKY: u32 = 0o1000;

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

/// Checks the directory of a store and creates what it lacks; returns its path without symbolic
/// links.
///
/// # Errors
/// [`StoreError::Unsafe`] if other users can have written to it, [`StoreError::Replaceable`] if they
/// can put another directory in its place, [`StoreError::LongPath`]; [`StoreError::Io`] with the
/// path.
pub(super) fn prepare(root: &Path) -> Result<PathBuf, StoreError> {
    check_length(&std::path::absolute(root).context("resolve", root)?)?;
    if matches!(rustix::fs::stat(root), Err(Errno::NOENT)) {
        create_directories(root)?;
    }
    let path = root.canonicalize().context("open directory", root)?;
    check_length(&path)?;
    check_parents(&path)?;
    let directory = open_directory(&path)?;
    let checks = RootChecks { root: &path, directory };
    checks.check_root()?;
    DIRECTORIES.iter().try_for_each(|name| checks.ensure_directory(name))?;
    FILES.iter().try_for_each(|name| checks.check_file(name))?;
    checks.create_index()?;
    Ok(path)
}

/// Maximum length of a store's path. The bundled SQLite opens files by paths of at most 512 bytes
/// (`MAX_PATHNAME` in <https://github.com/sqlite/sqlite/blob/master/src/os_unix.c>), and the longest
/// name beside the index is `index.db-journal`.
const MAX_ROOT_BYTES: usize = 512 - 32;

fn check_length(root: &Path) -> Result<(), StoreError> {
    let n_bytes = root.as_os_str().len();
    if n_bytes > MAX_ROOT_BYTES {
        return Err(StoreError::LongPath { n_bytes, most: MAX_ROOT_BYTES });
    }
    Ok(())
}

/// Refuses a store below a directory in which another user may rename entries (rename(2)): that user
/// could put another store in its place.
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
            return refused(&which, "change the owner of that directory with `chown`".to_owned());
        }
        if stat.st_mode & EVERYONE_WRITES != 0 && stat.st_mode & STICKY == 0 {
            return refused("everyone can write to", format!("run `chmod go-w {shown}`"));
        }
    }
    Ok(())
}

/// The directory of a store while it is checked. All calls are relative to its descriptor.
struct RootChecks<'a> {
    root: &'a Path,
    directory: OwnedFd,
}

impl RootChecks<'_> {
    /// Returns [`StoreError::Unsafe`] for the entry `name`, or for the store itself if `name` is
    /// empty.
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
        // Checked before the mode is changed: it may be a directory that was never meant to be a store.
        if could_write && !is_empty(&self.directory).map_err(failed)? {
            return self.refused("", "others can write to it");
        }
        set_mode(&self.directory, PRIVATE_DIRECTORY).map_err(failed)?;
        // Checked a second time: from here on no other user can add entries.
        if could_write && !is_empty(&self.directory).map_err(failed)? {
            // Restored, so that the next call refuses the directory as well.
            let before = Mode::from_raw_mode(stat.st_mode & 0o7777);
            set_mode(&self.directory, before).map_err(failed)?;
            return self.refused("", "others can write to it");
        }
        Ok(())
    }

    /// Creates a directory unless it exists, and takes the permissions of others away.
    fn ensure_directory(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let failed = |error| PathError::new("create directory", &path, error);
        match rustix::fs::mkdirat(&self.directory, name, PRIVATE_DIRECTORY) {
            Ok(()) | Err(Errno::EXIST) => {}
            // A store of an earlier rbuild lacks it, and commands that free space can do without it.
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
        // The mode of a new one is reduced by the umask (mkdir(2)).
        if stat.st_mode & 0o777 != PRIVATE_DIRECTORY.as_raw_mode() {
            set_mode(&opened, PRIVATE_DIRECTORY).map_err(failed)?;
        }
        Ok(())
    }

    /// Checks a file that is opened by its name later; it need not exist.
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
            set_mode(&opened, PRIVATE_FILE).map_err(failed)?;
        }
        Ok(())
    }

    /// Creates the file of the index. SQLite gives the files beside it the same mode
    /// (`findCreateFileMode` in its os_unix.c).
    fn create_index(&self) -> Result<(), StoreError> {
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

/// Sets the mode of the file behind a descriptor, through `/proc`: fchmod(2) refuses one that was
/// opened with `O_PATH` (open(2)).
fn set_mode(opened: &OwnedFd, mode: Mode) -> rustix::io::Result<()> {
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
