//! Several layers merged into one directory of hard links: overlayfs accepts 500 lower directories
//! (`OVL_MAX_STACK` in fs/overlayfs of the kernel), and a stage may have more layers.

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

/// A directory that has the same effect in an overlay as several layers.
#[derive(Debug)]
pub struct FlatDirectory {
    directory: LowerDirectory,
    _work: WorkDirectory,
}

impl FlatDirectory {
    /// Returns the directory, to be mounted in place of the layers.
    #[must_use]
    pub const fn directory(&self) -> &LowerDirectory {
        &self.directory
    }
}

/// Implements [`Store::flat_directory`].
pub(super) fn merge(
    store: &Store,
    layers: &[LowerDirectory],
) -> std::result::Result<FlatDirectory, StoreError> {
    let work = store.work_directory()?;
    let directory = work.directory("fs")?;
    let opaque_xattr = opaque_xattr(store.user_namespace);
    for layer in layers {
        LayerMerge { opaque_xattr, open: Vec::new() }.run(layer.as_fd(), directory.as_fd())?;
    }
    Ok(FlatDirectory { directory: LowerDirectory::new(directory), _work: work })
}

/// A directory of the layer that is being merged, and its counterpart in the result.
struct MergedDirectory {
    at: TreePath,
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    /// Names that remain to be merged.
    names: Vec<Vec<u8>>,
}

/// Merges one layer into the result. Parent directories are kept here and not on the thread's stack,
/// which deeply nested directories could overflow.
struct LayerMerge {
    opaque_xattr: &'static str,
    open: Vec<MergedDirectory>,
}

impl LayerMerge {
    fn run(mut self, layer: BorrowedFd<'_>, into: BorrowedFd<'_>) -> Result<()> {
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
        self.open.push(MergedDirectory { at, from, to, stat, names });
        Ok(())
    }
}

impl MergedDirectory {
    /// Opens the counterpart of the directory `name`, and creates it if needed. It is opaque if it hides
    /// files of the layers below all merged ones.
    fn directory(
        &self,
        name: &[u8],
        path: &TreePath,
        is_opaque: bool,
        opaque_xattr: &str,
    ) -> Result<OwnedFd> {
        let found = self.stat(name, path)?;
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

    /// Links a file, or creates a whiteout, in place of an existing entry.
    fn file(&self, name: &[u8], path: &TreePath, kind: FileType, stat: &Stat) -> Result<()> {
        if let Some(found) = self.stat(name, path)? {
            self.remove(name, FileType::from_raw_mode(found.st_mode).is_dir())?;
        }
        // Not linked: overlayfs shares one inode among whiteouts since Linux 5.8, which may have
        // reached the maximum number of links.
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            let made = rustix::fs::mknodat(&self.to, name, kind, Mode::empty(), 0);
            return made.context("create a whiteout at", path.as_path());
        }
        let linked = rustix::fs::linkat(&self.from, name, &self.to, name, AtFlags::empty());
        linked.context("link", path.as_path())
    }

    fn stat(&self, name: &[u8], path: &TreePath) -> Result<Option<Stat>> {
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

    /// Sets owner, mode, attributes and times of the directory to those in the layer.
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
