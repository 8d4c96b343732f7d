//! Removes a directory with everything in it, however deep it is and whatever the modes in it are.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

/// Size of the buffer for one call of getdents64(2), bytes.
const NAMES_BYTES: usize = 32 * 1024;

/// Removes the directory at `path`. Links in it are not followed. No other process may change it.
///
/// A directory below another is moved to the top before its content is removed: neither the thread's
/// stack nor the number of open files limits the depth, and a step may have nested directories
/// without limit.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags, Mode::empty())?;
    let name = name.as_bytes();
    let top = open(parent.as_fd(), name)?;
    let mut removal = Removal { top: top.as_fd(), directories: Vec::new(), n_moved: 0 };
    removal.clear(top.as_fd(), true)?;
    while let Some(name) = removal.directories.pop() {
        let directory = match open(top.as_fd(), &name) {
            // Another directory was moved to this name, and has been removed.
            Err(Errno::NOENT) => continue,
            directory => directory?,
        };
        removal.clear(directory.as_fd(), false)?;
        rustix::fs::unlinkat(&top, OsStr::from_bytes(&name), AtFlags::REMOVEDIR)?;
    }
    Ok(rustix::fs::unlinkat(&parent, OsStr::from_bytes(name), AtFlags::REMOVEDIR)?)
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    /// Names of directories in `top` that remain.
    directories: Vec<Vec<u8>>,
    n_moved: u64,
}

impl Removal<'_> {
    /// Removes the files in a directory, and moves its directories to the top.
    fn clear(&mut self, directory: BorrowedFd<'_>, is_top: bool) -> rustix::io::Result<()> {
        for (name, kind) in entries(directory)? {
            let at = OsStr::from_bytes(&name);
            if kind != FileType::Directory {
                match rustix::fs::unlinkat(directory, at, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    // A file system that does not list types. EPERM is POSIX's error for a directory.
                    Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
                    Err(errno) => return Err(errno),
                }
            }
            if is_top {
                self.directories.push(name);
            } else {
                self.move_to_top(directory, &name)?;
            }
        }
        Ok(())
    }

    fn move_to_top(&mut self, from: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        loop {
            let new = format!(".removed-{}", self.n_moved);
            self.n_moved += 1;
            match rustix::fs::renameat(from, OsStr::from_bytes(name), self.top, new.as_str()) {
                Ok(()) => {
                    self.directories.push(new.into_bytes());
                    return Ok(());
                }
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                // A new parent is written into the directory, which its mode may forbid.
                Err(Errno::ACCESS) => allow_access(from, name)?,
                Err(errno) => return Err(errno),
            }
        }
    }
}

fn entries(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); NAMES_BYTES];
    let mut listed = RawDir::new(directory, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = listed.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(entries)
}

/// Opens a directory for listing and changes.
fn open(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = OsStr::from_bytes(name);
    let opened = match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            allow_access(at, name.as_bytes())?;
            rustix::fs::openat(at, name, flags, Mode::empty())?
        }
        opened => opened?,
    };
    let needed = Mode::RWXU.bits();
    if rustix::fs::fstat(&opened)?.st_mode & needed != needed {
        // The owner may change it (chmod(2)); root needs no permission.
        let _denied = rustix::fs::fchmod(&opened, Mode::RWXU);
    }
    Ok(opened)
}

/// Gives the owner of a directory all permissions. The name was listed as a directory: fchmodat(2)
/// follows links.
fn allow_access(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::chmodat(at, OsStr::from_bytes(name), Mode::RWXU, AtFlags::empty())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make their own files")]

    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn directories_of_any_mode_and_depth_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join(".removed-0/x")).unwrap();
        fs::create_dir_all(root.join("closed/inner/empty")).unwrap();
        fs::write(root.join("closed/inner/file"), "x").unwrap();
        symlink(directory.path(), root.join("closed/link")).unwrap();
        for name in ["closed/inner", "closed"] {
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o0)).unwrap();
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut deep = rustix::fs::open(&root, flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&deep, "deep", Mode::RWXU).unwrap();
            deep = rustix::fs::openat(&deep, "deep", flags, Mode::empty()).unwrap();
        }
        remove(&root).unwrap();
        assert!(!root.exists() && directory.path().exists());
        assert_eq!(remove(&root).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
