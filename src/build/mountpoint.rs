//! Places in a rootfs where something is mounted for the time of a step: made when they are
//! missing, and removed again when the step left them empty.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::limits::MAX_LINKS_FOLLOWED;
use crate::pathio::{Context as _, PathError};
use crate::tree::TreePath;

/// Every look-up stays below the rootfs, whatever links the image holds (openat2(2), Linux 5.6).
pub(super) const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// What was made for a step, in the order in which it was made.
#[derive(Debug, Default)]
pub(super) struct MountPoints {
    made: Vec<(TreePath, bool)>,
}

impl MountPoints {
    /// Sees to it that `path` is there, or a link to what is; makes a file or a folder.
    pub(super) fn ensure(
        &mut self,
        root: BorrowedFd<'_>,
        path: &[u8],
        is_folder: bool,
    ) -> Result<(), PathError> {
        let mut at = TreePath::clean(path);
        for _ in 0..MAX_LINKS_FOLLOWED {
            if open(root, &at, OFlags::PATH).is_ok() {
                return Ok(());
            }
            if let Some(target) = read_link(root, &at) {
                let folder = at.parent().unwrap_or_default();
                at = if target.starts_with(b"/") {
                    TreePath::clean(&target)
                } else {
                    TreePath::clean(&[folder.as_bytes(), b"/", &target].concat())
                };
                continue;
            }
            if is_folder {
                return self.ensure_folder(root, &at);
            }
            self.ensure_folder(root, &at.parent().unwrap_or_default())?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::openat2(root, at.as_path(), flags, mode, IN_ROOT)
                .context("create", at.as_path())?;
            self.made.push((at, false));
            return Ok(());
        }
        Err(PathError::new("create", at.as_path(), Errno::LOOP))
    }

    /// Makes the folder `path` and its missing parents, as root's.
    fn ensure_folder(&mut self, root: BorrowedFd<'_>, path: &TreePath) -> Result<(), PathError> {
        if path.is_root() || open(root, path, OFlags::PATH | OFlags::DIRECTORY).is_ok() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or_default();
        self.ensure_folder(root, &parent)?;
        make_folder(root, path, None)?;
        self.made.push((path.clone(), true));
        Ok(())
    }

    /// Removes what was made and is still empty.
    pub(super) fn remove(self, root: BorrowedFd<'_>) {
        for (path, is_folder) in self.made.into_iter().rev() {
            let Some(name) = path.name() else { continue };
            let parent = path.parent().unwrap_or_default();
            let Ok(folder) = open(root, &parent, OFlags::PATH | OFlags::DIRECTORY) else {
                continue;
            };
            let name = std::ffi::OsStr::new(std::str::from_utf8(name).unwrap_or_default());
            let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
            if is_folder || stat.is_ok_and(|stat| stat.st_size == 0) {
                // A folder that the step put something into stays: it is part of the layer.
                let _gone = rustix::fs::unlinkat(&folder, name, flags);
            }
        }
    }
}

/// Makes the folder `path` with its missing parents, all owned by `owner`; what is there stays as
/// it is.
pub(super) fn make_folders(
    root: BorrowedFd<'_>,
    path: &str,
    owner: (u32, u32),
) -> Result<(), PathError> {
    let path = TreePath::clean(path.as_bytes());
    let mut at = TreePath::root();
    for name in path.names() {
        at = at.join(name);
        match open(root, &at, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => {}
            Err(Errno::NOENT) => make_folder(root, &at, Some(owner))?,
            Err(error) => return Err(PathError::new("open folder", at.as_path(), error)),
        }
    }
    Ok(())
}

fn make_folder(
    root: BorrowedFd<'_>,
    path: &TreePath,
    owner: Option<(u32, u32)>,
) -> Result<(), PathError> {
    let shown = path.as_path();
    let parent = open(root, &path.parent().unwrap_or_default(), OFlags::PATH | OFlags::DIRECTORY)
        .context("open folder", shown)?;
    let name = path.name().unwrap_or_default();
    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
        .context("create folder", shown)?;
    if let Some((uid, gid)) = owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .context("change the owner of", shown)?;
    }
    Ok(())
}

fn open(root: BorrowedFd<'_>, path: &TreePath, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(root, path.as_path(), flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT)
}

/// Opens the file at `path` for reading, if it is a regular one: reading a FIFO would wait, and
/// opening a device may have effects of its own.
pub(super) fn open_regular(root: BorrowedFd<'_>, path: &Path) -> Result<Option<File>, Errno> {
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
    let link = open(root, path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
    let target = rustix::fs::readlinkat(link.as_fd(), "", Vec::new()).ok()?;
    Some(target.into_bytes())
}
