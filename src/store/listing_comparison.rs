//! Compares an unpacked layer with its listing.
//!
//! Names are looked up relative to directory descriptors that were opened without following symbolic
//! links, so links in an image cannot lead out of the layer.

use std::fs::File as OsFile;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::archive::HashingReader;
use crate::pathio::{Context as _, PathError};
use crate::tree::{
    CAPABILITY_XATTR, ContentHash, Device, Entry, File, LayerEntries, LayerItem, Meta, Node,
    TreePath, Xattrs,
};

use super::layer_diff::read_xattrs;
use super::unpack::open_directories::OpenDirectories;

type Result<T> = std::result::Result<T, PathError>;

/// Attributes of opaque directories; the second with the mount option `userxattr`
/// (<https://docs.kernel.org/filesystems/overlayfs.html#user-xattr>).
const OPAQUE_XATTRS: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];
/// Times, seconds since 1970, that every file system stores unchanged: ext4 with 128-byte inodes has
/// signed 32-bit times (<https://docs.kernel.org/filesystems/ext4/inodes.html>).
const PORTABLE_TIMES: std::ops::RangeInclusive<i64> = 0..=2_147_483_647;

/// Permitted differences between an unpacked layer and its listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ComparisonRules {
    /// True to compare contents and extended attributes of files.
    pub(super) contents: bool,
    /// True if the directory must not have more entries than the listing. The upper directory of a RUN
    /// may have more: unchanged files that were copied up.
    pub(super) is_exact: bool,
    /// True if the directory was adapted to the layers below it.
    pub(super) is_fitted: bool,
    /// True if devices were created; in a user namespace there are empty files in their place.
    pub(super) devices: bool,
}

/// Called with each difference; ends the comparison with [`ControlFlow::Break`].
pub(super) type OnDifference<'a> = dyn FnMut(&TreePath, &str) -> ControlFlow<()> + 'a;

/// A directory of the listing that contains the last entry.
struct ListedDirectory {
    path: TreePath,
    n_entries: usize,
    /// True if it is marked opaque; `None` if that was not read yet.
    is_opaque: Option<bool>,
}

impl ListedDirectory {
    const fn new(path: TreePath) -> Self {
        Self { path, n_entries: 0, is_opaque: None }
    }
}

struct ListingComparison<'a, 'r> {
    rules: ComparisonRules,
    directories: OpenDirectories<'a>,
    open: Vec<ListedDirectory>,
    report: &'r mut OnDifference<'r>,
    n_files: u64,
}

/// Reports differences between a listing and a directory; returns the number of compared entries.
///
/// # Errors
/// [`PathError`] if a directory or file cannot be examined.
pub(super) fn compare<'r>(
    listing: &dyn LayerEntries,
    directory: BorrowedFd<'_>,
    rules: ComparisonRules,
    report: &'r mut OnDifference<'r>,
) -> Result<u64> {
    let root = ListedDirectory::new(TreePath::root());
    let directories = OpenDirectories::new(directory);
    let mut comparison =
        ListingComparison { rules, directories, open: vec![root], report, n_files: 0 };
    for entry in listing.stream() {
        if entry.path.is_root() {
            continue;
        }
        if comparison.enter_parents(&entry.path)?.is_break() || comparison.entry(&entry)?.is_break()
        {
            return Ok(comparison.n_files);
        }
    }
    let _ended = comparison.leave_until(None)?;
    Ok(comparison.n_files)
}

impl ListingComparison<'_, '_> {
    /// Leaves directories that do not contain `path`, and enters its parent directories.
    fn enter_parents(&mut self, path: &TreePath) -> Result<ControlFlow<()>> {
        if self.leave_until(Some(path))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let mut at = self.open.last().map_or_else(TreePath::root, |open| open.path.clone());
        let rest = path.parent().unwrap_or_default().below(&at).unwrap_or_default();
        for name in rest.names() {
            at = at.join(name);
            self.count();
            self.open.push(ListedDirectory::new(at.clone()));
        }
        self.count();
        Ok(ControlFlow::Continue(()))
    }

    fn count(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.n_entries += 1;
        }
    }

    /// Leaves directories that do not contain `path`, or all if there is none.
    fn leave_until(&mut self, path: Option<&TreePath>) -> Result<ControlFlow<()>> {
        let is_above = |open: &ListedDirectory| {
            open.path.is_root() || path.is_some_and(|path| path.below(&open.path).is_some())
        };
        while self.open.len() > usize::from(path.is_some())
            && self.open.last().is_some_and(|open| path.is_none() || !is_above(open))
        {
            let Some(open) = self.open.pop() else { break };
            if self.rules.is_exact && !self.rules.is_fitted && self.compare_count(&open)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Compares the number of entries of a directory, whose listed entries have been looked up.
    fn compare_count(&mut self, open: &ListedDirectory) -> Result<ControlFlow<()>> {
        let Some(opened) = self.directory(&open.path)? else {
            return Ok(ControlFlow::Continue(()));
        };
        let directory = Dir::new(opened);
        let mut n_entries = 0_usize;
        for entry in directory.context("list", open.path.as_path())? {
            let entry = entry.context("list", open.path.as_path())?;
            n_entries += usize::from(!matches!(entry.file_name().to_bytes(), b"." | b".."));
        }
        // Missing entries were reported one by one.
        if n_entries <= open.n_entries {
            return Ok(ControlFlow::Continue(()));
        }
        let want = open.n_entries;
        Ok((self.report)(&open.path, &format!("it has {n_entries} entries instead of {want}")))
    }

    /// Opens a directory of the layer; `None` if it is missing, which is reported for its own entry.
    fn directory(&mut self, path: &TreePath) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = if path.is_root() {
            rustix::fs::openat(self.directories.root(), ".", flags, Mode::empty())
        } else {
            let Some((parent, name)) = self.parent(path)? else { return Ok(None) };
            rustix::fs::openat(parent, name, flags, Mode::empty())
        };
        match opened {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            opened => Ok(Some(opened.context("open directory", path.as_path())?)),
        }
    }

    /// Returns whether one of the open directories is opaque: a RUN that removes a directory and creates
    /// it again leaves an opaque directory, for which the listing has whiteouts.
    fn is_below_opaque(&mut self) -> Result<bool> {
        for number in (0..self.open.len()).rev() {
            let Some(open) = self.open.get(number) else { break };
            let is_opaque = match open.is_opaque {
                Some(is_opaque) => is_opaque,
                None => {
                    let opened = self.directory(&open.path.clone())?;
                    opened.is_some_and(|opened| is_marked_opaque(&opened))
                }
            };
            if let Some(open) = self.open.get_mut(number) {
                open.is_opaque = Some(is_opaque);
            }
            if is_opaque {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the parent directory of `path` and the last name of `path`; `None` if the directory is
    /// missing.
    fn parent<'p>(&mut self, path: &'p TreePath) -> Result<Option<(BorrowedFd<'_>, &'p [u8])>> {
        match self.directories.parent(path) {
            Ok(found) => Ok(Some(found)),
            Err(error) => {
                let cause = std::error::Error::source(&error);
                let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
                match cause.and_then(Errno::from_io_error) {
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                    _other => Err(error),
                }
            }
        }
    }

    fn stat(&mut self, path: &TreePath) -> Result<Option<Stat>> {
        let Some((parent, name)) = self.parent(path)? else { return Ok(None) };
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(PathError::new("examine", path.as_path(), error)),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<ControlFlow<()>> {
        let path = &entry.path;
        if entry.item.is_directory() || entry.item == LayerItem::Opaque {
            self.open.push(ListedDirectory::new(path.clone()));
        }
        self.n_files += 1;
        let is_optional = matches!(entry.item, LayerItem::Whiteout | LayerItem::Opaque);
        let Some(stat) = self.stat(path)? else {
            if is_optional && (self.rules.is_fitted || self.is_below_opaque()?) {
                return Ok(ControlFlow::Continue(()));
            }
            return Ok((self.report)(path, "it is missing"));
        };
        let difference = match &entry.item {
            LayerItem::Whiteout => (!is_device(&stat, FileType::CharacterDevice, (0, 0)))
                .then(|| "it is not a whiteout".to_owned()),
            LayerItem::Opaque => (!is_kind(&stat, FileType::Directory)).then(other_file_type),
            LayerItem::HardLink(target) => self.hard_link(&stat, target)?,
            LayerItem::Node(meta, node) => self.node(path, &stat, meta, node)?,
        };
        Ok(difference.map_or(ControlFlow::Continue(()), |text| (self.report)(path, &text)))
    }

    fn hard_link(&mut self, stat: &Stat, target: &TreePath) -> Result<Option<String>> {
        // A missing target is reported for its own entry.
        let Some(first) = self.stat(target)? else { return Ok(None) };
        let is_same = (first.st_dev, first.st_ino) == (stat.st_dev, stat.st_ino);
        Ok((!is_same).then(|| format!("it is not a hard link to {target}")))
    }

    fn node(
        &mut self,
        path: &TreePath,
        stat: &Stat,
        meta: &Meta,
        node: &Node,
    ) -> Result<Option<String>> {
        let is_kind = match node {
            Node::Directory { .. } => is_kind(stat, FileType::Directory),
            Node::File(_) => is_kind(stat, FileType::RegularFile),
            Node::Symlink(_) => is_kind(stat, FileType::Symlink),
            Node::CharDevice(device) => self.device(stat, FileType::CharacterDevice, *device),
            Node::BlockDevice(device) => self.device(stat, FileType::BlockDevice, *device),
            Node::Fifo => is_kind(stat, FileType::Fifo),
        };
        if !is_kind {
            return Ok(Some(other_file_type()));
        }
        if let Some(text) = self.meta(stat, meta, node) {
            return Ok(Some(text));
        }
        match node {
            Node::File(file) => self.file(path, stat, meta, file),
            Node::Symlink(target) => self.symlink(path, target),
            Node::Directory { .. } | Node::CharDevice(_) | Node::BlockDevice(_) | Node::Fifo => {
                Ok(None)
            }
        }
    }

    fn device(&self, stat: &Stat, kind: FileType, device: Device) -> bool {
        if self.rules.devices {
            return is_device(stat, kind, (device.major, device.minor));
        }
        is_kind(stat, FileType::RegularFile) && stat.st_size == 0
    }

    fn meta(&self, stat: &Stat, meta: &Meta, node: &Node) -> Option<String> {
        let mode = stat.st_mode & 0o7777;
        // Every symbolic link has the mode 0777 (symlink(7)).
        if mode != meta.mode & 0o7777 && !matches!(node, Node::Symlink(_)) {
            return Some(format!("its mode is {mode:04o} instead of {:04o}", meta.mode & 0o7777));
        }
        if (stat.st_uid, stat.st_gid) != (meta.uid, meta.gid) {
            let (uid, gid) = (stat.st_uid, stat.st_gid);
            return Some(format!("its owner is {uid}:{gid} instead of {}:{}", meta.uid, meta.gid));
        }
        let is_changed = self.rules.is_fitted && matches!(node, Node::Directory { .. });
        let is_compared = PORTABLE_TIMES.contains(&meta.mtime_s) && !is_changed;
        (is_compared && stat.st_mtime != meta.mtime_s).then(|| {
            format!("its modification time is {} instead of {}", stat.st_mtime, meta.mtime_s)
        })
    }

    fn file(
        &mut self,
        path: &TreePath,
        stat: &Stat,
        meta: &Meta,
        file: &File,
    ) -> Result<Option<String>> {
        if u64::try_from(stat.st_size) != Ok(file.size) {
            return Ok(Some(format!("it has {} bytes instead of {}", stat.st_size, file.size)));
        }
        if !self.rules.contents {
            return Ok(None);
        }
        let Some((parent, name)) = self.parent(path)? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(parent, name, flags, Mode::empty());
        let opened = OsFile::from(opened.context("open", path.as_path())?);
        let xattrs = read_xattrs(opened.as_fd(), path)?;
        Ok(match content_of(opened) {
            Ok(content) if content == file.content => self.xattrs(&xattrs, meta),
            Ok(_other) => Some("its content has changed".to_owned()),
            // An unreadable file counts as damaged: the layer may have another representation.
            Err(error) => Some(format!("it cannot be read: {error}")),
        })
    }

    fn xattrs(&self, got: &Xattrs, meta: &Meta) -> Option<String> {
        // File systems without extended attributes keep none; capabilities are required outside of a
        // user namespace, where unpacking fails without them.
        let may_lack =
            !self.rules.devices || meta.xattrs().all(|(name, _)| name != CAPABILITY_XATTR);
        let is_same = got.iter().map(|(name, value)| (&**name, &**value)).eq(meta.xattrs());
        if is_same || got.is_empty() && may_lack {
            return None;
        }
        Some("its extended attributes have changed".to_owned())
    }

    fn symlink(&mut self, path: &TreePath, want: &[u8]) -> Result<Option<String>> {
        let Some((parent, name)) = self.parent(path)? else { return Ok(None) };
        let target = rustix::fs::readlinkat(parent, name, Vec::new());
        let target = target.context("read link", path.as_path())?;
        Ok((target.as_bytes() != want).then(|| "its target has changed".to_owned()))
    }
}

/// Reads `source` to its end; returns the hash of its content.
pub(super) fn content_of(source: impl Read) -> io::Result<ContentHash> {
    let mut source = HashingReader::new(source);
    let mut buffer = vec![0; 256 << 10];
    while source.read(&mut buffer)? > 0 {}
    Ok(source.hash())
}

fn is_marked_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 1];
    OPAQUE_XATTRS
        .iter()
        .any(|name| rustix::fs::fgetxattr(directory, *name, &mut value) == Ok(1) && value == *b"y")
}

fn other_file_type() -> String {
    "it has another file type".to_owned()
}

fn is_kind(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

fn is_device(stat: &Stat, kind: FileType, (major, minor): (u32, u32)) -> bool {
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    is_kind(stat, kind) && number == (major, minor)
}
