//! Open directories below a root: those on the path of the last one stay open.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::pathio::{Context as _, PathError};
use crate::tree::TreePath;

/// Maximum number of descriptors that stay open. A deeper directory is opened in one call, relative to
/// the last of them.
const MAX_OPEN: usize = 48;

/// Opens directories by their real paths. A symbolic link in a path is an error (openat2(2),
/// `RESOLVE_NO_SYMLINKS`).
#[derive(Debug)]
pub(in crate::store) struct OpenDirectories<'a> {
    root: BorrowedFd<'a>,
    /// From the root down, each with its name in the one before.
    open: Vec<(Box<[u8]>, OwnedFd)>,
    /// A directory below the last of them.
    deep: Option<(TreePath, OwnedFd)>,
}

impl<'a> OpenDirectories<'a> {
    pub(in crate::store) const fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, open: Vec::new(), deep: None }
    }

    /// Returns the directory that all paths are relative to.
    pub(in crate::store) const fn root(&self) -> BorrowedFd<'a> {
        self.root
    }

    /// Returns the parent directory of `path`, and the last name of `path`.
    pub(in crate::store) fn parent<'p>(
        &mut self,
        path: &'p TreePath,
    ) -> Result<(BorrowedFd<'_>, &'p [u8]), PathError> {
        let bytes = path.as_bytes();
        let (parent, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => {
                let (parent, name) = bytes.split_at_checked(slash).unwrap_or((&[], bytes));
                (parent, name.strip_prefix(b"/").unwrap_or(name))
            }
            None => (&[][..], bytes),
        };
        Ok((self.open_bytes(parent)?, name))
    }

    /// Closes all directories, because one may have been replaced.
    pub(in crate::store) fn forget(&mut self) {
        self.open.clear();
        self.deep = None;
    }

    fn open_bytes(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, PathError> {
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let mut n_same = 0;
        let mut next = names.next();
        while let (Some((open, _)), Some(name)) = (self.open.get(n_same), next) {
            if **open != *name {
                break;
            }
            n_same += 1;
            next = names.next();
        }
        self.open.truncate(n_same);
        while let Some(name) = next {
            if self.open.len() >= MAX_OPEN {
                return self.open_deep(path);
            }
            let opened = open_below(self.last(), name)?;
            self.open.push((name.into(), opened));
            next = names.next();
        }
        Ok(self.last())
    }

    fn open_deep(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, PathError> {
        let path = TreePath::clean(path);
        if self.deep.as_ref().is_none_or(|(open, _)| *open != path) {
            let rest: Vec<&[u8]> = path.names().skip(MAX_OPEN).collect();
            let opened = open_below(self.last(), &rest.join(&b'/'))?;
            self.deep = Some((path, opened));
        }
        Ok(self.deep.as_ref().map_or(self.root, |(_, fd)| fd.as_fd()))
    }

    fn last(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root, |(_, fd)| fd.as_fd())
    }
}

fn open_below(directory: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, PathError> {
    rustix::fs::openat2(
        directory,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
    .context("open directory", TreePath::clean(path).as_path())
}
