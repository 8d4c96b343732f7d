//! Reads a tar stream in one pass, lists it, and creates its files unless only the listing is needed.
//!
//! The meaning of each entry is decided here for both cases, with files (`disk`) and without
//! (`store::listing_scan`). A layer therefore has one listing, which depends on its archive alone
//! (image-spec, layer.md, "Applying Changesets").
//!
//! The archive is untrusted. Every name is resolved against the entries that this archive has created,
//! so the real path of a file is known before any system call. The calls use directory descriptors
//! that are opened with `RESOLVE_NO_SYMLINKS` (openat2(2)), so the kernel rejects a path that resolves
//! differently.

mod disk;
mod error;
pub(super) mod open_directories;
mod planned;
mod state;

use std::io::Read;
use std::os::fd::BorrowedFd;

use crate::archive::{
    ArchiveBounds, ArchiveEntry, ArchiveError, EntryKind, OPAQUE_NAME, TarReader,
    WHITEOUT_META_PREFIX, WHITEOUT_PREFIX,
};
use crate::tree::{
    ContentHash, Device, Entry, File, FileOrigin, LayerItem, LayerListing, Meta, Node, TreePath,
    Xattrs, is_kept_xattr,
};

pub(super) use disk::DiskTarget;
pub use error::UnpackError;
pub use planned::unpack_planned;

use state::UnpackState;

type Result<T> = std::result::Result<T, UnpackError>;

/// Options for unpacking an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackOptions {
    /// True to set the owners in the archive on files. The listing has them in any case.
    pub ownership: bool,
    /// True to create devices. If false, as in a user namespace (user_namespaces(7)), an empty file is
    /// created in place of each, and the listing has the device.
    pub devices: bool,
    /// Meaning of names that begin with `.wh.`.
    pub whiteouts: Whiteouts,
    /// Bounds on the archive.
    pub bounds: ArchiveBounds,
}

/// Meaning of names that begin with `.wh.` (image-spec, layer.md, "Whiteouts").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// Whiteouts: the archive is a layer, and the directory becomes a lower directory of an overlay.
    Overlay {
        /// True if overlay attributes are in the `user.` namespace (mount option `userxattr`).
        user_xattr: bool,
    },
    /// Ordinary files: the archive is not a layer, as with ADD.
    Keep,
}

impl Whiteouts {
    /// Returns the attribute that makes a directory opaque.
    const fn opaque_xattr(self) -> Option<&'static str> {
        match self {
            Self::Overlay { user_xattr: true } => Some("user.overlay.opaque"),
            Self::Overlay { user_xattr: false } => Some("trusted.overlay.opaque"),
            Self::Keep => None,
        }
    }
}

/// Result of unpacking an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackedArchive {
    /// All entries of the archive.
    pub listing: LayerListing,
    /// Directories that the archive does not list, sorted. They are created with owner 0:0, mode 0755
    /// and time 0; the listing has those with files in them.
    pub implied: Vec<TreePath>,
}

/// Returns the origin of the file at a path, whose content is at an offset in the tar.
pub type FileOriginOf<'a> = &'a dyn Fn(&TreePath, u64) -> FileOrigin;

/// Unpacks `tar` into the empty directory `into`, and reads `tar` to its end.
///
/// Absolute names, `..` and symbolic links in a path do not lead out of `into`. If two entries have
/// the same path, the later one replaces the earlier.
///
/// # Errors
/// [`UnpackError`]; files that were created before remain.
pub fn unpack(
    tar: &mut dyn Read,
    into: BorrowedFd<'_>,
    options: &UnpackOptions,
    origin: FileOriginOf<'_>,
) -> Result<UnpackedArchive> {
    read(tar, DiskTarget::new(into, *options)?, options, origin)
}

/// Reads `tar` to its end, creates its files in `target`, and lists them.
pub(super) fn read<P: UnpackTarget>(
    tar: &mut dyn Read,
    target: P,
    options: &UnpackOptions,
    origin: FileOriginOf<'_>,
) -> Result<UnpackedArchive> {
    let mut unpacker =
        Unpacker { options, origin, target, state: UnpackState::default(), n_entries: 0 };
    let mut reader = TarReader::bounded(tar, options.bounds);
    while let Some(mut entry) = reader.next()? {
        unpacker.entry(&mut entry)?;
    }
    reader.drain()?;
    unpacker.finish()
}

/// Destination for the files of an archive. Paths are resolved: none contains a symbolic link.
pub(super) trait UnpackTarget {
    /// Checks that there is space for another file, at `path`.
    fn check_space(&mut self, path: &TreePath) -> Result<()>;

    /// Creates a directory with mode 0700; [`UnpackTarget::finish_directory`] sets its properties.
    fn make_directory(&mut self, path: &TreePath) -> Result<()>;

    /// Creates a regular file with the content of `entry`; returns the hash of the content.
    fn file<R: Read>(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        entry: &mut ArchiveEntry<'_, R>,
    ) -> Result<ContentHash>;

    /// Creates another name for the file at `target`.
    fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()>;

    /// Creates a symbolic link.
    fn symlink(&mut self, path: &TreePath, meta: &Meta, target: &[u8]) -> Result<()>;

    /// Creates a device or a FIFO.
    fn special(&mut self, path: &TreePath, meta: &Meta, node: &Node) -> Result<()>;

    /// Creates the whiteout that hides `path` of lower layers.
    fn whiteout(&mut self, path: &TreePath) -> Result<()>;

    /// Removes an entry that was created before.
    fn remove(&mut self, path: &TreePath, is_directory: bool) -> Result<()>;

    /// Sets the properties of a directory; no more entries are created in it.
    fn finish_directory(&mut self, path: &TreePath, meta: &Meta, is_opaque: bool) -> Result<()>;
}

struct Unpacker<'a, P> {
    options: &'a UnpackOptions,
    origin: FileOriginOf<'a>,
    target: P,
    state: UnpackState,
    n_entries: u64,
}

impl<P: UnpackTarget> Unpacker<'_, P> {
    fn entry<R: Read>(&mut self, entry: &mut ArchiveEntry<'_, R>) -> Result<()> {
        self.count()?;
        let is_layer = matches!(self.options.whiteouts, Whiteouts::Overlay { .. });
        // In layers, `..` is resolved inside the root; an archive of ADD with such a name is refused.
        if !is_layer && TreePath::climbs(&entry.path) {
            return Err(bad_name(&entry.path));
        }
        let Some(named) = clean_name(&entry.path)? else {
            // The root itself, or an entry without a name and content: tar(1) and docker ignore it.
            let is_nothing = entry.kind == EntryKind::Directory || entry.size == 0;
            return if is_nothing { Ok(()) } else { Err(bad_name(&entry.path)) };
        };
        let path = self.state.resolve_parents(&named)?;
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
        self.replace(&path)?;
        let item = self.item(&path, meta, entry)?;
        self.state.add(Entry { path, item });
        Ok(())
    }

    fn item<R: Read>(
        &mut self,
        path: &TreePath,
        meta: Meta,
        entry: &mut ArchiveEntry<'_, R>,
    ) -> Result<LayerItem> {
        let node = match entry.kind.clone() {
            EntryKind::File => {
                let (size, content_at) = (entry.size, entry.content_at);
                let content = self.target.file(path, &meta, entry)?;
                Node::File(File { size, content, origin: (self.origin)(path, content_at) })
            }
            EntryKind::HardLink(target) => {
                let (target, first) = self.link_target(path, &target)?;
                self.target.hard_link(path, &target)?;
                return Ok(LayerItem::HardLink(first));
            }
            EntryKind::Symlink(target) => {
                self.target.symlink(path, &meta, &target)?;
                Node::Symlink(target.into())
            }
            EntryKind::CharDevice(Device { major: 0, minor: 0 }) => {
                return Err(UnpackError::WhiteoutDevice { path: path.clone() });
            }
            EntryKind::CharDevice(device) => Node::CharDevice(device),
            EntryKind::BlockDevice(device) => Node::BlockDevice(device),
            EntryKind::Fifo => Node::Fifo,
            // Created by the caller.
            EntryKind::Directory => Node::Directory { opaque: false },
        };
        if let Node::CharDevice(_) | Node::BlockDevice(_) | Node::Fifo = node {
            self.target.special(path, &meta, &node)?;
        }
        Ok(LayerItem::Node(meta, node))
    }

    /// Returns the resolved target of a hard link at `path`, and the first name of that file.
    fn link_target(&self, path: &TreePath, target: &[u8]) -> Result<(TreePath, TreePath)> {
        let named = clean_name(target)?.unwrap_or_default();
        let target = self.state.resolve_parents(&named)?;
        if target == *path || !self.state.is_other(&target) || self.state.is_whiteout(&target) {
            return Err(UnpackError::LinkTarget { path: path.clone(), target });
        }
        let first = self.state.first_name(path, target.clone());
        Ok((target, first))
    }

    /// Counts created entries, implied directories included, against the bounds. Bytes are counted by
    /// the reader.
    fn count(&mut self) -> Result<()> {
        self.n_entries += 1;
        self.options.bounds.check(self.n_entries, 0, 0).map_err(ArchiveError::from)?;
        Ok(())
    }

    /// Applies a whiteout, or the marker of an opaque directory, called `name`.
    fn whiteout(&mut self, marker: &TreePath, name: &[u8]) -> Result<()> {
        let parent = marker.parent().unwrap_or_default();
        if name == OPAQUE_NAME {
            self.make_parents(marker)?;
            self.state.make_opaque(&parent, false);
            return Ok(());
        }
        if name.starts_with(WHITEOUT_META_PREFIX) {
            // Metadata of AUFS, such as `.wh..wh.plnk`, which has no meaning for other file systems.
            return Ok(());
        }
        let hidden = name.strip_prefix(WHITEOUT_PREFIX).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(bad_name(marker.as_bytes()));
        }
        let path = parent.join(hidden);
        self.make_parents(&path)?;
        if self.state.is_directory(&path) {
            // A whiteout hides entries of lower layers only, not those of its own layer.
            self.state.make_opaque(&path, true);
        } else if !self.state.is_other(&path) {
            self.target.whiteout(&path)?;
            self.state.add(Entry { path, item: LayerItem::Whiteout });
        }
        Ok(())
    }

    /// Creates missing parent directories of `path`.
    fn make_parents(&mut self, path: &TreePath) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        if self.state.is_directory(&parent) {
            return Ok(());
        }
        let mut at = TreePath::root();
        for name in parent.names() {
            at = at.join(name);
            if !self.state.is_directory(&at) {
                if self.state.is_other(&at) && !self.state.is_whiteout(&at) {
                    return Err(UnpackError::NotADirectory { path: path.clone(), parent: at });
                }
                self.count()?;
                self.target.check_space(&at)?;
                let was_whiteout = self.make_directory(&at)?;
                self.state.add_directory(&at, None, was_whiteout);
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: TreePath, meta: Meta) -> Result<()> {
        let mut was_whiteout = false;
        if !self.state.is_directory(&path) {
            self.make_parents(&path)?;
            was_whiteout = self.make_directory(&path)?;
        }
        self.state.add_directory(&path, Some(meta), was_whiteout);
        Ok(())
    }

    /// Creates a directory in place of an earlier entry. Returns whether that was a whiteout: the new
    /// directory is then opaque.
    fn make_directory(&mut self, path: &TreePath) -> Result<bool> {
        let was_whiteout = self.state.is_whiteout(path);
        self.replace(path)?;
        self.target.make_directory(path)?;
        Ok(was_whiteout)
    }

    /// Removes an earlier entry of the archive at `path`, and everything below it.
    fn replace(&mut self, path: &TreePath) -> Result<()> {
        if !self.state.has(path) {
            return Ok(());
        }
        for (gone, is_directory) in self.state.remove(path)? {
            self.target.remove(&gone, is_directory)?;
        }
        Ok(())
    }

    /// Sets the properties of directories, subdirectories first. It comes last because a mode may deny
    /// access to its owner, and because the time changes with every file that is created.
    fn finish(mut self) -> Result<UnpackedArchive> {
        let state = std::mem::take(&mut self.state);
        state.directories().try_for_each(|(path, directory)| {
            let implied = Meta::root(0o755, 0);
            let meta = directory.meta.as_ref().unwrap_or(&implied);
            self.target.finish_directory(path, meta, directory.opaque)
        })?;
        let implied = state.implied();
        Ok(UnpackedArchive { listing: LayerListing::new(state.into_entries()), implied })
    }
}

fn bad_name(name: &[u8]) -> UnpackError {
    UnpackError::Name { name: String::from_utf8_lossy(name).chars().take(200).collect() }
}

/// Returns the name without `..` and without slashes at its ends; `None` for the root.
fn clean_name(name: &[u8]) -> Result<Option<TreePath>> {
    if name.contains(&0) {
        return Err(bad_name(name));
    }
    let path = TreePath::clean(name);
    Ok((!path.is_root()).then_some(path))
}

/// Returns the properties with only those extended attributes that layers keep.
fn kept(meta: &Meta) -> Meta {
    let xattrs: Xattrs = meta
        .xattrs()
        .filter(|(name, _)| is_kept_xattr(name))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs));
    Meta { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime_s: meta.mtime_s, xattrs }
}
