//! Mounts of a step where nothing can be mounted: the supervisor continues a lookup that arrives at a
//! mount point in a directory, or a file, elsewhere.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Result;

use super::super::attributes::FileId;

/// A file or directory that appears at a mount point.
#[derive(Debug)]
pub(super) struct VirtualMount {
    /// The mount point in the step's root: absolute, without links, `.` or `..`.
    pub(super) target: Vec<u8>,
    /// The object that appears there.
    pub(super) source: OwnedFd,
    pub(super) source_id: FileId,
    /// The path of the object outside, with which paths of open files begin.
    pub(super) source_path: Vec<u8>,
    /// The mount point, which the object hides.
    pub(super) point: Option<FileId>,
    /// The directory that the mount point is in.
    pub(super) parent: OwnedFd,
    pub(super) read_only: bool,
    /// True for a proc file system, whose links depend on the process that follows them.
    pub(super) is_proc: bool,
}

/// Returns the id of an open object.
pub(super) fn id_of(file: &OwnedFd) -> Result<FileId> {
    rustix::fs::fstat(file).map(|stat| FileId::of(&stat))
}

/// Returns the path of an open object, as this process sees it.
pub(super) fn path_of(file: &OwnedFd) -> Result<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    rustix::fs::readlinkat(CWD, link, Vec::new()).map(CString::into_bytes)
}

/// Returns the id of the file `name` in a directory, if there is one.
pub(super) fn id_at(directory: &OwnedFd, name: &[u8]) -> Option<FileId> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileId::of(&stat))
}

/// Returns what follows `directory` in `path`, without a leading slash; `None` if `path` is not in it.
pub(super) fn below<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(directory)?;
    match rest.first() {
        None => Some(rest),
        Some(b'/') => rest.get(1..),
        Some(_) if directory == b"/" => Some(rest),
        Some(_) => None,
    }
}
