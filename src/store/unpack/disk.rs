//! Creates the files of an archive on the disk, each with its owner, mode, attributes and time.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::archive::{ArchiveEntry, ArchiveError, ContentRun};
use crate::pathio::holes::{self, ByteRun};
use crate::pathio::{Context as _, ids};
use crate::tree::{CAPABILITY_XATTR, ContentHash, Meta, Node, OverlayAdjustments, TreePath};

use super::super::free_space::SpaceGuard;
use super::open_directories::OpenDirectories;
use super::{Result, UnpackError, UnpackOptions, UnpackTarget};

/// Size of the buffer for contents, bytes: smaller files are written with one call.
const WHOLE_FILE_BYTES: u64 = 1024 * 1024;

/// A directory, empty at first, in which the files are created.
pub(in crate::store) struct DiskTarget<'a> {
    options: UnpackOptions,
    directories: OpenDirectories<'a>,
    buffer: Vec<u8>,
    space: SpaceGuard,
    /// Owner and group of new files, which need no chown(2). `None` if the directory has the set-group-ID
    /// bit, with which new files get its group (inode(7)).
    own_ids: Option<(u32, u32)>,
    /// Mode bits of every file and directory, in addition to those of the archive: without them an
    /// ordinary user could not read what was unpacked. The listing has the archive's mode.
    own_mode: u32,
}

/// Returns the mode bits that the owner of an unpacked file needs. A file must not become executable: steps
/// see it where the file is bound.
fn mode_bits_of(path: &TreePath, file: impl AsFd) -> Result<u32> {
    let stat = rustix::fs::fstat(file).context("look at", path.as_path())?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let needed = if is_directory { Mode::RWXU } else { Mode::RUSR | Mode::WUSR };
    Ok(needed.bits())
}

impl UnpackTarget for DiskTarget<'_> {
    fn check_space(&mut self, path: &TreePath) -> Result<()> {
        self.need(path, 0)
    }

    fn make_directory(&mut self, path: &TreePath) -> Result<()> {
        let (directory, name) = self.directories.parent(path)?;
        let made = rustix::fs::mkdirat(directory, name, Mode::RWXU);
        Ok(made.context("create directory", path.as_path())?)
    }

    fn file<R: Read>(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        entry: &mut ArchiveEntry<'_, R>,
    ) -> Result<ContentHash> {
        let out = self.create(path)?;
        let content = self.write_content(path, &out, entry)?;
        self.finish_file(path, &out, meta)?;
        Ok(content)
    }

    fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let (from, from_name) = self.directories.parent(target)?;
        let from = from.try_clone_to_owned().context("open", target.as_path())?;
        let (directory, name) = self.directories.parent(path)?;
        let linked = rustix::fs::linkat(from.as_fd(), from_name, directory, name, AtFlags::empty());
        Ok(linked.context("link", path.as_path())?)
    }

    fn symlink(&mut self, path: &TreePath, meta: &Meta, target: &[u8]) -> Result<()> {
        let (directory, name) = self.directories.parent(path)?;
        rustix::fs::symlinkat(target, directory, name).context("link", path.as_path())?;
        self.finish_node(path, meta)
    }

    fn special(&mut self, path: &TreePath, meta: &Meta, node: &Node) -> Result<()> {
        let (kind, major, minor) = match node {
            Node::CharDevice(device) => (FileType::CharacterDevice, device.major, device.minor),
            Node::BlockDevice(device) => (FileType::BlockDevice, device.major, device.minor),
            Node::Fifo | Node::File(_) | Node::Symlink(_) | Node::Directory { .. } => {
                (FileType::Fifo, 0, 0)
            }
        };
        if kind != FileType::Fifo && !self.options.devices {
            let stand_in = self.create(path)?;
            return self.finish_file(path, &stand_in, meta);
        }
        let device = rustix::fs::makedev(major, minor);
        let (directory, name) = self.directories.parent(path)?;
        rustix::fs::mknodat(directory, name, kind, Mode::empty(), device)
            .context("create a device at", path.as_path())?;
        self.finish_node(path, meta)?;
        // fchmodat(2) follows links. This is none: it was just created where no other process writes.
        let (directory, name) = self.directories.parent(path)?;
        let mode = Mode::from_raw_mode(meta.mode);
        let changed = rustix::fs::chmodat(directory, name, mode, AtFlags::empty());
        Ok(changed.context("change the mode of", path.as_path())?)
    }

    fn whiteout(&mut self, path: &TreePath) -> Result<()> {
        let (directory, name) = self.directories.parent(path)?;
        let made =
            rustix::fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0);
        Ok(made.context("create a whiteout at", path.as_path())?)
    }

    fn remove(&mut self, path: &TreePath, is_directory: bool) -> Result<()> {
        self.directories.forget();
        let (directory, name) = self.directories.parent(path)?;
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let removed = rustix::fs::unlinkat(directory, name, flags);
        self.directories.forget();
        Ok(removed.context("remove", path.as_path())?)
    }

    fn finish_directory(&mut self, path: &TreePath, meta: &Meta, is_opaque: bool) -> Result<()> {
        if is_opaque {
            self.make_opaque(path)?;
        }
        self.set_directory(path, meta)
    }
}

impl<'a> DiskTarget<'a> {
    /// Returns a target that creates files in `into`, which is empty.
    pub(in crate::store) fn new(into: BorrowedFd<'a>, options: UnpackOptions) -> Result<Self> {
        let root = TreePath::root();
        let stat = rustix::fs::fstat(into).context("look at", root.as_path())?;
        let passes_group_on = stat.st_mode & Mode::SGID.bits() != 0;
        let ids = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Self {
            options,
            directories: OpenDirectories::new(into),
            buffer: Vec::new(),
            space: SpaceGuard::default(),
            own_ids: (!passes_group_on).then(ids),
            own_mode: if options.ownership || may_override_modes()? {
                0
            } else {
                Mode::RWXU.bits()
            },
        })
    }

    /// Makes the changes that a layer needs on the layers below it.
    pub(in crate::store) fn fit(&mut self, fitting: &OverlayAdjustments) -> Result<()> {
        fitting.whiteouts_removed.iter().try_for_each(|path| self.remove(path, false))?;
        fitting.directories_removed.iter().try_for_each(|path| self.remove(path, true))?;
        fitting.whiteouts.iter().try_for_each(|path| self.whiteout(path))?;
        fitting.opaque.iter().try_for_each(|path| self.make_opaque(path))?;
        // Subdirectories first, because a change in a directory sets its time.
        let mut directories = fitting.directories.iter().rev();
        directories.try_for_each(|(path, meta)| self.set_directory(path, meta))
    }

    fn set_directory(&mut self, path: &TreePath, meta: &Meta) -> Result<()> {
        let opened = self.open_directory(path)?;
        self.finish_file(path, &opened, meta)
    }

    fn make_opaque(&mut self, path: &TreePath) -> Result<()> {
        let Some(xattr) = self.options.whiteouts.opaque_xattr() else { return Ok(()) };
        let opened = self.open_directory(path)?;
        let marked = rustix::fs::fsetxattr(&opened, xattr, b"y", XattrFlags::empty());
        Ok(marked.context("make opaque", path.as_path())?)
    }

    /// Opens a directory that was created here; a symbolic link is an error.
    fn open_directory(&mut self, path: &TreePath) -> Result<OwnedFd> {
        let (parent, name) = self.directories.parent(path)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(parent, name, flags, Mode::empty());
        Ok(opened.context("open", path.as_path())?)
    }

    /// Checks that there is space for `size` bytes of the file at `path`.
    fn need(&mut self, path: &TreePath, size: u64) -> Result<()> {
        let checked =
            self.space.need(self.directories.root(), size).context("examine", path.as_path());
        checked?.map_err(|source| UnpackError::NoSpace { path: path.clone(), size, source })
    }

    pub(super) fn create(&mut self, path: &TreePath) -> Result<fs::File> {
        self.need(path, 0)?;
        let (directory, name) = self.directories.parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(directory, name, flags, mode);
        Ok(file.context("create", path.as_path())?.into())
    }

    /// Writes the content of a file; returns its hash. Holes stay holes: a sparse file uses as much of
    /// the disk as the archive stores of it.
    pub(super) fn write_content<R: Read>(
        &mut self,
        path: &TreePath,
        out: &fs::File,
        entry: &mut ArchiveEntry<'_, R>,
    ) -> Result<ContentHash> {
        if entry.size == 0 {
            return Ok(ContentHash::of(&[]));
        }
        let mut hasher = blake3::Hasher::new();
        let (mut at, mut has_holes) = (0, false);
        loop {
            match entry.next_run() {
                ContentRun::Hole(n_bytes) => {
                    hash_zeros(&mut hasher, n_bytes);
                    at += n_bytes;
                    has_holes = true;
                }
                ContentRun::Stored(n_bytes) => {
                    has_holes |= self.write_run(path, out, entry, (at, n_bytes), &mut hasher)?;
                    at += n_bytes;
                }
                ContentRun::End => break,
            }
        }
        if has_holes {
            out.set_len(at).context("write", path.as_path())?;
        }
        Ok(ContentHash::new(hasher.finalize().into()))
    }

    /// Writes a run of stored bytes, whose offset and length are given; returns whether it left holes.
    /// Zeros become holes: they come from sparse files that were archived as plain ones, and from
    /// decompression bombs.
    fn write_run<R: Read>(
        &mut self,
        path: &TreePath,
        out: &fs::File,
        entry: &mut ArchiveEntry<'_, R>,
        (mut at, mut left): (u64, u64),
        hasher: &mut blake3::Hasher,
    ) -> Result<bool> {
        let mut has_holes = false;
        while left > 0 {
            let n_bytes = left.min(WHOLE_FILE_BYTES);
            let n_after = left - n_bytes;
            let n_piece = usize::try_from(n_bytes).unwrap_or(0);
            if self.buffer.len() < n_piece {
                self.buffer.resize(n_piece, 0);
            }
            let piece = self.buffer.get_mut(..n_piece).unwrap_or_default();
            entry.read_exact(piece).map_err(ArchiveError::Read)?;
            hasher.update(piece);
            has_holes |= self.write_piece(path, out, (at, left), n_piece)?;
            at += n_bytes;
            left = n_after;
        }
        Ok(has_holes)
    }

    /// Writes the first `n_piece` bytes of the buffer, without zeros. The offset, and the number of
    /// bytes left in the run, are given.
    fn write_piece(
        &mut self,
        path: &TreePath,
        out: &fs::File,
        (mut at, left): (u64, u64),
        n_piece: usize,
    ) -> Result<bool> {
        let (mut n_done, mut has_holes, mut has_space) = (0, false, false);
        while n_done < n_piece {
            let rest = self.buffer.get(n_done..n_piece).unwrap_or_default();
            let n_bytes = match holes::first_run(rest, at) {
                ByteRun::Hole(n_bytes) => {
                    has_holes = true;
                    n_bytes
                }
                ByteRun::Data(n_bytes) => {
                    if !has_space {
                        self.need(path, left)?;
                        has_space = true;
                    }
                    let data = self.buffer.get(n_done..n_done + n_bytes).unwrap_or_default();
                    out.write_all_at(data, at).context("write", path.as_path())?;
                    n_bytes
                }
            };
            n_done += n_bytes;
            at += u64::try_from(n_bytes).unwrap_or(u64::MAX);
        }
        Ok(has_holes)
    }

    /// Sets owner, mode, attributes and time, in this order: chown(2) clears set-user-ID bits and
    /// capabilities.
    pub(super) fn finish_file(&self, path: &TreePath, file: impl AsFd, meta: &Meta) -> Result<()> {
        if let Some((uid, gid)) = self.owner(meta) {
            rustix::fs::fchown(&file, Some(uid), Some(gid))
                .map_err(|errno| ids::explained(errno, uid, gid))
                .context("chown", path.as_path())?;
        }
        let own = if self.own_mode == 0 { 0 } else { self.own_mode & mode_bits_of(path, &file)? };
        rustix::fs::fchmod(&file, Mode::from_raw_mode(meta.mode | own))
            .context("chmod", path.as_path())?;
        self.set_xattrs(path, &file, meta)?;
        rustix::fs::futimens(file, &times(meta)).context("set the time of", path.as_path())?;
        Ok(())
    }

    /// Returns the owner to set, if it differs from that of a new file.
    pub(super) fn owner(&self, meta: &Meta) -> Option<(Uid, Gid)> {
        let is_own = self.own_ids == Some((meta.uid, meta.gid));
        let change = self.options.ownership && !is_own;
        change.then(|| (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid)))
    }

    pub(super) fn set_xattrs(&self, path: &TreePath, file: impl AsFd, meta: &Meta) -> Result<()> {
        for (name, value) in meta.xattrs() {
            let set = rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty());
            // The listing has the attribute even if the file system does not store it.
            let may_fail = name != CAPABILITY_XATTR || !self.options.ownership;
            match set {
                Err(Errno::NOTSUP | Errno::PERM | Errno::NOSPC) if may_fail => {}
                set => set.context("set an extended attribute of", path.as_path())?,
            }
        }
        Ok(())
    }

    /// Sets owner and time of a file that cannot be opened, such as a symbolic link.
    pub(super) fn finish_node(&mut self, path: &TreePath, meta: &Meta) -> Result<()> {
        let owner = self.owner(meta);
        let (directory, name) = self.directories.parent(path)?;
        if let Some((uid, gid)) = owner {
            rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| ids::explained(errno, uid, gid))
                .context("chown", path.as_path())?;
        }
        rustix::fs::utimensat(directory, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)
            .context("set the time of", path.as_path())?;
        Ok(())
    }
}

/// Returns whether this process can read files whatever their mode (`CAP_DAC_OVERRIDE`,
/// capabilities(7)).
fn may_override_modes() -> Result<bool> {
    let root = TreePath::root();
    let held = rustix::thread::capabilities(None).context("unpack files in", root.as_path())?;
    Ok(held.effective.contains(CapabilitySet::DAC_OVERRIDE))
}

/// Hashes the zeros that a hole reads as.
fn hash_zeros(hasher: &mut blake3::Hasher, n_bytes: u64) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut left = n_bytes;
    while left > 0 {
        let n_piece = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
        hasher.update(ZEROS.get(..n_piece).unwrap_or_default());
        left -= u64::try_from(n_piece).unwrap_or(left);
    }
}

fn times(meta: &Meta) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: meta.mtime_s, tv_nsec: 0 },
    }
}
