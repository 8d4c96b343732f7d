//! Turns the upper directory of an overlay into a layer: first lists the changed paths without reading
//! files, then writes the tar and hashes the files in one read of each.
//!
//! The kernel marks a removed file with a character device 0/0, and a directory that hides lower ones
//! with an attribute (<https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories>).
//! In the layer, an opaque directory becomes explicit whiteouts of the files that it hides, as in
//! layers of BuildKit (image-spec, layer.md, "Opaque Whiteout").

mod lower_directories;
mod unchanged;

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::archive::{ArchiveError, HashingReader, LinkMetas, TarWriter};
use crate::limits::{MAX_DIRECTORY_DEPTH, MAX_NAME_BYTES_OF_ARCHIVE};
use crate::pathio::{Context as _, PathError};
use crate::tree::{
    ContentHash, Device, Entry, File, FileOrigin, LayerItem, Meta, Node, TreePath, Xattrs,
};

use super::unpack::open_directories::OpenDirectories;
use lower_directories::LowerDirectories;
use unchanged::is_unchanged;
pub(super) use unchanged::read_xattrs;

/// Size of the buffer for one call of getdents64(2), bytes.
const NAMES_BYTES: usize = 32 * 1024;

/// A changed path. A file has no content hash, and only those extended attributes that the disk does
/// not hold, until [`write_layer`] reads it. Its origin is not set.
pub type ChangedEntry = Entry;

/// Returns the attribute that marks opaque directories: `user.` with the mount option `userxattr`
/// (<https://docs.kernel.org/filesystems/overlayfs.html#user-xattr>), else `trusted.`.
pub(super) const fn opaque_xattr(user_xattr: bool) -> &'static str {
    if user_xattr { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

/// Compares `upper` with `lowers` (base first). `user_xattr` is true if the overlay was mounted with the
/// option `userxattr`.
///
/// Unchanged entries are left out: copied-up files with the same size, mtime, mode, owner, attributes
/// and content; directories with nothing changed but their mtime; whiteouts of files that do not exist;
/// sockets. Parent directories of changed entries are listed. If one name of a hard-linked file changed,
/// all its names in `upper` are listed.
///
/// # Errors
/// [`PathError`] if a directory or file cannot be read, or with `ENAMETOOLONG` if directories are
/// nested too deeply.
pub fn diff_upper(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    user_xattr: bool,
) -> Result<Vec<ChangedEntry>, PathError> {
    let opaque_xattr = opaque_xattr(user_xattr);
    let no_origin = FileOrigin::directory(0, TreePath::root());
    let mut walk = UpperWalk { opaque_xattr, no_origin, found: Vec::new(), n_xattr_bytes: 0 };
    let root = TreePath::root();
    let opened = open_directory(upper, b".", &root)?;
    let lowers = LowerDirectories::roots(lowers, opaque_xattr)?;
    walk.run(UpperDirectory::new(opened, root, lowers, false)?)?;
    let mut found = walk.found;
    found.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
    Ok(changed(found))
}

/// An entry of the upper directory, changed or not.
pub(super) struct UpperEntry {
    pub(super) entry: Entry,
    /// True if the lower directories have the same entry.
    is_same: bool,
    /// Device and inode number of a file with several names.
    inode: Option<(u64, u64)>,
}

impl UpperEntry {
    pub(super) const fn new(
        path: TreePath,
        item: LayerItem,
        is_same: bool,
        inode: Option<(u64, u64)>,
    ) -> Self {
        Self { entry: Entry { path, item }, is_same, inode }
    }
}

/// Removes unchanged entries, and turns further names of a changed file into hard links to its first
/// changed name. A link cannot point to an unchanged name: that is not in this layer.
pub(super) fn changed(mut found: Vec<UpperEntry>) -> Vec<Entry> {
    let mut first_names = std::collections::HashMap::new();
    for found in found.iter_mut().filter(|found| !found.is_same) {
        let Some(inode) = found.inode else { continue };
        if let Some(first) = first_names.get(&inode) {
            found.entry.item = LayerItem::HardLink(TreePath::clone(first));
        } else {
            first_names.insert(inode, found.entry.path.clone());
        }
    }
    // The next entry in layer order that is kept. If a directory has changed entries, this is one.
    let mut next: Option<TreePath> = None;
    for found in found.iter_mut().rev() {
        let holds = |next: &TreePath| next.below(&found.entry.path).is_some();
        if !found.is_same || next.as_ref().is_some_and(holds) {
            found.is_same = false;
            next = Some(found.entry.path.clone());
        }
    }
    found.into_iter().filter(|found| !found.is_same).map(|found| found.entry).collect()
}

struct UpperWalk {
    /// Name of the attribute of opaque directories.
    opaque_xattr: &'static str,
    /// Origin for files, which are read at their own path.
    no_origin: FileOrigin,
    found: Vec<UpperEntry>,
    /// Bytes of the extended attributes of directories, which all stay in memory.
    n_xattr_bytes: usize,
}

/// A directory that is being listed.
struct UpperDirectory {
    upper: OwnedFd,
    at: TreePath,
    lowers: LowerDirectories,
    /// True if it or a parent directory is opaque.
    hides: bool,
    /// Names of its entries, sorted.
    names: Vec<Vec<u8>>,
    /// Number of names that are done.
    n_done: usize,
}

impl UpperDirectory {
    fn new(
        upper: OwnedFd,
        at: TreePath,
        lowers: LowerDirectories,
        hides: bool,
    ) -> Result<Self, PathError> {
        let names = names(upper.as_fd(), &at)?;
        Ok(Self { upper, at, lowers, hides, names, n_done: 0 })
    }
}

impl UpperWalk {
    /// Lists everything below `root`. Parent directories are kept in a vector and not on the thread's
    /// stack, which deeply nested directories could overflow.
    fn run(&mut self, root: UpperDirectory) -> Result<(), PathError> {
        let mut open = vec![root];
        while let Some(directory) = open.last_mut() {
            let Some(name) = directory.names.get(directory.n_done) else {
                self.add_hidden(directory)?;
                open.pop();
                continue;
            };
            directory.n_done += 1;
            let path = directory.at.join(name);
            let UpperDirectory { upper, lowers, hides, .. } = &*directory;
            let Some(sub_directory) = self.file(upper, name, path, lowers, *hides)? else {
                continue;
            };
            if open.len() > MAX_DIRECTORY_DEPTH {
                let path = sub_directory.at.as_path();
                return Err(PathError::new("list", path, Errno::NAMETOOLONG));
            }
            open.push(sub_directory);
        }
        Ok(())
    }

    /// Adds whiteouts of the entries that an opaque directory hides.
    fn add_hidden(&mut self, directory: &UpperDirectory) -> Result<(), PathError> {
        if !directory.hides || directory.lowers.is_empty() {
            return Ok(());
        }
        for name in directory.lowers.names(&directory.at)? {
            let path = directory.at.join(&name);
            if directory.names.binary_search(&name).is_err() {
                self.add(path, LayerItem::Whiteout, false, None);
            }
        }
        Ok(())
    }

    /// Lists one name; returns the directory if it is one.
    fn file(
        &mut self,
        upper: &OwnedFd,
        name: &[u8],
        path: TreePath,
        lowers: &LowerDirectories,
        hides: bool,
    ) -> Result<Option<UpperDirectory>, PathError> {
        let stat = rustix::fs::statat(upper, name, AtFlags::SYMLINK_NOFOLLOW)
            .context("look at", path.as_path())?;
        let node = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                return self.sub_directory(upper, name, path, &stat, lowers, hides);
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                if lowers.find(name, &path)?.is_some() {
                    self.add(path, LayerItem::Whiteout, false, None);
                }
                return Ok(None);
            }
            FileType::RegularFile => Node::File(File {
                size: u64::try_from(stat.st_size).unwrap_or(0),
                content: ContentHash::new([0; 32]),
                origin: self.no_origin.clone(),
            }),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(upper, name, Vec::new());
                let target = target.context("read link", path.as_path())?;
                Node::Symlink(target.into_bytes().into_boxed_slice())
            }
            FileType::CharacterDevice => Node::CharDevice(device(&stat)),
            FileType::BlockDevice => Node::BlockDevice(device(&stat)),
            FileType::Fifo => Node::Fifo,
            // A socket has no use without the process that listens on it, and tar has no type for it.
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        let same = match lowers.find(name, &path)? {
            Some(lower) => {
                is_unchanged((upper.as_fd(), &stat), (lower.directory, &lower.stat), name, &path)?
            }
            None => false,
        };
        let inode = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        self.add(path, LayerItem::Node(meta(&stat), node), same, inode);
        Ok(None)
    }

    fn sub_directory(
        &mut self,
        upper: &OwnedFd,
        name: &[u8],
        path: TreePath,
        stat: &Stat,
        lowers: &LowerDirectories,
        hides: bool,
    ) -> Result<Option<UpperDirectory>, PathError> {
        let opened = open_directory(upper.as_fd(), name, &path)?;
        let xattrs = self.directory_xattrs(opened.as_fd(), &path)?;
        let below = lowers.descend(name, &path)?;
        let hides = hides || is_opaque(opened.as_fd(), self.opaque_xattr, &path)?;
        let same = match below.top() {
            Some(lower) => unchanged::is_unchanged_directory(stat, &xattrs, lower, &path)?,
            None => false,
        };
        let xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs));
        let meta = Meta { xattrs, ..meta(stat) };
        let item = LayerItem::Node(meta, Node::Directory { opaque: false });
        self.add(path.clone(), item, same, None);
        UpperDirectory::new(opened, path, below, hides).map(Some)
    }

    fn directory_xattrs(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &TreePath,
    ) -> Result<Xattrs, PathError> {
        let xattrs = read_xattrs(directory, path)?;
        self.n_xattr_bytes +=
            xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if u64::try_from(self.n_xattr_bytes).is_ok_and(|total| total <= MAX_NAME_BYTES_OF_ARCHIVE) {
            return Ok(xattrs);
        }
        Err(PathError::new("keep the extended attributes of", path.as_path(), Errno::TOOBIG))
    }

    fn add(&mut self, path: TreePath, item: LayerItem, is_same: bool, inode: Option<(u64, u64)>) {
        self.found.push(UpperEntry::new(path, item, is_same, inode));
    }
}

fn meta(stat: &Stat) -> Meta {
    Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_s: stat.st_mtime,
        xattrs: None,
    }
}

fn device(stat: &Stat) -> Device {
    Device { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) }
}

pub(super) fn open_directory(
    at: BorrowedFd<'_>,
    name: &[u8],
    path: &TreePath,
) -> Result<OwnedFd, PathError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty()).context("open directory", path.as_path())
}

pub(super) fn is_opaque(
    directory: BorrowedFd<'_>,
    xattr: &str,
    path: &TreePath,
) -> Result<bool, PathError> {
    let mut value = [0; 8];
    match rustix::fs::fgetxattr(directory, xattr, &mut value) {
        Ok(n_bytes) => Ok(n_bytes == 1 && value.starts_with(b"y")),
        // ERANGE: overlayfs writes the value `y`, which fits.
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(PathError::new("read the attributes of", path.as_path(), error)),
    }
}

/// Returns the names in a directory, sorted.
pub(super) fn names(directory: BorrowedFd<'_>, at: &TreePath) -> Result<Vec<Vec<u8>>, PathError> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); NAMES_BYTES];
    let mut dir = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = dir.next() {
        let entry = entry.context("list", at.as_path())?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Failure to write a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The tar cannot be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file of the upper directory cannot be read.
    #[error(transparent)]
    Io(#[from] PathError),
}

/// Writes the tar of `entries` (sorted, as from [`diff_upper`]) into `sink` and reads each file of
/// `upper` once. `written` is called with each entry, of a file with content hash and attributes, and
/// with the offset of its content in the tar.
///
/// # Errors
/// [`LayerError::Io`] if a file cannot be read; [`LayerError::Archive`] if its length changed, or if
/// `sink` or `written` fails.
pub fn write_layer(
    entries: &[ChangedEntry],
    upper: BorrowedFd<'_>,
    sink: &mut dyn Write,
    written: &mut dyn FnMut(&Entry, u64) -> io::Result<()>,
) -> Result<(), LayerError> {
    let mut directories = OpenDirectories::new(upper);
    // A hard link has the attributes of its file, which are read together with the file.
    let mut links = LinkMetas::of(&entries);
    let mut tar = TarWriter::new(sink);
    for entry in entries {
        let mut read = None;
        let Entry { path, item } = entry;
        let at = match item {
            LayerItem::Whiteout => tar.whiteout(path)?,
            LayerItem::Opaque => tar.opaque(path)?,
            LayerItem::HardLink(target) => tar.hard_link(path, target, links.get(path, target)?)?,
            LayerItem::Node(meta, Node::File(file)) => {
                let (directory, name) = directories.parent(path)?;
                let opened = open_file(directory, name, path.as_path())?;
                let mut xattrs = read_xattrs(opened.as_fd(), path)?;
                let mut meta = meta.clone();
                xattrs.extend(meta.xattrs.take().into_iter().flat_map(|emulated| *emulated));
                if !xattrs.is_empty() {
                    meta.xattrs = Some(Box::new(xattrs));
                    links.update(path, &meta);
                }
                let mut content = HashingReader::new(std::fs::File::from(opened));
                let at = tar.node(path, &meta, &Node::File(file.clone()), &mut content)?;
                let file = File { content: content.hash(), ..file.clone() };
                let item = LayerItem::Node(meta, Node::File(file));
                read = Some(Entry { path: path.clone(), item });
                at
            }
            LayerItem::Node(meta, node) => tar.node(path, meta, node, &mut io::empty())?,
        };
        written(read.as_ref().unwrap_or(entry), at).map_err(ArchiveError::Write)?;
    }
    tar.finish()?.flush().map_err(ArchiveError::Write)?;
    Ok(())
}

pub(super) fn open_file(
    directory: BorrowedFd<'_>,
    name: &[u8],
    path: &Path,
) -> Result<OwnedFd, PathError> {
    // Without O_NONBLOCK, a FIFO that has replaced the file would block open(2) (fifo(7)).
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).context("open", path)
}
