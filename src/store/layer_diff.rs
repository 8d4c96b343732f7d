//! What an overlay upper directory says, as a layer: first which paths changed (no file is read), then
//! the tar and the hashes of the files in one read of each.
//!
//! The kernel marks removals with devices 0:0 and opaque directories with an attribute; layers get
//! explicit whiteouts of what the lower layers have, as BuildKit writes them.

mod compare;
mod lowers;

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
    ContentHash, Device, Entry, File, FileOrigin, Item, Meta, Node, TreePath, Xattrs,
};

use super::unpack::directories::Directories;
use compare::is_same;
pub(super) use compare::read_xattrs;
use lowers::Lowers;

/// Space for the names of one call to `getdents64`.
const NAMES_BYTES: usize = 32 * 1024;

/// A changed path. Of a file, content hash and extended attributes are missing until
/// [`write_layer`] has read it, and the origin says nothing: it is at this path.
pub type Changed = Entry;

/// How an upper directory is to be read.
#[derive(Debug, Clone, Copy)]
pub struct DiffOptions<'a> {
    /// Whether the overlay was mounted with `userxattr`.
    pub user_xattr: bool,
    /// Paths that are not the step's doing: they are left out, with all below them.
    pub skip: &'a [TreePath],
}

impl DiffOptions<'_> {
    const fn opaque_xattr(&self) -> &'static str {
        opaque_xattr(self.user_xattr)
    }
}

/// The attribute that marks opaque directories, in a user namespace or not.
pub(super) const fn opaque_xattr(user_xattr: bool) -> &'static str {
    if user_xattr { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

/// Lists what `upper` changes on top of `lowers` (base first), in layer order.
///
/// Left out is what is as it was: files copied up that have the same size, mtime, mode, owner,
/// attributes (and, if the mtime has no nanoseconds to go by, content); directories of which only the
/// mtime changed and nothing in them; whiteouts of nothing; sockets. A directory above a change is
/// listed. If one name of a hard-linked file changed, all its names in `upper` are listed.
///
/// # Errors
/// The kernel's, with the path; `ENAMETOOLONG` for directories nested 500 deep.
pub fn diff_upper(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    options: &DiffOptions<'_>,
) -> Result<Vec<Changed>, PathError> {
    let no_origin = FileOrigin::directory(0, TreePath::root());
    let mut walk = Walk { options, no_origin, found: Vec::new(), n_xattr_bytes: 0 };
    let root = TreePath::root();
    let opened = open_directory(upper, b".", &root)?;
    let lowers = Lowers::roots(lowers, options.opaque_xattr())?;
    walk.run(Directory::new(opened, root, lowers, false)?)?;
    let mut found = walk.found;
    found.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
    Ok(changed(found))
}

/// A path of the upper directory.
struct Found {
    entry: Entry,
    /// Whether the lower layers have the same, and the same of all that it holds.
    is_same: bool,
    /// Device and inode of a file with several names.
    inode: Option<(u64, u64)>,
}

/// Drops what did not change, and links what did to the first changed name of the same file. A name
/// that did not change is in a lower layer, where no link of this layer can lead.
fn changed(mut found: Vec<Found>) -> Vec<Entry> {
    let mut first_names = std::collections::HashMap::new();
    for found in found.iter_mut().filter(|found| !found.is_same) {
        let Some(inode) = found.inode else { continue };
        if let Some(first) = first_names.get(&inode) {
            found.entry.item = Item::HardLink(TreePath::clone(first));
        } else {
            first_names.insert(inode, found.entry.path.clone());
        }
    }
    // What comes next in layer order, of that which is kept: it is in a directory if anything is.
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

struct Walk<'a> {
    options: &'a DiffOptions<'a>,
    /// Of files that are read where they were found.
    no_origin: FileOrigin,
    found: Vec<Found>,
    /// Bytes of the extended attributes of directories, which are all kept in memory.
    n_xattr_bytes: usize,
}

/// A directory of the upper directory that is being listed.
struct Directory {
    upper: OwnedFd,
    at: TreePath,
    lowers: Lowers,
    /// Whether it, or a directory above it, is opaque.
    hides: bool,
    /// Sorted.
    names: Vec<Vec<u8>>,
    /// How many of them are done.
    n_done: usize,
}

impl Directory {
    fn new(upper: OwnedFd, at: TreePath, lowers: Lowers, hides: bool) -> Result<Self, PathError> {
        let names = names(upper.as_fd(), &at)?;
        Ok(Self { upper, at, lowers, hides, names, n_done: 0 })
    }
}

impl Walk<'_> {
    /// Lists all that is below `root`. The directories on the way down are kept here rather than on
    /// the thread's stack, which steps could overflow.
    fn run(&mut self, root: Directory) -> Result<(), PathError> {
        let mut open = vec![root];
        while let Some(directory) = open.last_mut() {
            let Some(name) = directory.names.get(directory.n_done) else {
                self.hidden(directory)?;
                open.pop();
                continue;
            };
            directory.n_done += 1;
            let path = directory.at.join(name);
            if self.options.skip.contains(&path) {
                continue;
            }
            let Directory { upper, lowers, hides, .. } = &*directory;
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

    /// Whiteouts of what an opaque directory hides.
    fn hidden(&mut self, directory: &Directory) -> Result<(), PathError> {
        if !directory.hides || directory.lowers.is_empty() {
            return Ok(());
        }
        for name in directory.lowers.names(&directory.at)? {
            let path = directory.at.join(&name);
            if directory.names.binary_search(&name).is_err() && !self.options.skip.contains(&path) {
                self.add(path, Item::Whiteout, false, None);
            }
        }
        Ok(())
    }

    /// Lists one name; gives the directory that it is.
    fn file(
        &mut self,
        upper: &OwnedFd,
        name: &[u8],
        path: TreePath,
        lowers: &Lowers,
        hides: bool,
    ) -> Result<Option<Directory>, PathError> {
        let stat = rustix::fs::statat(upper, name, AtFlags::SYMLINK_NOFOLLOW)
            .context("look at", path.as_path())?;
        let node = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                return self.sub_directory(upper, name, path, &stat, lowers, hides);
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                if lowers.find(name, &path)?.is_some() {
                    self.add(path, Item::Whiteout, false, None);
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
            // A socket means nothing without the process that listens on it.
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        let same = match lowers.find(name, &path)? {
            Some(lower) => {
                is_same((upper.as_fd(), &stat), (lower.directory, &lower.stat), name, &path)?
            }
            None => false,
        };
        let inode = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        self.add(path, Item::Node(meta(&stat), node), same, inode);
        Ok(None)
    }

    fn sub_directory(
        &mut self,
        upper: &OwnedFd,
        name: &[u8],
        path: TreePath,
        stat: &Stat,
        lowers: &Lowers,
        hides: bool,
    ) -> Result<Option<Directory>, PathError> {
        let opened = open_directory(upper.as_fd(), name, &path)?;
        let xattrs = self.directory_xattrs(opened.as_fd(), &path)?;
        let below = lowers.descend(name, &path)?;
        let hides = hides || is_opaque(opened.as_fd(), self.options.opaque_xattr(), &path)?;
        let same = match below.top() {
            Some(lower) => compare::is_same_directory(stat, &xattrs, lower, &path)?,
            None => false,
        };
        let xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs));
        let meta = Meta { xattrs, ..meta(stat) };
        let item = Item::Node(meta, Node::Directory { opaque: false });
        self.add(path.clone(), item, same, None);
        Directory::new(opened, path, below, hides).map(Some)
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

    fn add(&mut self, path: TreePath, item: Item, is_same: bool, inode: Option<(u64, u64)>) {
        self.found.push(Found { entry: Entry { path, item }, is_same, inode });
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
        // ERANGE: a longer value is no mark of overlayfs.
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(PathError::new("read the attributes of", path.as_path(), error)),
    }
}

/// The sorted names in a directory.
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

/// A layer that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its tar.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file of the upper directory.
    #[error(transparent)]
    Io(#[from] PathError),
}

/// Writes the tar of `entries` (sorted, as from [`diff_upper`]) into `sink`, reading each file of
/// `upper` once; `written` learns of each entry, with content hash and attributes, and of the
/// offset of its content in the tar.
///
/// # Errors
/// [`LayerError`]; also when a file is no longer as long as it was; those of `written` as `Write`.
pub fn write_layer(
    entries: Vec<Changed>,
    upper: BorrowedFd<'_>,
    sink: &mut dyn Write,
    written: &mut dyn FnMut(&Entry, u64) -> io::Result<()>,
) -> Result<(), LayerError> {
    let mut directories = Directories::new(upper);
    // Links repeat the attributes of their file, which are read when the file is.
    let mut links = LinkMetas::of(&entries);
    let mut tar = TarWriter::new(sink);
    for mut entry in entries {
        let Entry { path, item } = &mut entry;
        let at = match item {
            Item::Whiteout => tar.whiteout(path)?,
            Item::Opaque => tar.opaque(path)?,
            Item::HardLink(target) => tar.hard_link(path, target, links.get(path, target)?)?,
            Item::Node(meta, Node::File(file)) => {
                let (directory, name) = directories.parent(path)?;
                let opened = open_file(directory, name, path.as_path())?;
                let xattrs = read_xattrs(opened.as_fd(), path)?;
                if !xattrs.is_empty() {
                    meta.xattrs = Some(Box::new(xattrs));
                    links.update(path, meta);
                }
                let mut content = HashingReader::new(std::fs::File::from(opened));
                let node = Node::File(file.clone());
                let at = tar.node(path, meta, &node, &mut content)?;
                file.content = content.hash();
                at
            }
            Item::Node(meta, node) => tar.node(path, meta, node, &mut io::empty())?,
        };
        written(&entry, at).map_err(ArchiveError::Write)?;
    }
    tar.finish()?.flush().map_err(ArchiveError::Write)?;
    Ok(())
}

fn open_file(directory: BorrowedFd<'_>, name: &[u8], path: &Path) -> Result<OwnedFd, PathError> {
    // NONBLOCK, so that something that became a pipe meanwhile cannot stop the build.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).context("open", path)
}
