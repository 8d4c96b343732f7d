//! Calls that report attributes of files.

use rustix::fs::{Access, AtFlags, CWD, Stat, StatxFlags};

use super::lookup::Found;
use super::stat_layout::{stat_bytes, statfs_bytes, statx_bytes};
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Supervisor, flag_argument, number_argument};
use crate::sandbox::attributes::Attributes;
use crate::sandbox::sys::notify::Notification;

impl Supervisor {
    pub(super) fn stat(&mut self, call: &Notification) -> Answer {
        let [path, buffer, ..] = call.args;
        self.stat_at(call, (AT_FDCWD, path), buffer, AtFlags::empty())
    }

    pub(super) fn lstat(&mut self, call: &Notification) -> Answer {
        let [path, buffer, ..] = call.args;
        self.stat_at(call, (AT_FDCWD, path), buffer, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn fstat(&mut self, call: &Notification) -> Answer {
        let [file, buffer, ..] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.find_descriptor(target, number_argument(file))?;
        self.report_stat(target, &found, buffer)
    }

    pub(super) fn newfstatat(&mut self, call: &Notification) -> Answer {
        let [directory, path, buffer, flags, ..] = call.args;
        self.stat_at(call, (number_argument(directory), path), buffer, flag_argument(flags))
    }

    fn stat_at(
        &self,
        call: &Notification,
        place: (i32, u64),
        buffer: u64,
        flags: AtFlags,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let follows = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        let found = self.object(target, place, flags, follows)?;
        self.report_stat(target, &found, buffer)
    }

    fn report_stat(&self, target: Target, found: &Found, buffer: u64) -> Answer {
        target.write(buffer, &stat_bytes(&found.stat, &self.attributes(found)))?;
        Ok(Reply::Value(0))
    }

    /// Returns the attributes that the step sees.
    pub(super) fn attributes(&self, found: &Found) -> Attributes {
        self.seen_attributes(&found.stat)
    }

    /// Returns the attributes that the step sees of the file that `stat` describes.
    pub(super) fn seen_attributes(&self, stat: &Stat) -> Attributes {
        if self.rules.emulates_owners {
            return self.files.of(stat);
        }
        Attributes { uid: stat.st_uid, gid: stat.st_gid, ..Attributes::on_disk(stat) }
    }

    pub(super) fn statx(&mut self, call: &Notification) -> Answer {
        let [directory, path, flags, mask, buffer, _] = call.args;
        let target = Target::new(call.pid)?;
        let flags = flag_argument(flags);
        let follows = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        let found = self.object(target, (number_argument(directory), path), flags, follows)?;
        let mask = StatxFlags::from_bits_retain(u32::try_from(mask & 0x7fff_ffff).unwrap_or(0));
        let facts = rustix::fs::statx(&found.file, c"", AtFlags::EMPTY_PATH, mask)?;
        target.write(buffer, &statx_bytes(&facts, &self.attributes(&found)))?;
        Ok(Reply::Value(0))
    }

    pub(super) fn statfs(&mut self, call: &Notification) -> Answer {
        let [path, buffer, ..] = call.args;
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let found = self.locate(target, AT_FDCWD, &path, true)?;
        target.write(buffer, &statfs_bytes(&rustix::fs::fstatfs(&found.file)?))?;
        Ok(Reply::Value(0))
    }

    pub(super) fn access(&mut self, call: &Notification) -> Answer {
        let [path, mode, ..] = call.args;
        self.access_at(call, (AT_FDCWD, path), mode, AtFlags::empty())
    }

    pub(super) fn faccessat(&mut self, call: &Notification) -> Answer {
        let [directory, path, mode, ..] = call.args;
        self.access_at(call, (number_argument(directory), path), mode, AtFlags::empty())
    }

    pub(super) fn faccessat2(&mut self, call: &Notification) -> Answer {
        let [directory, path, mode, flags, ..] = call.args;
        self.access_at(call, (number_argument(directory), path), mode, flag_argument(flags))
    }

    fn access_at(
        &self,
        call: &Notification,
        place: (i32, u64),
        mode: u64,
        flags: AtFlags,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let follows = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        let found = self.object(target, place, flags, follows)?;
        let wanted = u32::try_from(mode & 7).unwrap_or(0);
        if !self.rules.emulates_owners {
            let mode = Access::from_bits_retain(wanted);
            rustix::fs::accessat(CWD, found.own_path(), mode, AtFlags::empty())?;
            return Ok(Reply::Value(0));
        }
        let mut state = super::identity::ProcessState::clone(&self.state(target));
        if !flags.contains(AtFlags::EACCESS) {
            // access(2) checks for the real user.
            state.uid.filesystem = state.uid.real;
            state.gid.filesystem = state.gid.real;
        }
        self.check(&found, &state, wanted)?;
        Ok(Reply::Value(0))
    }
}
