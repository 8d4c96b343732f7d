//! Drafts of output files: their names, their locks, and the removal of drafts whose writer was
//! killed.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat, flock};
use rustix::io::Errno;

use super::output::is_own_file;

/// The mode of a new file, before the umask (umask(2)).
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);
/// Prefix of a draft's name; random hexadecimal digits follow.
const DRAFT_PREFIX: &str = ".rbuild-";
const DRAFT_DIGITS: usize = 16;
/// Maximum number of names that a sweep reads in a directory: it must not make writing slow.
const MAX_NAMES_SWEPT: usize = 10_000;

/// Creates a draft and locks it (flock(2)).
pub(super) fn create(directory: &OwnedFd) -> rustix::io::Result<(OsString, File)> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::NOFOLLOW
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    loop {
        let draft = OsString::from(format!("{DRAFT_PREFIX}{:0DRAFT_DIGITS$x}", random()));
        let file = match rustix::fs::openat(directory, &draft, flags, NEW_FILE) {
            Err(Errno::EXIST) => continue,
            opened => opened?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // The sweep of another process locked the draft before this one did, and removes it.
            Err(Errno::WOULDBLOCK) => continue,
            Ok(()) if rustix::fs::fstat(&file)?.st_nlink == 0 => continue,
            // On a file system without locks, no sweep gets a lock either.
            Ok(()) | Err(_) => return Ok((draft, file.into())),
        }
    }
}

/// Removes the drafts of killed processes. Ignores errors: the next write tries again.
pub(super) fn sweep(directory: &OwnedFd) {
    // The given descriptor may be `O_PATH`, which cannot be read.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, ".", flags, Mode::empty());
    let entries = opened.and_then(rustix::fs::Dir::new).into_iter().flatten().flatten();
    for entry in entries.take(MAX_NAMES_SWEPT) {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if let Some(_held) = is_draft_name(name).then(|| lock_abandoned(directory, name)).flatten()
        {
            let _gone = rustix::fs::unlinkat(directory, name, AtFlags::empty());
        }
    }
}

fn is_draft_name(name: &OsStr) -> bool {
    let digits = name.to_str().and_then(|name| name.strip_prefix(DRAFT_PREFIX));
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits.is_some_and(|digits| digits.len() == DRAFT_DIGITS && digits.bytes().all(is_digit))
}

/// Locks a draft of the caller's own whose writer has ended. A live writer holds the lock until it
/// renames the draft, so the name refers to this file while the lock is held.
fn lock_abandoned(directory: &OwnedFd, name: &OsStr) -> Option<OwnedFd> {
    let is_single = |stat: &Stat| is_own_file(stat) && stat.st_nlink == 1;
    let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok();
    let found = found.filter(is_single)?;
    let flags =
        OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    let held = rustix::fs::fstat(&file).ok().filter(is_single)?;
    ((held.st_dev, held.st_ino) == (found.st_dev, found.st_ino)).then_some(file)
}

/// Returns an unpredictable number: the keys of the standard library's hash maps are random.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
