//! Writes an image's file tree to a directory.
//!
//! The directory may contain anything, such as links that lead elsewhere. So every name is created
//! relative to an open descriptor of its directory, which was opened without following links. A
//! file in the way is removed, never written through.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File as OsFile;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::pathio::output::{open_subdirectory, open_tree};
use crate::pathio::{self, PathError};
use crate::tree::{Device, File, Meta, Node, TreePath};

use super::Result;
use super::error::{ExportWarning, SkippedFiles};
use super::rootfs::{Rootfs, RootfsEntry};

/// Permission bits and the sticky bit: they mean the same for every owner (inode(7)).
const MODE_WITHOUT_SET_ID: u32 = 0o1777;
/// The set-user-ID and set-group-ID bits.
const SET_ID: u32 = 0o6000;
/// Prefixes of attributes that the kernel interprets, such as file capabilities (xattr(7)).
const SYSTEM_ATTRIBUTES: [&[u8]; 2] = [b"security.", b"trusted."];

struct Writer<'a> {
    rootfs: &'a Rootfs<'a>,
    root: OwnedFd,
    root_path: &'a Path,
    keeps_special: bool,
    left_out: SkippedFiles,
    /// Omitted devices: hard links to them are omitted, too.
    skipped: BTreeSet<TreePath>,
    /// The open directories from the root down to the current one.
    open: Vec<OpenDirectory<'a>>,
    /// True if the process can change owners (chown(2)).
    may_chown: bool,
    lost_owners: bool,
    /// Names in each directory of the tree, if others are deleted.
    names: BTreeMap<TreePath, BTreeSet<Vec<u8>>>,
    warn: &'a mut dyn FnMut(ExportWarning),
}

/// A directory that is being filled. Its time and mode are set when it is complete.
struct OpenDirectory<'a> {
    path: TreePath,
    fd: OwnedFd,
    meta: &'a Meta,
}

/// The target directory, and options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) directory: &'a Path,
    /// Subdirectory for one of several platforms.
    pub(super) platform: Option<&'a str>,
    /// True if devices, set-user-ID bits and system attributes are kept: with them an image can act
    /// with the rights of the user who exports it.
    pub(super) keeps_special: bool,
    /// True if files that are not in the tree are removed.
    pub(super) deletes_others: bool,
}

impl Destination<'_> {
    fn path(&self) -> PathBuf {
        self.platform.map_or_else(|| self.directory.to_owned(), |name| self.directory.join(name))
    }

    fn open(&self) -> Result<OwnedFd> {
        let top = open_tree(self.directory)?;
        let path = self.path();
        let root = match self.platform {
            Some(name) => open_subdirectory(&top, name, &path)?,
            None => top,
        };
        // Other users get access when its final mode is set.
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(root, ".", flags, Mode::empty());
        Ok(root.map_err(|error| PathError::new("open directory", path, error))?)
    }
}

/// Writes the whole tree over existing files. Unrelated files stay, unless they are to be deleted.
pub(super) fn write(
    rootfs: &Rootfs<'_>,
    to: Destination<'_>,
    warn: &mut dyn FnMut(ExportWarning),
) -> Result<()> {
    let path = to.path();
    let mut writer = Writer {
        rootfs,
        root: to.open()?,
        root_path: &path,
        keeps_special: to.keeps_special,
        left_out: SkippedFiles::default(),
        skipped: BTreeSet::new(),
        open: Vec::new(),
        may_chown: rustix::process::geteuid().is_root(),
        lost_owners: false,
        names: BTreeMap::new(),
        warn,
    };
    if to.deletes_others {
        writer.names = rootfs.names();
        writer.delete_others(&TreePath::root())?;
    }
    for (path, found) in rootfs.entries() {
        writer.entry(path, &found)?;
    }
    writer.leave_until(None)?;
    if writer.lost_owners {
        (writer.warn)(ExportWarning::Owners);
    }
    if writer.left_out != SkippedFiles::default() {
        (writer.warn)(ExportWarning::LeftOut { directory: path.clone(), what: writer.left_out });
    }
    Ok(())
}

/// Removes everything in a directory but these names.
pub(super) fn delete_others(directory: &Path, names: &[&str]) -> Result<()> {
    let top = open_tree(directory)?;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(top, ".", flags, Mode::empty());
    let top = top.map_err(|error| PathError::new("open directory", directory, error))?;
    remove_others(top.as_fd(), |name| names.iter().any(|kept| kept.as_bytes() == name), directory)
}

/// Removes the entries of the directory `at` whose names are not kept.
fn remove_others(at: BorrowedFd<'_>, is_kept: impl Fn(&[u8]) -> bool, shown: &Path) -> Result<()> {
    let failed = |error| PathError::new("list", shown, error);
    let entries = rustix::fs::Dir::read_from(at).map_err(failed)?;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if ![b".".as_slice(), b".."].contains(&name) && !is_kept(name) {
            remove(at, name, &shown.join(OsStr::from_bytes(name)))?;
        }
    }
    Ok(())
}

/// Removes a file, or a directory with its content.
fn remove(at: BorrowedFd<'_>, name: &[u8], shown: &Path) -> Result<()> {
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            // Through the descriptor, so that no link in the path is followed.
            let here = format!("/proc/self/fd/{}", at.as_raw_fd());
            let name = TreePath::root().join(name);
            Ok(pathio::remove_dir_all(&Path::new(&here).join(name.as_path()))?)
        }
        Err(error) => Err(PathError::new("remove", shown, error).into()),
    }
}

impl<'a> Writer<'a> {
    fn entry(&mut self, path: TreePath, found: &RootfsEntry<'a>) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        self.leave_until(Some(&parent))?;
        match found {
            RootfsEntry::Directory(meta) => {
                let fd = self.directory(&path)?;
                self.open.push(OpenDirectory { path: path.clone(), fd, meta });
                self.delete_others(&path)
            }
            RootfsEntry::HardLink(target, _meta) if self.skipped.contains(target) => {
                self.left_out.devices += 1;
                Ok(())
            }
            RootfsEntry::HardLink(target, _meta) => self.hard_link(&path, target),
            RootfsEntry::Node(meta, Node::File(file)) => self.file(&path, meta, file),
            RootfsEntry::Node(meta, Node::Symlink(target)) => {
                let target: &[u8] = target;
                self.make(&path, "make the link", |at, name| {
                    rustix::fs::symlinkat(target, at, name)
                })?;
                self.set_owner_and_time(&path, meta).map(drop)
            }
            RootfsEntry::Node(meta, Node::CharDevice(device)) => {
                self.special(&path, meta, FileType::CharacterDevice, *device)
            }
            RootfsEntry::Node(meta, Node::BlockDevice(device)) => {
                self.special(&path, meta, FileType::BlockDevice, *device)
            }
            RootfsEntry::Node(meta, Node::Fifo) => {
                self.special(&path, meta, FileType::Fifo, Device { major: 0, minor: 0 })
            }
            RootfsEntry::Node(_, Node::Directory { .. }) => Ok(()),
        }
    }

    /// Returns the descriptor of the current directory.
    fn here(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root.as_fd(), |directory| directory.fd.as_fd())
    }

    fn failed(&self, verb: &'static str, path: &TreePath, error: Errno) -> PathError {
        PathError::new(verb, self.shown(path), error)
    }

    fn shown(&self, path: &TreePath) -> PathBuf {
        self.root_path.join(path.as_path())
    }

    /// Finishes the open directories that do not contain `directory`, or all of them for `None`.
    fn leave_until(&mut self, directory: Option<&TreePath>) -> Result<()> {
        while self.open.last().is_some_and(|open| Some(&open.path) != directory) {
            let Some(done) = self.open.pop() else { break };
            self.set_all(done.fd.as_fd(), &done.path, done.meta)?;
        }
        Ok(())
    }

    /// Creates a file at `path` with `make`, after removing anything in its way.
    fn make<T>(
        &self,
        path: &TreePath,
        verb: &'static str,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let name = path.name().unwrap_or_default();
        let made = match make(self.here(), name) {
            Err(Errno::EXIST) => {
                self.clear(path)?;
                make(self.here(), name)
            }
            other => other,
        };
        Ok(made.map_err(|error| self.failed(verb, path, error))?)
    }

    fn clear(&self, path: &TreePath) -> Result<()> {
        let name = path.name().unwrap_or_default();
        remove(self.here(), name, &self.shown(path))
    }

    /// Removes what is in the current directory, `directory`, and not in the tree.
    fn delete_others(&self, directory: &TreePath) -> Result<()> {
        if self.names.is_empty() {
            return Ok(());
        }
        let is_kept =
            |name: &[u8]| self.names.get(directory).is_some_and(|names| names.contains(name));
        remove_others(self.here(), is_kept, &self.shown(directory))
    }

    /// Creates and opens a directory, or opens the existing one.
    fn directory(&self, path: &TreePath) -> Result<OwnedFd> {
        let name = path.name().unwrap_or_default();
        let open = || {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::openat(self.here(), name, flags, Mode::empty())
        };
        // Other users get access when its final mode is set.
        let make = |at: BorrowedFd<'_>, name: &[u8]| {
            rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o700))
        };
        match make(self.here(), name) {
            Err(Errno::EXIST) => match open() {
                Err(Errno::NOTDIR | Errno::LOOP) => self.make(path, "create directory", make)?,
                other => return Ok(other.map_err(|e| self.failed("open directory", path, e))?),
            },
            other => other.map_err(|error| self.failed("create directory", path, error))?,
        }
        Ok(open().map_err(|error| self.failed("open directory", path, error))?)
    }

    fn file(&mut self, path: &TreePath, meta: &Meta, file: &File) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = self.make(path, "create", |at, name| {
            rustix::fs::openat(at, name, flags, Mode::from_raw_mode(0o600))
        })?;
        let made = OsFile::from(made);
        let copied = self.rootfs.copy(file, &made);
        copied.map_err(|error| PathError::new("write", self.shown(path), error))?;
        self.set_all(made.as_fd(), path, meta)
    }

    fn hard_link(&self, path: &TreePath, target: &TreePath) -> Result<()> {
        let directory = target.parent().unwrap_or_default();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let (root, mode) = (self.root.as_fd(), Mode::empty());
        let from = rustix::fs::openat2(root, directory.as_path(), flags, mode, resolve)
            .map_err(|error| self.failed("open directory", &directory, error))?;
        let from_name = target.name().unwrap_or_default();
        self.make(path, "make the hard link", |at, name| {
            rustix::fs::linkat(&from, from_name, at, name, AtFlags::empty())
        })
    }

    /// Creates a FIFO or a device. Devices only if allowed.
    fn special(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        kind: FileType,
        device: Device,
    ) -> Result<()> {
        if kind != FileType::Fifo && !self.keeps_special {
            self.left_out.devices += 1;
            self.skipped.insert(path.clone());
            return Ok(());
        }
        let number = rustix::fs::makedev(device.major, device.minor);
        let private = Mode::from_raw_mode(0o600);
        let made =
            self.make(path, "make the special file", |at, name| {
                match rustix::fs::mknodat(at, name, kind, private, number) {
                    Err(Errno::PERM | Errno::ACCESS) if kind != FileType::Fifo => Ok(false),
                    other => other.map(|()| true),
                }
            })?;
        if !made {
            (self.warn)(ExportWarning::Device { path: path.clone() });
            self.skipped.insert(path.clone());
            return Ok(());
        }
        let keeps_owner = self.set_owner_and_time(path, meta)?;
        let mode = self.mode_of(meta, keeps_owner);
        let name = path.name().unwrap_or_default();
        // It was created just now, so it is not a link.
        rustix::fs::chmodat(self.here(), name, mode, AtFlags::empty())
            .map_err(|error| self.failed("change the mode of", path, error))?;
        Ok(())
    }

    /// Sets owner and time of a file that cannot be opened. Returns whether the owner is correct.
    fn set_owner_and_time(&mut self, path: &TreePath, meta: &Meta) -> Result<bool> {
        let name = path.name().unwrap_or_default();
        let (user, group) = owner_of(meta);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let changed = self
            .may_chown
            .then(|| rustix::fs::chownat(self.here(), name, Some(user), Some(group), flags));
        let keeps_owner = self.kept_owner(path, meta, changed)?;
        rustix::fs::utimensat(self.here(), name, &times_of(meta), flags)
            .map_err(|error| self.failed("set the time of", path, error))?;
        Ok(keeps_owner)
    }

    /// Sets the owner first: chown(2) clears set-user-ID bits and file capabilities.
    fn set_all(&mut self, fd: BorrowedFd<'_>, path: &TreePath, meta: &Meta) -> Result<()> {
        let (user, group) = owner_of(meta);
        let changed = self.may_chown.then(|| rustix::fs::fchown(fd, Some(user), Some(group)));
        let keeps_owner = self.kept_owner(path, meta, changed)?;
        rustix::fs::fchmod(fd, self.mode_of(meta, keeps_owner))
            .map_err(|error| self.failed("change the mode of", path, error))?;
        for (name, value) in meta.xattrs() {
            if !self.keeps_special && SYSTEM_ATTRIBUTES.iter().any(|top| name.starts_with(top)) {
                self.left_out.attributes += 1;
                continue;
            }
            match rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    (self.warn)(ExportWarning::Attribute { path: path.clone(), name });
                }
                Err(error) => return Err(self.failed("set attributes of", path, error).into()),
            }
        }
        rustix::fs::futimens(fd, &times_of(meta))
            .map_err(|error| self.failed("set the time of", path, error))?;
        Ok(())
    }

    /// Returns the mode to set. Without the right owner, a set-user-ID program would run as another
    /// user.
    const fn mode_of(&mut self, meta: &Meta, keeps_owner: bool) -> Mode {
        let bits = if keeps_owner && self.keeps_special { 0o7777 } else { MODE_WITHOUT_SET_ID };
        if !self.keeps_special && meta.mode & SET_ID != 0 {
            self.left_out.set_ids += 1;
        }
        Mode::from_raw_mode(meta.mode & bits)
    }

    /// Returns whether a file has its owner after `changed`, the result of chown(2). `None` if that
    /// was not tried.
    fn kept_owner(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        changed: Option<rustix::io::Result<()>>,
    ) -> Result<bool> {
        match changed {
            Some(Ok(())) => Ok(true),
            // The user namespace does not map the ID (user_namespaces(7)).
            Some(Err(Errno::PERM | Errno::INVAL)) => {
                self.lost_owners = true;
                Ok(false)
            }
            Some(Err(error)) => Err(self.failed("change the owner of", path, error).into()),
            None => {
                let own = (rustix::process::geteuid(), rustix::process::getegid());
                Ok(own == owner_of(meta))
            }
        }
    }
}

fn owner_of(meta: &Meta) -> (Uid, Gid) {
    (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid))
}

const fn times_of(meta: &Meta) -> Timestamps {
    let time = Timespec { tv_sec: meta.mtime_s, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
