//! Creates the files of a root directory, each with its owner, mode, attributes and time.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::pathio::{self, Context as _, PathError, ids};
use crate::sandbox::{Attributes, FileId};
use crate::store::StoreError;
use crate::store::free_space::SpaceGuard;
use crate::store::unpack::open_directories::OpenDirectories;
use crate::tree::{CAPABILITY_XATTR, Device, File, Leaf, Meta, Node, TreePath};

use super::contents::LayerContents;

type Result<T> = std::result::Result<T, StoreError>;

/// Rights of this process that decide how files are created.
#[derive(Debug, Clone, Copy)]
pub(super) struct MakerRights {
    /// True if owners, set-id bits, devices and privileged attributes are emulated.
    pub(super) emulates: bool,
    /// True if devices can be created. If not, each is an empty file, and only the listing has it.
    pub(super) devices: bool,
}

/// The attributes of a new file that the disk does not hold; `None` if it holds all of them.
pub(super) type NewAttributes = (FileId, Option<Attributes>);

/// Creates files below a directory.
pub(super) struct FileMaker<'a> {
    rights: MakerRights,
    contents: &'a LayerContents<'a>,
    directories: OpenDirectories<'a>,
    space: SpaceGuard,
    buffer: Vec<u8>,
    /// Attributes of the files that were created.
    pub(super) made: Vec<NewAttributes>,
}

impl<'a> FileMaker<'a> {
    pub(super) fn new(
        root: BorrowedFd<'a>,
        contents: &'a LayerContents<'a>,
        rights: MakerRights,
    ) -> Self {
        let directories = OpenDirectories::new(root);
        let (space, buffer, made) = (SpaceGuard::default(), Vec::new(), Vec::new());
        Self { rights, contents, directories, space, buffer, made }
    }

    /// Removes what is at `path`, if anything is.
    pub(super) fn remove(&mut self, path: &TreePath) -> Result<()> {
        self.directories.forget();
        let (directory, name) = self.directories.parent(path)?;
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // EPERM is POSIX's error for a directory.
            Err(Errno::ISDIR | Errno::PERM) => {
                // Through the descriptor, so that no link is followed; the last name never is.
                let mut at = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
                at.push(std::ffi::OsStr::from_bytes(name));
                Ok(pathio::remove_tree(&at)?)
            }
            Err(errno) => Err(PathError::new("remove", path.as_path(), errno).into()),
        }
    }

    /// Creates a directory with mode 0700; [`Self::finish_directory`] sets its properties.
    pub(super) fn directory(&mut self, path: &TreePath) -> Result<()> {
        self.need(0)?;
        self.make(path, &|directory, name| rustix::fs::mkdirat(directory, name, Mode::RWXU))
    }

    /// Creates a file that is not a directory.
    pub(super) fn leaf(&mut self, path: &TreePath, leaf: &Leaf) -> Result<()> {
        let meta = leaf.meta();
        match leaf.node() {
            Node::File(file) => {
                self.need(file.size)?;
                let out = self.create(path)?;
                self.contents.copy(file, path, &out, &mut self.buffer)?;
                self.finish(path, out.as_fd(), meta, FileType::RegularFile, 0)
            }
            Node::Symlink(target) => {
                let link =
                    |at: BorrowedFd<'_>, name: &[u8]| rustix::fs::symlinkat(&**target, at, name);
                self.make(path, &link)?;
                self.finish_unopened(path, meta, FileType::Symlink)
            }
            Node::CharDevice(device) => self.device(path, meta, FileType::CharacterDevice, *device),
            Node::BlockDevice(device) => self.device(path, meta, FileType::BlockDevice, *device),
            Node::Fifo | Node::Directory { .. } => {
                self.node(path, FileType::Fifo, 0)?;
                self.finish_unopened(path, meta, FileType::Fifo)
            }
        }
    }

    /// Creates a regular file with the content of `source`.
    pub(super) fn streamed(
        &mut self,
        path: &TreePath,
        (meta, file): (&Meta, &File),
        source: &mut dyn Read,
    ) -> Result<()> {
        self.need(file.size)?;
        let out = self.create(path)?;
        self.contents.copy_stream((file, path), source, &out, &mut self.buffer)?;
        self.finish(path, out.as_fd(), meta, FileType::RegularFile, 0)
    }

    fn device(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        kind: FileType,
        device: Device,
    ) -> Result<()> {
        let number = rustix::fs::makedev(device.major, device.minor);
        if self.rights.devices && !self.rights.emulates {
            match self.node(path, kind, number) {
                // A container may run root without CAP_MKNOD (capabilities(7)).
                Err(StoreError::Io(error)) if error.kind() == ErrorKind::PermissionDenied => {}
                made => return made.and_then(|()| self.finish_unopened(path, meta, kind)),
            }
        }
        let stand_in = self.create(path)?;
        let kind = if self.rights.emulates { kind } else { FileType::RegularFile };
        self.finish(path, stand_in.as_fd(), meta, kind, number)
    }

    fn node(&mut self, path: &TreePath, kind: FileType, number: u64) -> Result<()> {
        self.need(0)?;
        self.make(path, &|directory, name| {
            rustix::fs::mknodat(directory, name, kind, Mode::RUSR | Mode::WUSR, number)
        })
    }

    /// Creates another name for the file at `target`.
    pub(super) fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let (from, from_name) = self.directories.parent(target)?;
        let from = from.try_clone_to_owned().context("open", target.as_path())?;
        self.make(path, &|directory, name| {
            rustix::fs::linkat(from.as_fd(), from_name, directory, name, AtFlags::empty())
        })
    }

    /// Sets the properties of a directory; no more entries are created in it.
    pub(super) fn finish_directory(&mut self, path: &TreePath, meta: &Meta) -> Result<()> {
        let (parent, name) = self.directories.parent(path)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(parent, name, flags, Mode::empty());
        let opened = opened.context("open", path.as_path())?;
        self.finish(path, opened.as_fd(), meta, FileType::Directory, 0)
    }

    fn create(&mut self, path: &TreePath) -> Result<fs::File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        self.make(path, &|directory, name| {
            rustix::fs::openat(directory, name, flags, mode).map(fs::File::from)
        })
    }

    /// Calls `make`, again if something was at `path` that no layer has, such as a socket.
    fn make<T>(
        &mut self,
        path: &TreePath,
        make: &dyn Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let (directory, name) = self.directories.parent(path)?;
        let made = match make(directory, name) {
            Err(Errno::EXIST) => {
                self.remove(path)?;
                let (directory, name) = self.directories.parent(path)?;
                make(directory, name)
            }
            made => made,
        };
        Ok(made.context("create", path.as_path())?)
    }

    fn need(&mut self, n_bytes: u64) -> Result<()> {
        let root = self.directories.root();
        let checked = self.space.need(root, n_bytes).context("examine", ".".as_ref())?;
        Ok(checked?)
    }

    /// Sets owner, mode, attributes and time, in this order: chown(2) clears set-user-ID bits and
    /// capabilities.
    fn finish(
        &mut self,
        path: &TreePath,
        file: BorrowedFd<'_>,
        meta: &Meta,
        kind: FileType,
        device: u64,
    ) -> Result<()> {
        if !self.rights.emulates {
            let (uid, gid) = owner(meta);
            rustix::fs::fchown(file, Some(uid), Some(gid))
                .map_err(|errno| ids::explained(errno, uid, gid))
                .context("chown", path.as_path())?;
        }
        let mode = Mode::from_raw_mode(self.mode_on_disk(meta, kind));
        rustix::fs::fchmod(file, mode).context("chmod", path.as_path())?;
        let mut emulated = Vec::new();
        for (name, value) in meta.xattrs() {
            if self.rights.emulates && name == CAPABILITY_XATTR {
                emulated.push((name.to_vec(), value.to_vec()));
                continue;
            }
            match rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()) {
                Err(Errno::NOTSUP | Errno::PERM | Errno::NOSPC) if self.rights.emulates => {
                    emulated.push((name.to_vec(), value.to_vec()));
                }
                // The listing has the attribute even if the file system does not store it.
                Err(Errno::NOTSUP | Errno::PERM | Errno::NOSPC) if name != CAPABILITY_XATTR => {}
                set => set.context("set an extended attribute of", path.as_path())?,
            }
        }
        rustix::fs::futimens(file, &times(meta)).context("set the time of", path.as_path())?;
        if self.rights.emulates {
            let stat = rustix::fs::fstat(file).context("look at", path.as_path())?;
            let attributes = self.emulated(&stat, meta, kind, device, emulated);
            self.made.push((FileId::of(&stat), attributes));
        }
        Ok(())
    }

    /// Sets the properties of a file that cannot be opened, such as a symbolic link.
    fn finish_unopened(&mut self, path: &TreePath, meta: &Meta, kind: FileType) -> Result<()> {
        let mode = Mode::from_raw_mode(self.mode_on_disk(meta, kind));
        let emulates = self.rights.emulates;
        let (directory, name) = self.directories.parent(path)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if !emulates {
            let (uid, gid) = owner(meta);
            rustix::fs::chownat(directory, name, Some(uid), Some(gid), flags)
                .map_err(|errno| ids::explained(errno, uid, gid))
                .context("chown", path.as_path())?;
        }
        if kind != FileType::Symlink {
            // fchmodat(2) follows links. This is none: it was just created where no other process
            // writes.
            rustix::fs::chmodat(directory, name, mode, AtFlags::empty())
                .context("change the mode of", path.as_path())?;
        }
        rustix::fs::utimensat(directory, name, &times(meta), flags)
            .context("set the time of", path.as_path())?;
        if emulates {
            let stat = rustix::fs::statat(directory, name, flags);
            let stat = stat.context("look at", path.as_path())?;
            let attributes = self.emulated(&stat, meta, kind, 0, Vec::new());
            self.made.push((FileId::of(&stat), attributes));
        }
        Ok(())
    }

    /// Returns the permissions on the disk. Where owners are emulated, the owner of all files can
    /// always read and write them, and no program gets other rights by set-id bits.
    fn mode_on_disk(&self, meta: &Meta, kind: FileType) -> u32 {
        if !self.rights.emulates {
            return meta.mode;
        }
        let own = if kind == FileType::Directory { Mode::RWXU } else { Mode::RUSR | Mode::WUSR };
        let set_ids = Mode::SUID | Mode::SGID;
        meta.mode & !set_ids.bits() | own.bits()
    }

    /// Returns the attributes that the disk does not hold.
    fn emulated(
        &self,
        stat: &rustix::fs::Stat,
        meta: &Meta,
        kind: FileType,
        device: u64,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Option<Attributes> {
        let on_disk = Attributes::on_disk(stat);
        // A symbolic link has all permissions (symlink(7)).
        let mode =
            if kind == FileType::Symlink { stat.st_mode } else { kind.as_raw_mode() | meta.mode };
        let xattrs = xattrs.into_iter().collect();
        let device = if device == 0 { stat.st_rdev } else { device };
        let wanted = Attributes { uid: meta.uid, gid: meta.gid, mode, device, xattrs };
        (wanted != on_disk).then_some(wanted)
    }
}

fn owner(meta: &Meta) -> (Uid, Gid) {
    (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid))
}

fn times(meta: &Meta) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: meta.mtime_s, tv_nsec: 0 },
    }
}
