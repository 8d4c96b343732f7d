//! Reads a tar stream, and makes its listing and, where they are wanted, its files, in one pass.
//!
//! What an entry means is decided here, once, whether files are made of it (`disk`) or not
//! (`store::scan`): so a layer has one listing, made from the archive alone.
//!
//! The archive is not trusted. Every name is resolved against what this very run has made, so the
//! real path of each file is known before a call is made; the calls themselves go through directory
//! descriptors that are opened without following any link, so that the kernel agrees.

pub(super) mod directories;
mod disk;
mod error;
mod known;
mod planned;

use std::io::Read;
use std::os::fd::BorrowedFd;

use crate::archive::{
    ArchiveBounds, ArchiveEntry, ArchiveError, EntryKind, OPAQUE_NAME, TarReader,
    WHITEOUT_META_PREFIX, WHITEOUT_PREFIX,
};
use crate::tree::{
    ContentHash, Device, Entry, File, FileOrigin, Item, LayerListing, Meta, Node, TreePath, Xattrs,
    is_kept_xattr,
};

pub(super) use disk::Disk;
pub use error::UnpackError;
pub use planned::unpack_planned;

use known::Known;

type Result<T> = std::result::Result<T, UnpackError>;

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackOptions {
    /// Whether files get the owners that the archive names. The listing has them in any case.
    pub ownership: bool,
    /// Whether devices are made. If not, an empty file stands in for each, while the listing has
    /// the device: a user namespace can make none.
    pub devices: bool,
    /// What `.wh.` names mean.
    pub whiteouts: Whiteouts,
    /// Bounds on the archive.
    pub bounds: ArchiveBounds,
}

/// What names that begin with `.wh.` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// The archive is a layer; the directory is to be a layer of an overlay mount.
    Overlay {
        /// Whether opaque directories are marked in the `user.` name space (overlayfs' `userxattr`).
        user_xattr: bool,
    },
    /// Nothing: they are ordinary files, as in an archive that ADD unpacks.
    Keep,
}

impl Whiteouts {
    /// The attribute that makes a directory opaque.
    const fn opaque_xattr(self) -> Option<&'static str> {
        match self {
            Self::Overlay { user_xattr: true } => Some("user.overlay.opaque"),
            Self::Overlay { user_xattr: false } => Some("trusted.overlay.opaque"),
            Self::Keep => None,
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// All of it.
    pub listing: LayerListing,
    /// Directories that the archive does not list, sorted; they are made as root's, mode 0755, time 0.
    /// The listing has them if there are files in them.
    pub implied: Vec<TreePath>,
}

/// Says where the bytes of the file at a path and tar offset will be found.
pub type Origin<'a> = &'a dyn Fn(&TreePath, u64) -> FileOrigin;

/// Unpacks `tar` into the empty directory `into`, and reads `tar` to its end.
///
/// Absolute names and `..` stay inside `into`, and so do symbolic links on the way. Of two entries
/// for one path the later one counts.
///
/// # Errors
/// [`UnpackError`]; what was unpacked by then stays behind.
pub fn unpack(
    tar: &mut dyn Read,
    into: BorrowedFd<'_>,
    options: &UnpackOptions,
    origin: Origin<'_>,
) -> Result<Unpacked> {
    read(tar, Disk::new(into, *options)?, options, origin)
}

/// Reads `tar` to its end, makes its files in `place`, and lists them.
pub(super) fn read<P: Place>(
    tar: &mut dyn Read,
    place: P,
    options: &UnpackOptions,
    origin: Origin<'_>,
) -> Result<Unpacked> {
    let mut unpacker = Unpacker { options, origin, place, known: Known::default(), n_entries: 0 };
    let mut reader = TarReader::bounded(tar, options.bounds);
    while let Some(mut entry) = reader.next()? {
        unpacker.entry(&mut entry)?;
    }
    reader.drain()?;
    unpacker.finish()
}

/// Destination of an archive's files. Paths are real: no link is on the way.
pub(super) trait Place {
    /// Checks that there is space for another file, at `path`.
    fn check_space(&mut self, path: &TreePath) -> Result<()>;

    /// Makes a directory that nobody else can use; [`Place::finish_directory`] opens it.
    fn make_directory(&mut self, path: &TreePath) -> Result<()>;

    /// Makes a regular file of the content of `entry`, and hashes that.
    fn file<R: Read>(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        entry: &mut ArchiveEntry<'_, R>,
    ) -> Result<ContentHash>;

    /// Makes a further name for the file at `target`.
    fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()>;

    /// Makes a symbolic link.
    fn symlink(&mut self, path: &TreePath, meta: &Meta, target: &[u8]) -> Result<()>;

    /// Makes a device or a FIFO.
    fn special(&mut self, path: &TreePath, meta: &Meta, node: &Node) -> Result<()>;

    /// Makes the mark that hides what lower layers have at `path`.
    fn whiteout(&mut self, path: &TreePath) -> Result<()>;

    /// Removes what was made before.
    fn remove(&mut self, path: &TreePath, is_directory: bool) -> Result<()>;

    /// Gives a directory its properties; nothing more is made in it.
    fn finish_directory(&mut self, path: &TreePath, meta: &Meta, is_opaque: bool) -> Result<()>;
}

struct Unpacker<'a, P> {
    options: &'a UnpackOptions,
    origin: Origin<'a>,
    place: P,
    known: Known,
    n_entries: u64,
}

impl<P: Place> Unpacker<'_, P> {
    fn entry<R: Read>(&mut self, entry: &mut ArchiveEntry<'_, R>) -> Result<()> {
        self.count()?;
        let is_layer = matches!(self.options.whiteouts, Whiteouts::Overlay { .. });
        // Layers of images stay inside in any case; an archive of ADD that means to leave is bad.
        if !is_layer && TreePath::climbs(&entry.path) {
            return Err(bad_name(&entry.path));
        }
        let Some(named) = clean_name(&entry.path)? else {
            // The root itself, or an entry without a name and content: tar(1) and docker pass over it.
            let is_nothing = entry.kind == EntryKind::Directory || entry.size == 0;
            return if is_nothing { Ok(()) } else { Err(bad_name(&entry.path)) };
        };
        let path = self.known.resolve_parents(&named)?;
        if is_layer
            && let Some(name) = path.name()
            && name.starts_with(WHITEOUT_PREFIX)
        {
            return self.whiteout(&path, name);
        }
        let meta = kept(&entry.meta);
        if entry.kind == EntryKind::Directory {
            return self.directory(path, meta);
        }
        self.make_parents(&path)?;
        self.make_space(&path)?;
        let item = self.item(&path, meta, entry)?;
        self.known.add(Entry { path, item });
        Ok(())
    }

    fn item<R: Read>(
        &mut self,
        path: &TreePath,
        meta: Meta,
        entry: &mut ArchiveEntry<'_, R>,
    ) -> Result<Item> {
        let node = match entry.kind.clone() {
            EntryKind::File => {
                let (size, content_at) = (entry.size, entry.content_at);
                let content = self.place.file(path, &meta, entry)?;
                Node::File(File { size, content, origin: (self.origin)(path, content_at) })
            }
            EntryKind::HardLink(target) => {
                let (target, first) = self.link_target(path, &target)?;
                self.place.hard_link(path, &target)?;
                return Ok(Item::HardLink(first));
            }
            EntryKind::Symlink(target) => {
                self.place.symlink(path, &meta, &target)?;
                Node::Symlink(target.into())
            }
            EntryKind::CharDevice(Device { major: 0, minor: 0 }) => {
                return Err(UnpackError::WhiteoutDevice { path: path.clone() });
            }
            EntryKind::CharDevice(device) => Node::CharDevice(device),
            EntryKind::BlockDevice(device) => Node::BlockDevice(device),
            EntryKind::Fifo => Node::Fifo,
            // The caller has made it.
            EntryKind::Directory => Node::Directory { opaque: false },
        };
        if let Node::CharDevice(_) | Node::BlockDevice(_) | Node::Fifo = node {
            self.place.special(path, &meta, &node)?;
        }
        Ok(Item::Node(meta, node))
    }

    /// Returns what a hard link at `path` leads to, and the first name of that file.
    fn link_target(&self, path: &TreePath, target: &[u8]) -> Result<(TreePath, TreePath)> {
        let named = clean_name(target)?.unwrap_or_default();
        let target = self.known.resolve_parents(&named)?;
        if target == *path || !self.known.is_other(&target) || self.known.is_whiteout(&target) {
            return Err(UnpackError::LinkTarget { path: path.clone(), target });
        }
        let first = self.known.first_name(path, target.clone());
        Ok((target, first))
    }

    /// Counts what is made: also directories that the archive only implies. Of bytes, the reader
    /// takes care.
    fn count(&mut self) -> Result<()> {
        self.n_entries += 1;
        self.options.bounds.check(self.n_entries, 0, 0).map_err(ArchiveError::from)?;
        Ok(())
    }

    /// A name that says what lower layers lose.
    fn whiteout(&mut self, marker: &TreePath, name: &[u8]) -> Result<()> {
        let parent = marker.parent().unwrap_or_default();
        if name == OPAQUE_NAME {
            self.make_parents(marker)?;
            self.known.make_opaque(&parent, false);
            return Ok(());
        }
        if name.starts_with(WHITEOUT_META_PREFIX) {
            // AUFS's bookkeeping, of no meaning elsewhere.
            return Ok(());
        }
        let hidden = name.strip_prefix(WHITEOUT_PREFIX).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(bad_name(marker.as_bytes()));
        }
        let path = parent.join(hidden);
        self.make_parents(&path)?;
        if self.known.is_directory(&path) {
            // It hides what is below this layer, never what the layer itself has.
            self.known.make_opaque(&path, true);
        } else if !self.known.is_other(&path) {
            self.place.whiteout(&path)?;
            self.known.add(Entry { path, item: Item::Whiteout });
        }
        Ok(())
    }

    /// Makes the directories above `path` that are missing.
    fn make_parents(&mut self, path: &TreePath) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        if self.known.is_directory(&parent) {
            return Ok(());
        }
        let mut at = TreePath::root();
        for name in parent.names() {
            at = at.join(name);
            if !self.known.is_directory(&at) {
                if self.known.is_other(&at) && !self.known.is_whiteout(&at) {
                    return Err(UnpackError::NotADirectory { path: path.clone(), parent: at });
                }
                self.count()?;
                self.place.check_space(&at)?;
                let was_whiteout = self.make_directory(&at)?;
                self.known.add_directory(&at, None, was_whiteout);
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: TreePath, meta: Meta) -> Result<()> {
        let mut was_whiteout = false;
        if !self.known.is_directory(&path) {
            self.make_parents(&path)?;
            was_whiteout = self.make_directory(&path)?;
        }
        self.known.add_directory(&path, Some(meta), was_whiteout);
        Ok(())
    }

    /// Makes a directory in place of what is there. Returns whether that was a whiteout: the new
    /// directory then hides what that hid.
    fn make_directory(&mut self, path: &TreePath) -> Result<bool> {
        let was_whiteout = self.known.is_whiteout(path);
        self.make_space(path)?;
        self.place.make_directory(path)?;
        Ok(was_whiteout)
    }

    /// Removes what the archive put at `path` before.
    fn make_space(&mut self, path: &TreePath) -> Result<()> {
        if !self.known.has(path) {
            return Ok(());
        }
        for (gone, is_directory) in self.known.remove(path)? {
            self.place.remove(&gone, is_directory)?;
        }
        Ok(())
    }

    /// Gives the directories their properties, those inside others first: from then on a directory
    /// may refuse its owner, and its time would change with every file made in it.
    fn finish(mut self) -> Result<Unpacked> {
        let known = std::mem::take(&mut self.known);
        known.directories().try_for_each(|(path, directory)| {
            let implied = Meta::root(0o755, 0);
            let meta = directory.meta.as_ref().unwrap_or(&implied);
            self.place.finish_directory(path, meta, directory.opaque)
        })?;
        let implied = known.implied();
        Ok(Unpacked { listing: LayerListing::new(known.into_entries()), implied })
    }
}

fn bad_name(name: &[u8]) -> UnpackError {
    UnpackError::Name { name: String::from_utf8_lossy(name).chars().take(200).collect() }
}

/// The name without `..` and slashes at its ends; `None` for the root.
fn clean_name(name: &[u8]) -> Result<Option<TreePath>> {
    if name.contains(&0) {
        return Err(bad_name(name));
    }
    let path = TreePath::clean(name);
    Ok((!path.is_root()).then_some(path))
}

fn kept(meta: &Meta) -> Meta {
    let xattrs: Xattrs = meta
        .xattrs()
        .filter(|(name, _)| is_kept_xattr(name))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs));
    Meta { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime_s: meta.mtime_s, xattrs }
}
