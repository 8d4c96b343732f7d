//! System calls of a walk, each relative to a directory's descriptor.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags, fgetxattr,
    flistxattr, openat, openat2, readlinkat, statx,
};
use rustix::io::{Errno, Result, read};

use crate::limits::MAX_XATTR_LIST_BYTES;
use crate::pathio::interrupt;
use crate::tree::{ContentHash, Device, TreePath, Xattrs, is_kept_xattr};

use super::hash_cache::{FileContent, Stamp};

/// Buffer size of getdents64(2) in bytes.
const NAMES_BYTES: usize = 32 * 1024;
/// Maximum size of one read of a file in bytes.
const PIECE_BYTES: u64 = 256 * 1024;
/// The metadata of a file (statx(2)).
#[derive(Debug, Clone, Copy)]
pub(super) struct Stat {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) mtime_s: i64,
    pub(super) n_links: u32,
    pub(super) device: Device,
    pub(super) stamp: Stamp,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// `NONBLOCK`, so that opening a FIFO that replaced the file does not block (fifo(7)).
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::NOFOLLOW);

pub(super) fn open_root(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, DIRECTORY, Mode::empty())
}

/// Opens the directory `path` below `root`. Fails if the path contains a link.
pub(super) fn open_directory(root: impl AsFd, path: &TreePath) -> Result<OwnedFd> {
    open_beneath(root, path, DIRECTORY | OFlags::NOFOLLOW)
}

/// Opens the regular file `path` below `root` for reading. Fails if the path contains a link.
pub(super) fn open_file(root: impl AsFd, path: &TreePath) -> Result<OwnedFd> {
    let file = open_beneath(root, path, FILE)?;
    if stat_open(&file)?.kind != FileType::RegularFile {
        // It was replaced since the walk.
        return Err(Errno::STALE);
    }
    Ok(file)
}

/// Opens `path` with its links resolved inside `root` (openat2(2), `RESOLVE_IN_ROOT`), to check
/// that it exists.
pub(super) fn open_in_root(root: impl AsFd, path: &TreePath) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, path.as_path(), flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => open_beneath(root, path, flags | OFlags::NOFOLLOW),
        result => result,
    }
}

fn open_beneath(root: impl AsFd, path: &TreePath, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    match openat2(&root, path.as_path(), flags, Mode::empty(), resolve) {
        // Kernels before 5.6, and seccomp filters that do not know openat2(2).
        Err(Errno::NOSYS | Errno::PERM) => open_by_name(root, path, flags),
        result => result,
    }
}

/// Opens `path` like openat2(2), name by name.
fn open_by_name(root: impl AsFd, path: &TreePath, flags: OFlags) -> Result<OwnedFd> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut directory = openat(&root, ".", step, Mode::empty())?;
    let mut names = path.names().peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            return openat(&directory, name, flags | OFlags::NOFOLLOW, Mode::empty());
        }
        directory = openat(&directory, name, step, Mode::empty())?;
    }
    openat(&directory, ".", flags, Mode::empty())
}

/// Returns the metadata of `name` in `directory`, without following a link.
pub(super) fn stat(directory: impl AsFd, name: &[u8]) -> Result<Stat> {
    statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .map(|stat| from(&stat))
}

pub(super) fn stat_open(file: impl AsFd) -> Result<Stat> {
    statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(|stat| from(&stat))
}

fn from(stat: &Statx) -> Stat {
    let nanoseconds = |seconds: i64, rest: u32| {
        seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(rest))
    };
    let stamp = Stamp {
        device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
        inode: stat.stx_ino,
        size: stat.stx_size,
        mtime_ns: nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        ctime_ns: nanoseconds(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
    };
    Stat {
        kind: FileType::from_raw_mode(stat.stx_mode.into()),
        mode: u32::from(stat.stx_mode) & 0o7777,
        mtime_s: stat.stx_mtime.tv_sec,
        n_links: stat.stx_nlink,
        device: Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor },
        stamp,
    }
}

/// Returns the names in `directory`, in byte order.
pub(super) fn names(directory: impl AsFd) -> Result<Vec<Box<[u8]>>> {
    let mut buffer = [const { MaybeUninit::uninit() }; NAMES_BYTES];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names: Vec<Box<[u8]>> = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.into());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Returns the target of the symbolic link `name` in `directory`.
pub(super) fn link_target(directory: impl AsFd, name: &[u8]) -> Result<Box<[u8]>> {
    readlinkat(directory, name, Vec::new()).map(|target| target.into_bytes().into())
}

/// Reads the regular file `name` in `directory`. Returns its metadata on opening, and its digest.
pub(super) fn read_content(directory: impl AsFd, name: &TreePath) -> Result<(Stat, FileContent)> {
    let file = open_file(directory, name)?;
    let mut stat = stat_open(&file)?;
    let (content, size) = hash(&file, stat.stamp.size)?;
    // It became shorter: another process writes to it, and the next build reads it again.
    stat.stamp.size = size;
    let xattrs = xattrs(&file)?;
    Ok((stat, FileContent { content, xattrs }))
}

/// Hashes at most `size` bytes. Bytes appended meanwhile do not belong to the file as it was found.
fn hash(file: &OwnedFd, size: u64) -> Result<(ContentHash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; usize::try_from(size.min(PIECE_BYTES)).unwrap_or_default()];
    let mut left = size;
    while left > 0 {
        if interrupt::is_asked() {
            return Err(Errno::CANCELED);
        }
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let n_read = match read(file, buffer.get_mut(..want).unwrap_or_default()) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        if n_read == 0 {
            break;
        }
        hasher.update(buffer.get(..n_read).unwrap_or_default());
        left = left.saturating_sub(u64::try_from(n_read).unwrap_or(left));
    }
    Ok((ContentHash::new(hasher.finalize().into()), size - left))
}

/// Returns the extended attributes that an image stores (xattr(7)). `None` if there are none, or
/// the file system does not support them.
pub(super) fn xattrs(file: impl AsFd) -> Result<Option<Box<Xattrs>>> {
    let mut small = [0; 256];
    let length = match flistxattr(&file, &mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => return Ok(None),
        Ok(length) => Some(length),
        Err(Errno::RANGE) => None,
        Err(error) => return Err(error),
    };
    let mut large = Vec::new();
    let list = match length {
        Some(length) => small.get(..length).unwrap_or_default(),
        None => {
            large.resize(MAX_XATTR_LIST_BYTES, 0);
            let length = flistxattr(&file, &mut large)?;
            large.get(..length).unwrap_or_default()
        }
    };
    let mut xattrs = Xattrs::new();
    for name in list.split(|byte| *byte == 0).filter(|name| is_kept_xattr(name)) {
        let mut value = vec![0; MAX_XATTR_LIST_BYTES];
        let length = match fgetxattr(&file, name, &mut value) {
            // Removed since flistxattr(2).
            Err(Errno::NODATA) => continue,
            result => result?,
        };
        xattrs.insert(name.into(), value.get(..length).unwrap_or_default().into());
    }
    Ok(if xattrs.is_empty() { None } else { Some(Box::new(xattrs)) })
}
