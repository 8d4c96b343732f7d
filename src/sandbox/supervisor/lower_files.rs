//! Files that were there before the step: what an overlay would have in its lower directories.
//!
//! A step must leave the same files whether it runs on an overlay or in a directory that it changes in
//! place. Two things differ, so the supervisor does them as overlayfs does
//! (<https://docs.kernel.org/filesystems/overlayfs.html>): a directory of a lower layer cannot be renamed
//! ("redirect_dir": `EXDEV`, and programs copy it), and a change of a file with several names concerns
//! the one name that was used ("Non-standard behavior").

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, StatxFlags, Timespec,
    Timestamps, Uid,
};
use rustix::io::{Errno, Result};

use super::Supervisor;
use super::lookup::Found;
use super::mounts::path_of;
use crate::sandbox::attributes::FileId;

/// Name of a copy before it replaces its file. The step never sees it: its call is being answered.
const COPY_NAME: &str = ".rbuild-copy";

impl Supervisor {
    /// Returns whether an object existed before the step. Where the file system records no time of
    /// creation, no object counts as old.
    fn is_lower(&self, file: BorrowedFd<'_>) -> bool {
        let facts = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME);
        facts.is_ok_and(|facts| {
            let has_time = StatxFlags::from_bits_retain(facts.stx_mask).contains(StatxFlags::BTIME);
            let born = facts.stx_btime;
            has_time && self.started.is_after(born.tv_sec, born.tv_nsec)
        })
    }

    /// Checks that a directory may be renamed.
    pub(super) fn check_rename(&self, file: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory && self.is_lower(file) { Err(Errno::XDEV) } else { Ok(()) }
    }

    /// Gives the name by which a file was found a file of its own, if it has other names and existed
    /// before the step. Returns whether it did.
    pub(super) fn break_link(&mut self, found: &Found) -> Result<bool> {
        let is_shared = found.stat.st_nlink > 1
            && found.file_type() == FileType::RegularFile
            && found.mount.is_none()
            && !found.is_magic;
        let is_own = self.linked.contains(&found.id());
        if !is_shared || is_own || !self.is_lower(found.file.as_fd()) {
            return Ok(false);
        }
        let path = path_of(&found.file)?;
        let split = path.iter().rposition(|byte| *byte == b'/').ok_or(Errno::NOENT)?;
        let (directory, name) = path.split_at(split);
        let name =
            CString::new(name.get(1..).unwrap_or_default()).map_err(|_error| Errno::INVAL)?;
        let directory = if directory.is_empty() { b"/".as_slice() } else { directory };
        let directory = self.open_by_path(directory, OFlags::DIRECTORY)?;
        let named = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileId::of(&named) != found.id() {
            // It was renamed meanwhile.
            return Ok(false);
        }
        let copied = self.copy(found, directory.as_fd());
        let copied =
            copied.and_then(|()| rustix::fs::renameat(&directory, COPY_NAME, &directory, &name));
        if copied.is_err() {
            let _gone = rustix::fs::unlinkat(&directory, COPY_NAME, AtFlags::empty());
        }
        copied.map(|()| true)
    }

    /// Prepares a new name for a file, and returns the file that gets it. The file that was found becomes
    /// one of the step's own, of which a change concerns all names.
    pub(super) fn prepare_link(&mut self, found: Found) -> Result<Found> {
        let found = self.with_own_file(found)?;
        let is_file = found.file_type() == FileType::RegularFile && found.mount.is_none();
        if is_file && !found.is_magic && self.is_lower(found.file.as_fd()) {
            self.linked.insert(found.id());
        }
        Ok(found)
    }

    /// Returns the file that a change of `found` concerns.
    pub(super) fn with_own_file(&mut self, found: Found) -> Result<Found> {
        if !self.break_link(&found)? {
            return Ok(found);
        }
        let mut path = path_of(&found.file)?;
        // The old file has lost this name.
        if let Some(stripped) = path.strip_suffix(b" (deleted)") {
            path = stripped.to_vec();
        }
        let file = self.open_by_path(&path, OFlags::NOFOLLOW)?;
        let stat = rustix::fs::fstat(&file)?;
        Ok(Found { file, stat, ..found })
    }

    /// Opens an object by its path outside, as [`path_of`] returns it. In another mount namespace that
    /// path begins at the step's root.
    fn open_by_path(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        if self.rules.translates_paths || self.rules.has_mounts {
            return rustix::fs::openat(CWD, path, flags, Mode::empty());
        }
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), within)
    }

    /// Copies a file with all its attributes.
    fn copy(&mut self, found: &Found, directory: BorrowedFd<'_>) -> Result<()> {
        let own = OFlags::RDONLY | OFlags::CLOEXEC;
        let from = rustix::fs::openat(CWD, found.own_path(), own, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let to = rustix::fs::openat(directory, COPY_NAME, flags, Mode::from_raw_mode(0o600))?;
        let mut from = std::fs::File::from(from);
        let mut to = std::fs::File::from(to);
        std::io::copy(&mut from, &mut to)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let stat = &found.stat;
        if !self.rules.emulates_owners {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::fchown(&to, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        self.copy_xattrs(&from, &to);
        let time = |tv_sec, nanoseconds: u64| Timespec {
            tv_sec,
            tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
        };
        let times = Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        rustix::fs::futimens(&to, &times)?;
        if let Some(attributes) = self.files.get(found.id()).cloned() {
            self.record(&rustix::fs::fstat(&to)?, attributes);
        }
        Ok(())
    }

    fn copy_xattrs(&self, from: &std::fs::File, to: &std::fs::File) {
        let mut names = vec![0; 1 << 16];
        let len = rustix::fs::flistxattr(from, &mut names).unwrap_or(0);
        names.truncate(len);
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 1 << 16];
            if let Ok(len) = rustix::fs::fgetxattr(from, name, &mut value) {
                value.truncate(len);
                // An attribute that this process may not set is one that it emulates.
                let _best_effort =
                    rustix::fs::fsetxattr(to, name, &value, rustix::fs::XattrFlags::empty());
            }
        }
    }
}
