//! Makes one file of each kind, with its owner, mode, attributes and time.

use std::fs;
use std::io::{Read, Write as _};
use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::archive::{ArchiveEntry, ArchiveError, CAPABILITY_XATTR};
use crate::pathio::Context as _;
use crate::tree::{ContentHash, File, Item, Meta, Node, TreePath};

use super::{UnpackError, Unpacker, clean_name};

/// Files up to this size are read whole and written with one call.
const WHOLE_FILE_BYTES: u64 = 1024 * 1024;

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
        let (folder, name) = self.folders.parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(folder, name, flags, mode);
        Ok(file.context("create", path.as_path())?.into())
    }

    pub(super) fn write_content<R: Read>(
        &mut self,
        path: &TreePath,
        mut out: &fs::File,
        entry: &mut ArchiveEntry<'_, R>,
    ) -> Result<ContentHash, UnpackError> {
        let mut left = entry.size;
        if left == 0 {
            return Ok(ContentHash::of(&[]));
        }
        let mut hasher = blake3::Hasher::new();
        while left > 0 {
            let n_piece = usize::try_from(left.min(WHOLE_FILE_BYTES)).unwrap_or(0);
            if self.buffer.len() < n_piece {
                self.buffer.resize(n_piece, 0);
            }
            let piece = self.buffer.get_mut(..n_piece).unwrap_or_default();
            entry.read_exact(piece).map_err(ArchiveError::Read)?;
            out.write_all(piece).context("write", path.as_path())?;
            hasher.update(piece);
            left -= left.min(WHOLE_FILE_BYTES);
        }
        Ok(ContentHash::new(hasher.finalize().into()))
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

fn times(meta: &Meta) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: meta.mtime_s, tv_nsec: 0 },
    }
}
