//! Owners and modes of files that a step's caller makes for it: on the disk, or emulated.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Result;

use super::attributes::{Attributes, FileId};
use super::isolation::{Isolation, isolation};
use super::rootfs::Rootfs;

const PERMISSIONS: u32 = 0o7777;

/// The owner and the permissions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAccess {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The permissions, as in chmod(2).
    pub mode: u32,
}

impl Rootfs {
    /// Gives the file `name` in a directory to an owner: on the disk, or as an emulated attribute.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_owner(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        (uid, gid): (u32, u32),
    ) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if !emulates_owners() {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            return rustix::fs::chownat(directory, name, Some(uid), Some(gid), flags);
        }
        let stat = rustix::fs::statat(directory, name, flags)?;
        let mut files = self.lock_attributes();
        let attributes = Attributes { uid, gid, ..files.of(&stat) };
        files.set(FileId::of(&stat), attributes);
        Ok(())
    }

    /// Sets owner and permissions of the file `name` in a directory, which is not a link. Returns the
    /// file if its attributes are emulated: see [`Rootfs::forget`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_access(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        access: FileAccess,
    ) -> Result<Option<FileId>> {
        let FileAccess { uid, gid, mode } = access;
        if !emulates_owners() {
            // The owner first: chown(2) clears set-id bits.
            self.set_owner(directory, name, (uid, gid))?;
            rustix::fs::chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
            return Ok(None);
        }
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            // This process must be able to read and write all files of a step.
            let disk = (mode & 0o777) | if is_directory { 0o700 } else { 0o600 };
            rustix::fs::chmodat(directory, name, Mode::from_raw_mode(disk), AtFlags::empty())?;
        }
        let attributes = Attributes {
            uid,
            gid,
            mode: (stat.st_mode & !PERMISSIONS) | mode,
            ..Attributes::on_disk(&stat)
        };
        self.lock_attributes().set(FileId::of(&stat), attributes);
        Ok(Some(FileId::of(&stat)))
    }

    /// Gives a directory and all files below it to an owner if owners are emulated, except those whose owners
    /// are known from an earlier step. The disk does not keep them between builds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn emulate_owner_below(
        &self,
        directory: BorrowedFd<'_>,
        (uid, gid): (u32, u32),
    ) -> Result<()> {
        if !emulates_owners() || (uid, gid) == (0, 0) {
            return Ok(());
        }
        let mut open = vec![open_directory(directory, b".")?];
        self.set_owner(directory, b".", (uid, gid))?;
        while let Some(directory) = open.pop() {
            for entry in Dir::read_from(&directory)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                let stat = rustix::fs::statat(&directory, name, flags)?;
                if self.lock_attributes().get(FileId::of(&stat)).is_none() {
                    self.set_owner(directory.as_fd(), name, (uid, gid))?;
                }
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    open.push(open_directory(directory.as_fd(), name)?);
                }
            }
        }
        Ok(())
    }

    /// Forgets attributes of files that are about to be removed: their inode numbers may be reused.
    pub fn forget(&self, files: &[FileId]) {
        let mut attributes = self.lock_attributes();
        for file in files {
            attributes.remove(*file);
        }
    }
}

fn emulates_owners() -> bool {
    isolation().is_some_and(Isolation::emulates_owners)
}

fn open_directory(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}
