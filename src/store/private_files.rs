//! Files and directories of the store: opened without following symbolic links, created for their
//! owner alone.
//!
//! Every path is opened with `RESOLVE_NO_SYMLINKS` (openat2(2)), although no other user can create a
//! link in a store that passed [`super::root_checks`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};

use crate::pathio::{self, Context as _, PathError};
use crate::tree::TreePath;

/// Mode of a directory of the store.
pub(super) const PRIVATE_DIRECTORY: Mode = Mode::from_raw_mode(0o700);
/// Mode of a file of the store.
pub(super) const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);

/// Opens a regular file of the store for reading.
pub(super) fn open_file(path: &Path) -> Result<File, PathError> {
    // Without O_NONBLOCK, open(2) of a FIFO waits for a writer (fifo(7)).
    let opened = at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty());
    let file = File::from(opened.context("open", path)?);
    let stat = rustix::fs::fstat(&file).context("examine", path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(PathError::new("open", path, error));
    }
    Ok(file)
}

/// Reads a file of the store of at most `max_bytes`.
pub(super) fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, PathError> {
    pathio::read_bounded(open_file(path)?, max_bytes, path)
}

/// Creates a file of the store, which must not exist.
pub(super) fn create_file(path: &Path) -> Result<File, PathError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    at(path, flags, PRIVATE_FILE).map(File::from).context("create", path)
}

/// Creates a file of the store, which must not exist and is only appended to.
pub(super) fn create_append_only(path: &Path) -> Result<File, PathError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND;
    at(path, flags, PRIVATE_FILE).map(File::from).context("create", path)
}

/// Creates a file of the store, which must not exist, with the content `bytes`.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    create_file(path)?.write_all(bytes).context("write", path)
}

/// Opens a lock file, and creates it if it is missing.
pub(super) fn open_lock(path: &Path) -> Result<OwnedFd, PathError> {
    at(path, OFlags::CREATE | OFlags::RDWR | OFlags::NONBLOCK, PRIVATE_FILE).context("open", path)
}

/// Opens a directory of the store, for calls relative to it.
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

/// Opens the entry `name` of an open directory, which must be a directory itself.
pub(super) fn open_entry(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Returns whether an open directory has an entry called `name`.
pub(super) fn has_entry(directory: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Returns the names in an open directory, in no particular order. Entries that cannot be read are
/// left out.
pub(super) fn entry_names(directory: &OwnedFd) -> Vec<OsString> {
    let entries = rustix::fs::Dir::read_from(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
    names.filter(|name| name != "." && name != "..").collect()
}

/// Returns the UTF-8 names in the directory at `path`, sorted. The store itself creates no others.
pub(super) fn sorted_names(path: &Path) -> Result<Vec<String>, PathError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).context("list", path)? {
        names.extend(entry.context("list", path)?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a regular file of an unpacked layer. A symbolic link on its path is an error
/// (`RESOLVE_NO_SYMLINKS`, openat2(2)).
///
/// # Errors
/// The kernel's.
pub fn open_layer_file(directory: BorrowedFd<'_>, path: &TreePath) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(directory, path.as_path(), flags, Mode::empty(), resolve)?.into())
}
