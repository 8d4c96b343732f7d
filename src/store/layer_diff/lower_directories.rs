//! One directory in all lower layers that have it, looked up from the top as overlayfs does
//! (<https://docs.kernel.org/filesystems/overlayfs.html#multiple-lower-layers>).

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use crate::pathio::{Context as _, PathError};
use crate::tree::TreePath;

use super::{is_opaque, names, open_directory};

/// The lower versions of a directory, top first; empty for a new directory.
pub(super) struct LowerDirectories {
    directories: Vec<(OwnedFd, Stat)>,
    opaque_xattr: &'static str,
}

/// The visible entry of the lower layers at one name.
pub(super) struct LowerEntry<'a> {
    /// The directory that contains it.
    pub(super) directory: BorrowedFd<'a>,
    pub(super) stat: Stat,
    /// Position of that directory in [`LowerDirectories`].
    at: usize,
}

impl LowerDirectories {
    /// Returns the root directory in all layers, which are given base first.
    pub(super) fn roots(
        lowers: &[BorrowedFd<'_>],
        opaque_xattr: &'static str,
    ) -> Result<Self, PathError> {
        let root = TreePath::root();
        let mut directories = Vec::with_capacity(lowers.len());
        for lower in lowers.iter().rev() {
            let opened = open_directory(*lower, b".", &root)?;
            let stat = rustix::fs::fstat(&opened).context("look at", root.as_path())?;
            directories.push((opened, stat));
        }
        Ok(Self { directories, opaque_xattr })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// Returns the directory in the topmost layer that has it.
    pub(super) fn top(&self) -> Option<(BorrowedFd<'_>, &Stat)> {
        self.directories.first().map(|(fd, stat)| (fd.as_fd(), stat))
    }

    /// Returns the entry `name` that the lower layers together show; `None` if it does not exist or is
    /// hidden by a whiteout.
    pub(super) fn find(
        &self,
        name: &[u8],
        path: &TreePath,
    ) -> Result<Option<LowerEntry<'_>>, PathError> {
        for (at, (directory, _)) in self.directories.iter().enumerate() {
            if let Some(stat) = stat_of(directory, name, path)? {
                let directory = directory.as_fd();
                return Ok((!is_whiteout(&stat)).then_some(LowerEntry { directory, stat, at }));
            }
        }
        Ok(None)
    }

    /// Returns the lower versions of the directory `name`; empty if the visible entry is not a directory.
    pub(super) fn descend(&self, name: &[u8], path: &TreePath) -> Result<Self, PathError> {
        let mut below = Self { directories: Vec::new(), opaque_xattr: self.opaque_xattr };
        let Some(top) = self.find(name, path)? else { return Ok(below) };
        for (directory, _) in self.directories.iter().skip(top.at) {
            let Some(stat) = stat_of(directory, name, path)? else { continue };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                break;
            }
            let opened = open_directory(directory.as_fd(), name, path)?;
            let hides_rest = is_opaque(opened.as_fd(), self.opaque_xattr, path)?;
            below.directories.push((opened, stat));
            if hides_rest {
                break;
            }
        }
        Ok(below)
    }

    /// Returns the visible names in the directory, sorted.
    pub(super) fn names(&self, at: &TreePath) -> Result<Vec<Vec<u8>>, PathError> {
        let mut all = Vec::new();
        for (directory, _) in &self.directories {
            // Reopened: the offset of the kept descriptor may not be at the beginning (getdents64(2)).
            let again = open_directory(directory.as_fd(), b".", at)?;
            all.extend(names(again.as_fd(), at)?);
        }
        all.sort_unstable();
        all.dedup();
        let mut visible = Vec::with_capacity(all.len());
        for name in all {
            if self.find(&name, at)?.is_some() {
                visible.push(name);
            }
        }
        Ok(visible)
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn stat_of(directory: &OwnedFd, name: &[u8], path: &TreePath) -> Result<Option<Stat>, PathError> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        stat => stat.map(Some).context("look at", path.as_path()),
    }
}
