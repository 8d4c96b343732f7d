//! Mount points in a rootfs for the time of a step: made if they are missing, and removed if the
//! step left them empty.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::limits::MAX_LINKS_FOLLOWED;
use crate::pathio::{Context as _, PathError};
use crate::sandbox::{self, Isolation};
use crate::tree::TreePath;

/// Resolves paths inside the rootfs, whatever links the image contains (openat2(2), Linux 5.6).
pub(in crate::executor) const IN_ROOT: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Refuses links that lead out of the directory, as every absolute one does (openat2(2)).
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// The files and directories that were made for a step, in order.
#[derive(Debug, Default)]
pub(in crate::executor) struct MountPoints {
    made: Vec<MadePoint>,
}

/// A file or directory that was made as a mount point.
#[derive(Debug)]
struct MadePoint {
    /// The parent directory. By name, the step could lead the clean-up elsewhere.
    parent: OwnedFd,
    name: Vec<u8>,
    is_directory: bool,
    /// Device and inode: the step may have replaced it.
    id: (u64, u64),
}

impl MountPoints {
    /// Makes a file or directory at `path`, unless it exists or is a link to something that does.
    pub(in crate::executor) fn ensure(
        &mut self,
        root: BorrowedFd<'_>,
        path: &[u8],
        is_directory: bool,
    ) -> Result<(), PathError> {
        let mut at = TreePath::clean(path);
        for _ in 0..MAX_LINKS_FOLLOWED {
            if open(root, &at, OFlags::PATH, IN_ROOT).is_ok() {
                return Ok(());
            }
            if let Some(target) = read_link(root, &at) {
                let directory = at.parent().unwrap_or_default();
                at = if target.starts_with(b"/") {
                    TreePath::clean(&target)
                } else {
                    TreePath::clean(&[directory.as_bytes(), b"/", &target].concat())
                };
                continue;
            }
            return self.make(root, &at, is_directory, IN_ROOT);
        }
        Err(PathError::new("create", at.as_path(), Errno::LOOP))
    }

    /// Makes `path` with its missing parents, owned by root.
    fn make(
        &mut self,
        root: BorrowedFd<'_>,
        path: &TreePath,
        is_directory: bool,
        resolve: ResolveFlags,
    ) -> Result<(), PathError> {
        let mut at = TreePath::root();
        let last = path.names().count().saturating_sub(1);
        for (depth, name) in path.names().enumerate() {
            let directory = open(root, &at, OFlags::PATH | OFlags::DIRECTORY, resolve)
                .context("open directory", at.as_path())?;
            at = at.join(name);
            let is_directory = is_directory || depth < last;
            match open(root, &at, OFlags::PATH, resolve) {
                Ok(_) => continue,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(PathError::new("open", at.as_path(), error)),
            }
            let id =
                create(directory.as_fd(), name, is_directory).context("create", at.as_path())?;
            self.made.push(MadePoint { parent: directory, name: name.to_vec(), is_directory, id });
        }
        Ok(())
    }

    /// Removes what was made and is still empty.
    ///
    /// # Errors
    /// The error of the kernel: a mount point that stays would be part of the layer.
    pub(in crate::executor) fn remove(self) -> Result<(), PathError> {
        for MadePoint { parent, name, is_directory, id } in self.made.into_iter().rev() {
            let name = OsStr::from_bytes(&name);
            let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let failed = |errno| PathError::new("remove the mount point", Path::new(name), errno);
            let is_ours = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => (stat.st_dev, stat.st_ino) == id && (is_directory || stat.st_size == 0),
                Err(Errno::NOENT) => false,
                Err(errno) => return Err(failed(errno)),
            };
            if is_ours {
                match rustix::fs::unlinkat(&parent, name, flags) {
                    // A directory with files of the step is part of the layer.
                    Err(Errno::NOTEMPTY | Errno::EXIST) if is_directory => {}
                    removed => removed.map_err(failed)?,
                }
            }
        }
        Ok(())
    }
}

/// Makes the mount point `path` in the files of another mount, where it stays.
///
/// A link that leads out of them is refused. Inside the step it would lead into the step's own
/// files, and the mount point would be made there and stay.
pub(in crate::executor) fn ensure_in_mount(
    root: BorrowedFd<'_>,
    path: &[u8],
    is_directory: bool,
) -> Result<(), PathError> {
    let path = TreePath::clean(path);
    MountPoints::default().make(root, &path, is_directory, BENEATH)
}

/// Makes a file or directory; returns its device and inode.
fn create(directory: BorrowedFd<'_>, name: &[u8], is_directory: bool) -> Result<(u64, u64), Errno> {
    let name = OsStr::from_bytes(name);
    if is_directory {
        rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644))?;
    }
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Sets the owner of a new directory, which is given by its parent directory and its name.
type SetOwner<'a> = dyn Fn(BorrowedFd<'_>, &[u8]) -> std::io::Result<()> + 'a;

/// Passes on the result of changing the owner of a file that is mounted. Where owners are emulated,
/// such files belong to the user of this process, and a refusal is not an error.
pub(in crate::executor) fn owner_set(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::PERM | Errno::INVAL)
            if sandbox::isolation().is_some_and(Isolation::emulates_owners) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Makes the directory `path` with its missing parents, whose owner `set_owner` sets. Existing
/// directories stay unchanged.
pub(in crate::executor) fn make_directories(
    root: BorrowedFd<'_>,
    path: &str,
    set_owner: &SetOwner<'_>,
) -> Result<(), PathError> {
    let path = TreePath::clean(path.as_bytes());
    let mut at = TreePath::root();
    for name in path.names() {
        at = at.join(name);
        match open(root, &at, OFlags::PATH | OFlags::DIRECTORY, IN_ROOT) {
            Ok(_) => {}
            Err(Errno::NOENT) => make_directory(root, &at, set_owner)?,
            Err(error) => return Err(PathError::new("open directory", at.as_path(), error)),
        }
    }
    Ok(())
}

fn make_directory(
    root: BorrowedFd<'_>,
    path: &TreePath,
    set_owner: &SetOwner<'_>,
) -> Result<(), PathError> {
    let shown = path.as_path();
    let parent = path.parent().unwrap_or_default();
    let parent = open(root, &parent, OFlags::PATH | OFlags::DIRECTORY, IN_ROOT)
        .context("open directory", shown)?;
    let name = path.name().unwrap_or_default();
    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
        .context("create directory", shown)?;
    set_owner(parent.as_fd(), name).context("change the owner of", shown)
}

fn open(
    root: BorrowedFd<'_>,
    path: &TreePath,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(root, path.as_path(), flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens a regular file for reading; `None` for others. Reading a FIFO would wait, and opening a
/// device may have side effects (open(2), `O_NONBLOCK`).
pub(in crate::executor) fn open_regular(
    root: BorrowedFd<'_>,
    path: &Path,
) -> Result<Option<File>, Errno> {
    let open = |flags: OFlags| {
        rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT)
    };
    let is_regular = |file: &OwnedFd| -> Result<bool, Errno> {
        let mode = rustix::fs::fstat(file)?.st_mode;
        Ok(FileType::from_raw_mode(mode) == FileType::RegularFile)
    };
    if !is_regular(&open(OFlags::PATH)?)? {
        return Ok(None);
    }
    let file = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    // It may have been replaced meanwhile.
    Ok(is_regular(&file)?.then(|| file.into()))
}

fn read_link(root: BorrowedFd<'_>, path: &TreePath) -> Option<Vec<u8>> {
    let link = open(root, path, OFlags::PATH | OFlags::NOFOLLOW, IN_ROOT).ok()?;
    let target = rustix::fs::readlinkat(link.as_fd(), "", Vec::new()).ok()?;
    Some(target.into_bytes())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

    use super::*;

    /// Opens a directory below `root` and makes it immutable, if the file system and the caller's
    /// rights allow that (`FS_IMMUTABLE_FL`, ioctl_iflags(2)).
    fn locked(root: BorrowedFd<'_>, name: &str) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = open(root, &TreePath::clean(name.as_bytes()), flags, IN_ROOT).ok()?;
        let own = ioctl_getflags(&opened).ok()?;
        ioctl_setflags(&opened, own | IFlags::IMMUTABLE).ok()?;
        Some(opened)
    }

    #[test]
    fn mount_point_that_cannot_be_removed_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let root = rustix::fs::open(directory.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut points = MountPoints::default();
        points.ensure(root.as_fd(), b"/etc/resolv.conf", false).unwrap();
        let Some(etc) = locked(root.as_fd(), "etc") else { return };
        let removed = points.remove();
        let flags = ioctl_getflags(&etc).unwrap();
        ioctl_setflags(&etc, flags - IFlags::IMMUTABLE).unwrap();
        assert!(removed.is_err_and(|error| error.to_string().contains("resolv.conf")));
    }

    #[test]
    fn mount_points_that_were_filled_stay() {
        let directory = tempfile::tempdir().unwrap();
        let root = rustix::fs::open(directory.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut points = MountPoints::default();
        points.ensure(root.as_fd(), b"/a/b", true).unwrap();
        points.ensure(root.as_fd(), b"/c/d", true).unwrap();
        crate::pathio::write(&directory.path().join("a/b/file"), b"x").unwrap();
        points.remove().unwrap();
        assert!(directory.path().join("a/b/file").exists() && !directory.path().join("c").exists());
    }
}
