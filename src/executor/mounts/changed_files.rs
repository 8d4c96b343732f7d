//! Regular files below a directory, visited by descriptor: links are never followed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::limits::MAX_DIRECTORY_DEPTH;
use crate::pathio::{Context as _, PathError};

/// Work on one file, given by its directory and name.
pub(super) type Visit<'a> = dyn FnMut(BorrowedFd<'_>, &CStr, &Stat) -> io::Result<()> + 'a;

/// A directory that is being visited.
struct Open {
    directory: OwnedFd,
    names: Dir,
    path: PathBuf,
}

/// Calls `visit` for each regular file below `root` that `is_wanted`. A file with several names is
/// visited under each.
///
/// # Errors
/// The error of `visit` or of the kernel, with the path.
pub(super) fn for_each(
    root: BorrowedFd<'_>,
    is_wanted: &dyn Fn(&Stat) -> bool,
    visit: &mut Visit<'_>,
) -> Result<(), PathError> {
    let path = PathBuf::from("/");
    let mut stack = vec![open_directory(root, c".", path.clone()).context("list", &path)?];
    while let Some(top) = stack.last_mut() {
        let Some(entry) = top.names.next() else {
            stack.pop();
            continue;
        };
        let entry = entry.context("list", &top.path)?;
        let name: CString = entry.file_name().to_owned();
        if [b".".as_slice(), b".."].contains(&name.to_bytes()) {
            continue;
        }
        let path = top.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let stat = rustix::fs::statat(&top.directory, &name, AtFlags::SYMLINK_NOFOLLOW)
            .context("inspect", &path)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if is_wanted(&stat) => {
                visit(top.directory.as_fd(), &name, &stat).context("clean", &path)?;
            }
            FileType::Directory => match open_directory(top.directory.as_fd(), &name, path.clone())
            {
                Ok(_) if stack.len() >= MAX_DIRECTORY_DEPTH => {
                    return Err(PathError::new("list", path, Errno::NAMETOOLONG));
                }
                Ok(open) => stack.push(open),
                // A user without rights cannot read it, and no layer is made of it either.
                Err(Errno::ACCESS) => {}
                Err(errno) => return Err(PathError::new("list", path, errno)),
            },
            FileType::RegularFile
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {}
        }
    }
    Ok(())
}

/// Opens a regular file for reading, whatever its mode is.
pub(super) fn open(
    directory: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let open = || rustix::fs::openat(directory, name, flags, Mode::empty());
    match open() {
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(stat.st_mode);
            let set = |mode| rustix::fs::chmodat(directory, name, mode, AtFlags::empty());
            set(mode | Mode::RUSR)?;
            let opened = open();
            set(mode)?;
            opened
        }
        opened => opened,
    }
}

fn open_directory(at: BorrowedFd<'_>, name: &CStr, path: PathBuf) -> rustix::io::Result<Open> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(at, name, flags, Mode::empty())?;
    let names = Dir::read_from(&directory)?;
    Ok(Open { directory, names, path })
}
