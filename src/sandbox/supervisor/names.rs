//! Calls that add, remove and change names of files.

use std::ffi::CString;
use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, CWD, FileType, RenameFlags};
use rustix::io::{Errno, Result};

use super::lookup::Name;
use super::permissions::is_protected;
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Stop, Supervisor, flag_argument, number_argument};
use crate::sandbox::attributes::FileId;
use crate::sandbox::sys::notify::Notification;

impl Supervisor {
    pub(super) fn link(&mut self, call: &Notification) -> Answer {
        let [from, to, ..] = call.args;
        self.hard_link(call, (AT_FDCWD, from), (AT_FDCWD, to), AtFlags::empty())
    }

    pub(super) fn linkat(&mut self, call: &Notification) -> Answer {
        let [from_directory, from, to_directory, to, flags, ..] = call.args;
        let from = (number_argument(from_directory), from);
        let to = (number_argument(to_directory), to);
        self.hard_link(call, from, to, flag_argument(flags))
    }

    fn hard_link(
        &mut self,
        call: &Notification,
        from: (i32, u64),
        to: (i32, u64),
        flags: AtFlags,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let follows = flags.contains(AtFlags::SYMLINK_FOLLOW);
        let found = match self.object(target, from, flags, follows) {
            Err(Stop::Proceed) => {
                if let Ok(path) = target.string(from.1)
                    && let Ok(found) = self.find(target, from.0, &path, follows)
                {
                    self.prepare_link(found)?;
                }
                return Err(Stop::Proceed);
            }
            found => found?,
        };
        let path = self.path(target, to.1)?;
        let name = self.name(target, to.0, &path)?;
        if name.name.is_empty() || self.is_mount_point(&name) {
            return Err(Errno::EXIST.into());
        }
        let state = self.state(target);
        self.check_directory(&name.directory, name.mount, &state)?;
        let found = self.prepare_link(found)?;
        let flags = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(CWD, found.own_path(), &name.directory, &name.name, flags)?;
        Ok(Reply::Value(0))
    }

    pub(super) fn unlink(&mut self, call: &Notification) -> Answer {
        let [path, ..] = call.args;
        self.remove_name(call, AT_FDCWD, path, AtFlags::empty())
    }

    pub(super) fn rmdir(&mut self, call: &Notification) -> Answer {
        let [path, ..] = call.args;
        self.remove_name(call, AT_FDCWD, path, AtFlags::REMOVEDIR)
    }

    pub(super) fn unlinkat(&mut self, call: &Notification) -> Answer {
        let [directory, path, flags, ..] = call.args;
        self.remove_name(call, number_argument(directory), path, flag_argument(flags))
    }

    fn remove_name(
        &mut self,
        call: &Notification,
        directory: i32,
        path: u64,
        flags: AtFlags,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let name = self.name_any(target, directory, &path)?;
        if name.name.is_empty() || self.is_mount_point(&name) {
            return Err(Errno::BUSY.into());
        }
        if !self.acts_on_name(&name, target, directory, &path) {
            return Err(Stop::Proceed);
        }
        if path.ends_with(b"/.") {
            return Err(Errno::INVAL.into());
        }
        if name.wants_directory && !flags.contains(AtFlags::REMOVEDIR) {
            return Err(Errno::NOTDIR.into());
        }
        let victim = self.check_removal(target, &name)?;
        rustix::fs::unlinkat(&name.directory, &name.name, flags)?;
        self.forget(victim);
        Ok(Reply::Value(0))
    }

    /// Checks that the process may remove a name; returns the file if this is its last name.
    pub(super) fn check_removal(&self, target: Target, name: &Name) -> Result<Option<FileId>> {
        let state = self.state(target);
        let stat = rustix::fs::statat(&name.directory, &name.name, AtFlags::SYMLINK_NOFOLLOW);
        let directory = self.check_directory(&name.directory, name.mount, &state);
        let (stat, directory) = (stat?, directory?);
        if self.rules.emulates_owners && is_protected(&state, &directory, &self.files.of(&stat)) {
            return Err(Errno::PERM);
        }
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Ok((is_directory || stat.st_nlink == 1).then(|| FileId::of(&stat)))
    }

    pub(super) fn forget(&mut self, file: Option<FileId>) {
        if let Some(file) = file {
            self.files.remove(file);
        }
    }

    pub(super) fn rename(&mut self, call: &Notification) -> Answer {
        let [from, to, ..] = call.args;
        self.rename_names(call, (AT_FDCWD, from), (AT_FDCWD, to), 0)
    }

    pub(super) fn renameat(&mut self, call: &Notification) -> Answer {
        let [from_directory, from, to_directory, to, ..] = call.args;
        let from = (number_argument(from_directory), from);
        self.rename_names(call, from, (number_argument(to_directory), to), 0)
    }

    pub(super) fn renameat2(&mut self, call: &Notification) -> Answer {
        let [from_directory, from, to_directory, to, flags, ..] = call.args;
        let from = (number_argument(from_directory), from);
        self.rename_names(call, from, (number_argument(to_directory), to), flags)
    }

    fn rename_names(
        &mut self,
        call: &Notification,
        from: (i32, u64),
        to: (i32, u64),
        flags: u64,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let (from_path, to_path) = (self.path(target, from.1)?, self.path(target, to.1)?);
        let (from_directory, to_directory) = (from.0, to.0);
        let from = self.name_any(target, from_directory, &from_path)?;
        let to = self.name_any(target, to_directory, &to_path)?;
        if let Ok(file) = self.open_new(&from)
            && from.mount.is_none()
        {
            self.check_rename(file.as_fd(), &rustix::fs::fstat(&file)?)?;
        }
        let starts_in_mount = self.starts_in_mount(target, from_directory, &from_path)
            || self.starts_in_mount(target, to_directory, &to_path);
        for name in [&from, &to] {
            if name.name.is_empty() || self.is_mount_point(name) {
                return Err(Errno::BUSY.into());
            }
        }
        if !starts_in_mount && !self.acts_in(from.mount) && !self.acts_in(to.mount) {
            return Err(Stop::Proceed);
        }
        if from.mount != to.mount {
            return Err(Errno::XDEV.into());
        }
        self.check_removal(target, &from)?;
        let flags = RenameFlags::from_bits_retain(u32::try_from(flags).unwrap_or(u32::MAX));
        let victim = match self.check_removal(target, &to) {
            Ok(victim) => victim,
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno.into()),
        };
        let source = rustix::fs::statat(&from.directory, &from.name, AtFlags::SYMLINK_NOFOLLOW)?;
        // A slash after the name of a file must be an error, as it is without a supervisor.
        let with_slash = |name: &Name| {
            let mut bytes = name.name.as_bytes().to_vec();
            if name.wants_directory {
                bytes.push(b'/');
            }
            CString::new(bytes).unwrap_or_default()
        };
        let (old, new) = (with_slash(&from), with_slash(&to));
        if flags.is_empty() {
            rustix::fs::renameat(&from.directory, &old, &to.directory, &new)?;
        } else {
            rustix::fs::renameat_with(&from.directory, &old, &to.directory, &new, flags)?;
        }
        if !flags.contains(RenameFlags::EXCHANGE) {
            self.forget(victim.filter(|victim| *victim != FileId::of(&source)));
        }
        Ok(Reply::Value(0))
    }
}
