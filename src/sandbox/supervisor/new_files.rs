//! Calls that create directories, devices and links; owners and modes of new files.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::identity::ProcessState;
use super::lookup::{Name, own_path};
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Supervisor, number_argument};
use crate::sandbox::attributes::Attributes;
use crate::sandbox::sys::notify::Notification;

const SET_GROUP_ID: u32 = 0o2000;

impl Supervisor {
    /// Returns the permissions on the disk for those that the step wants: this process must be able to
    /// read and write all files where it has no rights of root.
    pub(super) const fn disk_mode(&self, wanted: u32, is_directory: bool) -> u32 {
        if !self.rules.emulates_owners {
            return wanted;
        }
        (wanted & 0o777) | if is_directory { 0o700 } else { 0o600 }
    }

    /// Sets the permissions that rbuild's own umask has removed.
    pub(super) fn mend_mode(&self, file: &OwnedFd, mode: Mode) -> Result<()> {
        if mode.as_raw_mode() & self.own_umask == 0 {
            return Ok(());
        }
        rustix::fs::chmodat(CWD, own_path(file.as_fd()), mode, AtFlags::empty())
    }

    /// Records the owner and the mode of a new file.
    pub(super) fn note_new(
        &mut self,
        file: &OwnedFd,
        parent: &Attributes,
        wanted: u32,
        state: &ProcessState,
    ) -> Result<()> {
        let stat = rustix::fs::fstat(file)?;
        if !self.rules.emulates_owners {
            return own_like(state, file);
        }
        let mut attributes = Attributes::on_disk(&stat);
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        attributes.uid = state.uid.filesystem;
        attributes.gid = state.gid.filesystem;
        let mut bits = wanted;
        if parent.mode & SET_GROUP_ID != 0 {
            attributes.gid = parent.gid;
            if is_directory {
                bits |= SET_GROUP_ID;
            }
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            attributes.mode = (stat.st_mode & !0o7777) | bits;
        }
        self.record(&stat, attributes);
        Ok(())
    }

    pub(super) fn mkdir(&mut self, call: &Notification) -> Answer {
        let [path, mode, ..] = call.args;
        self.make_directory(call, AT_FDCWD, path, mode)
    }

    pub(super) fn mkdirat(&mut self, call: &Notification) -> Answer {
        let [directory, path, mode, ..] = call.args;
        self.make_directory(call, number_argument(directory), path, mode)
    }

    fn make_directory(
        &mut self,
        call: &Notification,
        directory: i32,
        path: u64,
        mode: u64,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let name = self.name(target, directory, &path)?;
        if name.name.is_empty() || self.is_mount_point(&name) {
            return Err(Errno::EXIST.into());
        }
        let state = self.state(target);
        if self.exists(&name) {
            return Err(Errno::EXIST.into());
        }
        let parent = self.check_directory(&name.directory, name.mount, &state)?;
        let wanted = u32::try_from(mode & 0o1777).unwrap_or(0) & !state.umask;
        let disk = Mode::from_raw_mode(self.disk_mode(wanted, true));
        rustix::fs::mkdirat(&name.directory, &name.name, disk)?;
        let file = self.open_new(&name)?;
        self.mend_mode(&file, disk)?;
        self.note_new(&file, &parent, wanted, &state)?;
        Ok(Reply::Value(0))
    }

    pub(super) fn exists(&self, name: &Name) -> bool {
        rustix::fs::statat(&name.directory, &name.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    pub(super) fn open_new(&self, name: &Name) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&name.directory, &name.name, flags, Mode::empty())
    }

    pub(super) fn mknod(&mut self, call: &Notification) -> Answer {
        let [path, mode, device, ..] = call.args;
        self.make_node(call, AT_FDCWD, path, (mode, device))
    }

    pub(super) fn mknodat(&mut self, call: &Notification) -> Answer {
        let [directory, path, mode, device, ..] = call.args;
        self.make_node(call, number_argument(directory), path, (mode, device))
    }

    fn make_node(
        &mut self,
        call: &Notification,
        directory: i32,
        path: u64,
        (mode, device): (u64, u64),
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let name = self.name(target, directory, &path)?;
        if name.name.is_empty() || self.exists(&name) || self.is_mount_point(&name) {
            return Err(Errno::EXIST.into());
        }
        let state = self.state(target);
        let parent = self.check_directory(&name.directory, name.mount, &state)?;
        let raw = u32::try_from(mode & 0xffff).unwrap_or(0);
        let wanted = raw & 0o7777 & !state.umask;
        let kind = match FileType::from_raw_mode(raw) {
            FileType::Unknown if raw & 0o170_000 == 0 => FileType::RegularFile,
            kind @ (FileType::RegularFile
            | FileType::Directory
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown) => kind,
        };
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if is_device && !state.is_privileged() {
            return Err(Errno::PERM.into());
        }
        let disk = Mode::from_raw_mode(self.disk_mode(wanted, false));
        let emulates = is_device && self.rules.emulates_owners;
        let made = if emulates { FileType::RegularFile } else { kind };
        let number = if emulates { 0 } else { device };
        rustix::fs::mknodat(&name.directory, &name.name, made, disk, number)?;
        let file = self.open_new(&name)?;
        self.mend_mode(&file, disk)?;
        self.note_new(&file, &parent, wanted, &state)?;
        if emulates {
            let stat = rustix::fs::fstat(&file)?;
            let mut attributes = self.files.of(&stat);
            attributes.mode = (raw & 0o170_000) | (attributes.mode & 0o7777);
            attributes.device = device;
            self.record(&stat, attributes);
        }
        Ok(Reply::Value(0))
    }

    pub(super) fn symlink(&mut self, call: &Notification) -> Answer {
        let [to, path, ..] = call.args;
        self.make_link(call, to, AT_FDCWD, path)
    }

    pub(super) fn symlinkat(&mut self, call: &Notification) -> Answer {
        let [to, directory, path, ..] = call.args;
        self.make_link(call, to, number_argument(directory), path)
    }

    fn make_link(&mut self, call: &Notification, to: u64, directory: i32, path: u64) -> Answer {
        let target = Target::new(call.pid)?;
        let to = self.path(target, to)?;
        let path = self.path(target, path)?;
        let name = self.name(target, directory, &path)?;
        if name.name.is_empty() || self.is_mount_point(&name) {
            return Err(Errno::EXIST.into());
        }
        let state = self.state(target);
        if self.exists(&name) {
            return Err(Errno::EXIST.into());
        }
        let parent = self.check_directory(&name.directory, name.mount, &state)?;
        rustix::fs::symlinkat(to.as_slice(), &name.directory, &name.name)?;
        let file = self.open_new(&name)?;
        self.note_new(&file, &parent, 0o777, &state)?;
        Ok(Reply::Value(0))
    }
}

/// Gives a new file in a mount to the user of the process that creates it.
fn own_like(state: &ProcessState, file: &OwnedFd) -> Result<()> {
    let (uid, gid) = (state.uid.filesystem, state.gid.filesystem);
    if uid == 0 && gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(file, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}
