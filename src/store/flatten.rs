//! Several layers as one directory: overlayfs takes 500 lower directories (`OVL_MAX_STACK` in its
//! `super.c`), and a stage may have more layers.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::limits::MAX_DIRECTORY_DEPTH;
use crate::pathio::{self, Context as _, PathError};
use crate::tree::TreePath;

use super::layer_diff::{is_opaque, names, opaque_xattr, open_directory, read_xattrs};
use super::{LowerDirectory, Store, StoreError, WorkDirectory};

type Result<T> = std::result::Result<T, PathError>;

/// A directory that shows what several layers show on top of others.
#[derive(Debug)]
pub struct FlatDirectory {
    directory: LowerDirectory,
    _work: WorkDirectory,
}

impl FlatDirectory {
    /// The directory.
    #[must_use]
    pub const fn directory(&self) -> &LowerDirectory {
        &self.directory
    }
}

impl Store {
    /// Puts unpacked layers, base first, together into one directory, which hides of the layers below
    /// it what they hide. Its files are the layers' own, by hard links.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn flat_directory(
        &self,
        layers: &[LowerDirectory],
    ) -> std::result::Result<FlatDirectory, StoreError> {
        let work = self.work_directory()?;
        let directory = work.directory("fs")?;
        let opaque_xattr = opaque_xattr(self.user_namespace);
        for layer in layers {
            Flattening { opaque_xattr, open: Vec::new() }.add(layer.as_fd(), directory.as_fd())?;
        }
        Ok(FlatDirectory { directory: LowerDirectory::new(directory), _work: work })
    }
}

/// A directory of a layer that is being added, and what it becomes.
struct Open {
    at: TreePath,
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    /// Names that are still to be added.
    names: Vec<Vec<u8>>,
}

/// A layer that is being added to those below it. Directories on the way down are kept here rather
/// than on the thread's stack, which a step could overflow.
struct Flattening {
    opaque_xattr: &'static str,
    open: Vec<Open>,
}

impl Flattening {
    fn add(mut self, layer: BorrowedFd<'_>, into: BorrowedFd<'_>) -> Result<()> {
        let root = TreePath::root();
        let from = open_directory(layer, b".", &root)?;
        let to = open_directory(into, b".", &root)?;
        self.enter(root, from, to)?;
        while let Some(open) = self.open.last_mut() {
            let Some(name) = open.names.pop() else {
                if let Some(open) = self.open.pop() {
                    open.finish()?;
                }
                continue;
            };
            let path = open.at.join(&name);
            let stat = rustix::fs::statat(&open.from, &*name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.context("examine", path.as_path())?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if !kind.is_dir() {
                open.file(&name, &path, kind, &stat)?;
                continue;
            }
            let from = open_directory(open.from.as_fd(), &name, &path)?;
            let is_opaque = is_opaque(from.as_fd(), self.opaque_xattr, &path)?;
            let to = open.directory(&name, &path, is_opaque, self.opaque_xattr)?;
            self.enter(path, from, to)?;
        }
        Ok(())
    }

    fn enter(&mut self, at: TreePath, from: OwnedFd, to: OwnedFd) -> Result<()> {
        if self.open.len() > MAX_DIRECTORY_DEPTH {
            return Err(PathError::new("list", at.as_path(), Errno::NAMETOOLONG));
        }
        let stat = rustix::fs::fstat(&from).context("examine", at.as_path())?;
        let names = names(from.as_fd(), &at)?;
        self.open.push(Open { at, from, to, stat, names });
        Ok(())
    }
}

impl Open {
    /// Makes the directory that `name` becomes, unless it is there; opaque if it hides what layers
    /// below all those have.
    fn directory(
        &self,
        name: &[u8],
        path: &TreePath,
        is_opaque: bool,
        opaque_xattr: &str,
    ) -> Result<OwnedFd> {
        let found = self.found(name, path)?;
        let is_directory =
            found.is_some_and(|found| FileType::from_raw_mode(found.st_mode).is_dir());
        if is_directory && !is_opaque {
            return open_directory(self.to.as_fd(), name, path);
        }
        if found.is_some() {
            self.remove(name, is_directory)?;
        }
        rustix::fs::mkdirat(&self.to, name, Mode::RWXU)
            .context("create directory", path.as_path())?;
        let made = open_directory(self.to.as_fd(), name, path)?;
        if is_opaque || found.is_some() {
            rustix::fs::fsetxattr(&made, opaque_xattr, b"y", XattrFlags::empty())
                .context("make opaque", path.as_path())?;
        }
        Ok(made)
    }

    /// Puts a file, or the mark of a removal, in place of what is there.
    fn file(&self, name: &[u8], path: &TreePath, kind: FileType, stat: &Stat) -> Result<()> {
        if let Some(found) = self.found(name, path)? {
            self.remove(name, FileType::from_raw_mode(found.st_mode).is_dir())?;
        }
        // The kernel gives many marks one inode, which may have as many names as it can.
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            let made = rustix::fs::mknodat(&self.to, name, kind, Mode::empty(), 0);
            return made.context("make a whiteout at", path.as_path());
        }
        let linked = rustix::fs::linkat(&self.from, name, &self.to, name, AtFlags::empty());
        linked.context("link", path.as_path())
    }

    fn found(&self, name: &[u8], path: &TreePath) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.to, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(Some).context("examine", path.as_path()),
        }
    }

    fn remove(&self, name: &[u8], is_directory: bool) -> Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        let name = std::ffi::OsStr::from_bytes(name);
        let path = Path::new(&format!("/proc/self/fd/{}", self.to.as_raw_fd())).join(name);
        if is_directory { pathio::remove_dir_all(&path) } else { pathio::remove_file(&path) }
    }

    /// Gives the directory the properties that it has in the layer.
    fn finish(self) -> Result<()> {
        let path = self.at.as_path();
        let wanted = read_xattrs(self.from.as_fd(), &self.at)?;
        for name in read_xattrs(self.to.as_fd(), &self.at)?.into_keys() {
            if !wanted.contains_key(&name) {
                rustix::fs::fremovexattr(&self.to, &*name)
                    .context("remove an extended attribute of", path)?;
            }
        }
        let (uid, gid) = (Uid::from_raw(self.stat.st_uid), Gid::from_raw(self.stat.st_gid));
        rustix::fs::fchown(&self.to, Some(uid), Some(gid)).context("change the owner of", path)?;
        rustix::fs::fchmod(&self.to, Mode::from_raw_mode(self.stat.st_mode & 0o7777))
            .context("change the mode of", path)?;
        for (name, value) in &wanted {
            rustix::fs::fsetxattr(&self.to, &**name, value, XattrFlags::empty())
                .context("set an extended attribute of", path)?;
        }
        let time = |tv_sec, tv_nsec: u64| Timespec {
            tv_sec,
            tv_nsec: i64::try_from(tv_nsec).unwrap_or(0),
        };
        let times = Timestamps {
            last_access: time(self.stat.st_atime, self.stat.st_atime_nsec),
            last_modification: time(self.stat.st_mtime, self.stat.st_mtime_nsec),
        };
        rustix::fs::futimens(&self.to, &times).context("set the time of", path)
    }
}
