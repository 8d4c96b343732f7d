//! A tar stream becomes a folder, and its listing, in one pass.
//!
//! The archive is not trusted. Every name is resolved against what this very run has made, so the
//! real path of each file is known before a call is made; the calls themselves go through folder
//! descriptors that are opened without following any link, so that the kernel agrees.

mod error;
pub(super) mod folders;
mod known;
mod make;
mod planned;

use std::fmt;
use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::archive::{
    ArchiveBounds, ArchiveEntry, ArchiveError, CAPABILITY_XATTR, EntryKind, OPAQUE_NAME, TarReader,
    WHITEOUT_META_PREFIX, WHITEOUT_PREFIX,
};
use crate::pathio::Context as _;
use crate::tree::{Entry, FileOrigin, Item, LayerListing, Meta, Node, TreePath, Xattrs};

pub use error::UnpackError;
pub use planned::unpack_planned;

use super::space::SpaceGuard;

use folders::Folders;
use known::Known;

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
    /// The archive is a layer; the folder is to be a layer of an overlay mount.
    Overlay {
        /// Whether opaque folders are marked in the `user.` name space (overlayfs' `userxattr`).
        user_xattr: bool,
    },
    /// Nothing: they are ordinary files, as in an archive that ADD unpacks.
    Keep,
}

impl Whiteouts {
    /// The attribute that makes a folder opaque.
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
    /// Folders that the archive does not name but has files in, sorted; they are root's, mode
    /// 0755, time 0, and stand in the listing.
    pub implied: Vec<TreePath>,
}

/// Says where the bytes of the file at a path and tar offset will be found.
pub type Origin<'a> = &'a dyn Fn(&TreePath, u64) -> FileOrigin;

/// Unpacks `tar` into the empty folder `into`, and reads `tar` to its end.
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
) -> Result<Unpacked, UnpackError> {
    let mut unpacker = Unpacker::new(into, options, origin)?;
    let mut reader = TarReader::bounded(tar, options.bounds);
    while let Some(mut entry) = reader.next()? {
        unpacker.entry(&mut entry)?;
    }
    reader.drain()?;
    unpacker.finish()
}

struct Unpacker<'a> {
    options: &'a UnpackOptions,
    origin: Origin<'a>,
    folders: Folders<'a>,
    known: Known,
    buffer: Vec<u8>,
    space: SpaceGuard,
    n_entries: u64,
    /// What new files belong to anyway, so that no call is needed; `None` if it is not certain.
    own_ids: Option<(u32, u32)>,
}

impl fmt::Debug for Unpacker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unpacker({} entries)", self.n_entries)
    }
}

impl<'a> Unpacker<'a> {
    fn new(
        into: BorrowedFd<'a>,
        options: &'a UnpackOptions,
        origin: Origin<'a>,
    ) -> Result<Self, UnpackError> {
        let root = TreePath::root();
        let stat = rustix::fs::fstat(into).context("look at", root.as_path())?;
        let passes_group_on = stat.st_mode & Mode::SGID.bits() != 0;
        let ids = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Self {
            options,
            origin,
            folders: Folders::new(into),
            known: Known::default(),
            buffer: Vec::new(),
            space: SpaceGuard::default(),
            n_entries: 0,
            own_ids: (!passes_group_on).then(ids),
        })
    }

    fn entry<R: Read>(&mut self, entry: &mut ArchiveEntry<'_, R>) -> Result<(), UnpackError> {
        self.count()?;
        // Layers of images stay inside in any case; an archive of ADD that means to leave is bad.
        if matches!(self.options.whiteouts, Whiteouts::Keep) && TreePath::climbs(&entry.path) {
            return Err(bad_name(&entry.path));
        }
        let Some(named) = clean_name(&entry.path)? else {
            let is_root = entry.kind == EntryKind::Directory;
            return if is_root { Ok(()) } else { Err(bad_name(&entry.path)) };
        };
        let path = self.known.resolve_parents(&named)?;
        if let Whiteouts::Overlay { .. } = self.options.whiteouts
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
        self.make_room(&path)?;
        let item = match entry.kind.clone() {
            EntryKind::File => {
                let node = self.file(&path, &meta, entry)?;
                Item::Node(meta, node)
            }
            EntryKind::HardLink(target) => Item::HardLink(self.hard_link(&path, &target)?),
            EntryKind::Symlink(target) => self.symlink(&path, meta, target)?,
            EntryKind::CharDevice(device) => {
                self.special(&path, &meta, FileType::CharacterDevice, device.major, device.minor)?;
                Item::Node(meta, Node::CharDevice(device))
            }
            EntryKind::BlockDevice(device) => {
                self.special(&path, &meta, FileType::BlockDevice, device.major, device.minor)?;
                Item::Node(meta, Node::BlockDevice(device))
            }
            EntryKind::Fifo => {
                self.special(&path, &meta, FileType::Fifo, 0, 0)?;
                Item::Node(meta, Node::Fifo)
            }
            // Handled above: a folder needs no room.
            EntryKind::Directory => return Ok(()),
        };
        self.known.add(Entry { path, item });
        Ok(())
    }

    /// Counts what is made: also directories that the archive only implies. Of bytes, the reader
    /// takes care.
    fn count(&mut self) -> Result<(), UnpackError> {
        self.n_entries += 1;
        self.options.bounds.check(self.n_entries, 0, 0).map_err(ArchiveError::from)?;
        Ok(())
    }

    /// Checks that there is room for `size` bytes of the file at `path`.
    pub(super) fn need(&mut self, path: &TreePath, size: u64) -> Result<(), UnpackError> {
        let checked = self.space.need(self.folders.root(), size).context("examine", path.as_path());
        checked?.map_err(|source| UnpackError::NoSpace { path: path.clone(), size, source })
    }

    /// A name that says what lower layers lose.
    fn whiteout(&mut self, marker: &TreePath, name: &[u8]) -> Result<(), UnpackError> {
        let parent = marker.parent().unwrap_or_default();
        if name == OPAQUE_NAME {
            self.make_parents(marker)?;
            return self.known.make_opaque(&parent);
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
        if self.known.is_folder(&path) {
            // It hides what is below this layer, never what the layer itself has.
            return self.known.make_opaque(&path);
        }
        let folder = self.folders.open(&parent)?;
        match rustix::fs::mknodat(folder, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            // The layer replaces the file, which hides the lower one as well.
            Err(Errno::EXIST) => Ok(()),
            made => {
                made.context("make a whiteout at", path.as_path())?;
                self.known.add(Entry { path, item: Item::Whiteout });
                Ok(())
            }
        }
    }

    /// Makes the folders above `path` that are missing.
    fn make_parents(&mut self, path: &TreePath) -> Result<(), UnpackError> {
        let parent = path.parent().unwrap_or_default();
        if self.known.is_folder(&parent) {
            return Ok(());
        }
        let mut at = TreePath::root();
        for name in parent.names() {
            at = at.join(name);
            if !self.known.is_folder(&at) {
                self.count()?;
                self.need(&at, 0)?;
                let was_whiteout = self.make_folder(&at)?;
                self.known.add_folder(&at, None, was_whiteout);
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: TreePath, meta: Meta) -> Result<(), UnpackError> {
        let mut opaque = false;
        if !self.known.is_folder(&path) {
            self.make_parents(&path)?;
            if !self.known.is_whiteout(&path) {
                self.make_room(&path)?;
            }
            opaque = self.make_folder(&path)?;
        }
        self.known.add_folder(&path, Some(meta), opaque);
        Ok(())
    }

    /// Makes a folder for nobody else; its mode comes last, when it is full. True if a whiteout
    /// was there: the new folder then hides what that hid.
    fn make_folder(&mut self, path: &TreePath) -> Result<bool, UnpackError> {
        let was_whiteout = self.known.is_whiteout(path);
        if was_whiteout {
            self.remove(path)?;
        }
        let (folder, name) = self.folders.parent(path)?;
        rustix::fs::mkdirat(folder, name, Mode::RWXU).context("create folder", path.as_path())?;
        Ok(was_whiteout)
    }

    /// Removes what the archive put at `path` before.
    fn make_room(&mut self, path: &TreePath) -> Result<(), UnpackError> {
        if self.known.has(path) { self.remove(path) } else { Ok(()) }
    }

    fn remove(&mut self, path: &TreePath) -> Result<(), UnpackError> {
        self.folders.forget();
        for (gone, is_folder) in self.known.remove(path)? {
            let (folder, name) = self.folders.parent(&gone)?;
            let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(folder, name, flags).context("remove", gone.as_path())?;
            self.folders.forget();
        }
        Ok(())
    }

    /// Gives the folders their properties, those inside others first: from then on a folder may
    /// refuse its owner, and its time would change with every file made in it.
    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        let known = std::mem::take(&mut self.known);
        let (folders, implied, mut entries) = known.into_parts();
        for (path, folder) in folders.iter().rev() {
            let (parent, name) = self.folders.parent(path)?;
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(parent, name, flags, Mode::empty())
                .context("open", path.as_path())?;
            if folder.opaque
                && let Some(xattr) = self.options.whiteouts.opaque_xattr()
            {
                rustix::fs::fsetxattr(&opened, xattr, b"y", rustix::fs::XattrFlags::empty())
                    .context("make opaque", path.as_path())?;
            }
            self.finish_file(path, &opened, &folder.meta)?;
        }
        entries.extend(folders.into_iter().map(|(path, folder)| Entry {
            path,
            item: Item::Node(folder.meta, Node::Directory { opaque: folder.opaque }),
        }));
        Ok(Unpacked { listing: LayerListing::new(entries), implied })
    }
}

fn bad_name(name: &[u8]) -> UnpackError {
    UnpackError::Name { name: String::from_utf8_lossy(name).chars().take(200).collect() }
}

/// The name without `..` and slashes at its ends; `None` for the root.
fn clean_name(name: &[u8]) -> Result<Option<TreePath>, UnpackError> {
    if name.contains(&0) {
        return Err(bad_name(name));
    }
    let path = TreePath::clean(name);
    Ok((!path.is_root()).then_some(path))
}

/// The attributes that a layer may bring: capabilities, and what users set. Others would speak to
/// this machine's kernel (`trusted.overlay.*`, labels), which an image must not.
pub(super) fn is_kept_xattr(name: &[u8]) -> bool {
    let is_user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    (name == CAPABILITY_XATTR || is_user) && !name.contains(&0)
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
