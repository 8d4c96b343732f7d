//! Compares entries of the upper directory with the lower directories. Overlayfs copies a file up when
//! it is opened for writing, even if it is then not changed
//! (<https://docs.kernel.org/filesystems/overlayfs.html#non-directories>).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::limits::MAX_XATTR_LIST_BYTES;
use crate::pathio::{Context as _, PathError};
use crate::tree::{TreePath, Xattrs, is_kept_xattr};

use super::open_file;

const BUFFER_BYTES: usize = 64 * 1024;

/// Returns whether `name` is the same file in both directories.
pub(super) fn is_unchanged(
    (upper, upper_stat): (BorrowedFd<'_>, &Stat),
    (lower, lower_stat): (BorrowedFd<'_>, &Stat),
    name: &[u8],
    path: &TreePath,
) -> Result<bool, PathError> {
    if !is_same_stat(upper_stat, lower_stat) {
        return Ok(false);
    }
    match FileType::from_raw_mode(upper_stat.st_mode) {
        FileType::RegularFile => is_same_file(upper, lower, name, path),
        FileType::Symlink => {
            let target = |directory| {
                let target = rustix::fs::readlinkat(directory, name, Vec::new());
                target.context("read link", path.as_path())
            };
            Ok(target(upper)? == target(lower)?)
        }
        FileType::Directory
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Ok(upper_stat.st_rdev == lower_stat.st_rdev),
    }
}

/// Returns whether a directory has the same mode, owner and attributes. Its entries are compared one by
/// one; its mtime is ignored, because it changes with the entries.
pub(super) fn is_unchanged_directory(
    upper: &Stat,
    upper_xattrs: &Xattrs,
    (lower, lower_stat): (BorrowedFd<'_>, &Stat),
    path: &TreePath,
) -> Result<bool, PathError> {
    if !is_same_owner(upper, lower_stat) {
        return Ok(false);
    }
    Ok(*upper_xattrs == read_xattrs(lower, path)?)
}

fn is_same_owner(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
}

fn is_same_stat(a: &Stat, b: &Stat) -> bool {
    let time_and_size = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec, stat.st_size);
    is_same_owner(a, b) && time_and_size(a) == time_and_size(b)
}

fn is_same_file(
    upper: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    name: &[u8],
    path: &TreePath,
) -> Result<bool, PathError> {
    let upper = open_file(upper, name, path.as_path())?;
    let lower = open_file(lower, name, path.as_path())?;
    if read_xattrs(upper.as_fd(), path)? != read_xattrs(lower.as_fd(), path)? {
        return Ok(false);
    }
    // An equal mtime proves nothing: the kernel stamps all writes of one timer tick alike (4 ms with
    // CONFIG_HZ=250), so `echo 1 > a; echo 2 > b` and then `mv a b` keep size and mtime. `cp -p` and tar
    // restore times, too.
    is_same_content(File::from(upper), File::from(lower)).context("compare", path.as_path())
}

fn is_same_content(mut a: File, mut b: File) -> io::Result<bool> {
    let (mut a_bytes, mut b_bytes) = (Vec::new(), Vec::new());
    let n_bytes = u64::try_from(BUFFER_BYTES).unwrap_or(u64::MAX);
    loop {
        a_bytes.clear();
        b_bytes.clear();
        a.by_ref().take(n_bytes).read_to_end(&mut a_bytes)?;
        b.by_ref().take(n_bytes).read_to_end(&mut b_bytes)?;
        if a_bytes != b_bytes {
            return Ok(false);
        }
        if a_bytes.is_empty() {
            return Ok(true);
        }
    }
}

/// Returns the extended attributes of an open file that layers keep.
pub(in crate::store) fn read_xattrs(
    file: BorrowedFd<'_>,
    path: &TreePath,
) -> Result<Xattrs, PathError> {
    let mut few = [0_u8; 256];
    let mut many = Vec::new();
    let names = match rustix::fs::flistxattr(file, &mut few) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Xattrs::new()),
        Ok(n_bytes) => few.get(..n_bytes).unwrap_or_default(),
        Err(Errno::RANGE) => {
            many.resize(MAX_XATTR_LIST_BYTES, 0);
            let n_bytes = rustix::fs::flistxattr(file, &mut *many)
                .context("list the extended attributes of", path.as_path())?;
            many.get(..n_bytes).unwrap_or_default()
        }
        Err(error) => {
            return Err(PathError::new("list the extended attributes of", path.as_path(), error));
        }
    };
    let mut xattrs = Xattrs::new();
    for name in names.split(|byte| *byte == 0).filter(|name| is_kept_xattr(name)) {
        let mut value = vec![0; MAX_XATTR_LIST_BYTES];
        match rustix::fs::fgetxattr(file, name, &mut *value) {
            // Removed since it was listed.
            Err(Errno::NODATA) => continue,
            n_bytes => {
                value.truncate(n_bytes.context("read an extended attribute of", path.as_path())?);
            }
        }
        xattrs.insert(name.into(), value.into_boxed_slice());
    }
    Ok(xattrs)
}
