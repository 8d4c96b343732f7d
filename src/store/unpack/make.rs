//! Makes one file of each kind, with its owner, mode, attributes and time.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::archive::{ArchiveEntry, ArchiveError, CAPABILITY_XATTR, Piece};
use crate::pathio::Context as _;
use crate::tree::{ContentHash, File, Item, Meta, Node, TreePath};

use super::super::space::is_zero;
use super::{UnpackError, Unpacker, clean_name};

/// Files up to this size are read whole and written with one call.
const WHOLE_FILE_BYTES: u64 = 1024 * 1024;

/// Zeros of this length are left out of a file, as a hole: files that were sparse before an archive
/// was made of them, and bombs.
const MIN_HOLE_BYTES: u64 = 64 << 10;

impl Unpacker<'_> {
    pub(super) fn file<R: Read>(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        entry: &mut ArchiveEntry<'_, R>,
    ) -> Result<Node, UnpackError> {
        let size = entry.size;
        let out = self.create(path)?;
        let content = self.write_content(path, &out, entry)?;
        self.finish_file(path, &out, meta)?;
        let origin = (self.origin)(path, entry.content_at);
        Ok(Node::File(File { size, content, origin }))
    }

    pub(super) fn create(&mut self, path: &TreePath) -> Result<fs::File, UnpackError> {
        self.need(path, 0)?;
        let (folder, name) = self.folders.parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(folder, name, flags, mode);
        Ok(file.context("create", path.as_path())?.into())
    }

    /// Writes the content of a file. Holes stay holes: a sparse file costs as much disk as the
    /// archive holds of it.
    pub(super) fn write_content<R: Read>(
        &mut self,
        path: &TreePath,
        out: &fs::File,
        entry: &mut ArchiveEntry<'_, R>,
    ) -> Result<ContentHash, UnpackError> {
        if entry.size == 0 {
            return Ok(ContentHash::of(&[]));
        }
        let mut hasher = blake3::Hasher::new();
        let (mut at, mut has_holes) = (0, false);
        loop {
            match entry.next_piece() {
                Piece::Hole(n_bytes) => {
                    hash_zeros(&mut hasher, n_bytes);
                    at += n_bytes;
                    has_holes = true;
                }
                Piece::Stored(n_bytes) => {
                    has_holes |= self.write_run(path, out, entry, (at, n_bytes), &mut hasher)?;
                    at += n_bytes;
                }
                Piece::End => break,
            }
        }
        if has_holes {
            out.set_len(at).context("write", path.as_path())?;
        }
        Ok(ContentHash::new(hasher.finalize().into()))
    }

    /// Writes bytes that the archive holds, with the offset and length that are given. Whole pieces
    /// of zeros are left out, as holes: true if there were any.
    fn write_run<R: Read>(
        &mut self,
        path: &TreePath,
        out: &fs::File,
        entry: &mut ArchiveEntry<'_, R>,
        (mut at, mut left): (u64, u64),
        hasher: &mut blake3::Hasher,
    ) -> Result<bool, UnpackError> {
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
            if n_bytes >= MIN_HOLE_BYTES && is_zero(piece) {
                has_holes = true;
            } else {
                self.need(path, left)?;
                let piece = self.buffer.get(..n_piece).unwrap_or_default();
                out.write_all_at(piece, at).context("write", path.as_path())?;
            }
            at += n_bytes;
            left = n_after;
        }
        Ok(has_holes)
    }

    /// Owner before mode: chown takes set-id bits and capabilities away.
    pub(super) fn finish_file(
        &self,
        path: &TreePath,
        file: impl AsFd,
        meta: &Meta,
    ) -> Result<(), UnpackError> {
        if let Some((uid, gid)) = self.owner(meta) {
            rustix::fs::fchown(&file, Some(uid), Some(gid)).context("chown", path.as_path())?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(meta.mode))
            .context("chmod", path.as_path())?;
        self.set_xattrs(path, &file, meta)?;
        rustix::fs::futimens(file, &times(meta)).context("set the time of", path.as_path())?;
        Ok(())
    }

    pub(super) fn owner(&self, meta: &Meta) -> Option<(Uid, Gid)> {
        let is_own = self.own_ids == Some((meta.uid, meta.gid));
        let change = self.options.ownership && !is_own;
        change.then(|| (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid)))
    }

    pub(super) fn set_xattrs(
        &self,
        path: &TreePath,
        file: impl AsFd,
        meta: &Meta,
    ) -> Result<(), UnpackError> {
        for (name, value) in meta.xattrs() {
            let set = rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty());
            // The listing has it also where the disk cannot.
            let may_fail = name != CAPABILITY_XATTR || !self.options.ownership;
            match set {
                Err(Errno::NOTSUP | Errno::PERM | Errno::NOSPC) if may_fail => {}
                set => set.context("set an extended attribute of", path.as_path())?,
            }
        }
        Ok(())
    }

    pub(super) fn hard_link(
        &mut self,
        path: &TreePath,
        target: &[u8],
    ) -> Result<TreePath, UnpackError> {
        let named = clean_name(target)?.unwrap_or_default();
        let target = self.known.resolve_parents(&named)?;
        let wrong = || UnpackError::LinkTarget { path: path.clone(), target: target.clone() };
        if target == *path || !self.known.is_other(&target) || self.known.is_whiteout(&target) {
            return Err(wrong());
        }
        let (from, from_name) = self.folders.parent(&target)?;
        let from = from.try_clone_to_owned().context("open", target.as_path())?;
        let (folder, name) = self.folders.parent(path)?;
        rustix::fs::linkat(from.as_fd(), from_name, folder, name, AtFlags::empty())
            .context("link", path.as_path())?;
        Ok(self.known.first_name(path, target))
    }

    pub(super) fn symlink(
        &mut self,
        path: &TreePath,
        meta: Meta,
        target: Vec<u8>,
    ) -> Result<Item, UnpackError> {
        let (folder, name) = self.folders.parent(path)?;
        rustix::fs::symlinkat(&*target, folder, name).context("link", path.as_path())?;
        self.finish_node(path, &meta)?;
        Ok(Item::Node(meta, Node::Symlink(target.into())))
    }

    pub(super) fn special(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> Result<(), UnpackError> {
        if kind != FileType::Fifo && !self.options.devices {
            let stand_in = self.create(path)?;
            return self.finish_file(path, &stand_in, meta);
        }
        let mode = Mode::from_raw_mode(meta.mode);
        let device = rustix::fs::makedev(major, minor);
        let (folder, name) = self.folders.parent(path)?;
        rustix::fs::mknodat(folder, name, kind, Mode::empty(), device)
            .context("make a device at", path.as_path())?;
        self.finish_node(path, meta)?;
        // Not a link: it was made a moment ago, and nobody else can write here.
        let (folder, name) = self.folders.parent(path)?;
        Ok(rustix::fs::chmodat(folder, name, mode, AtFlags::empty())
            .context("chmod", path.as_path())?)
    }

    /// Owner and time of what cannot be opened.
    pub(super) fn finish_node(&mut self, path: &TreePath, meta: &Meta) -> Result<(), UnpackError> {
        let owner = self.owner(meta);
        let (folder, name) = self.folders.parent(path)?;
        if let Some((uid, gid)) = owner {
            rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .context("chown", path.as_path())?;
        }
        rustix::fs::utimensat(folder, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)
            .context("set the time of", path.as_path())?;
        Ok(())
    }
}

/// Hashes a hole as the zeros that it is read as.
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
