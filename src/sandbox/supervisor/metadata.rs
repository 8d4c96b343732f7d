//! Calls that report and change attributes of files.

use std::ffi::CString;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, StatxFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use super::lookup::Found;
use super::permissions::{EXECUTE, READ, WRITE, may, owns};
use super::stat_layout::{stat_bytes, statfs_bytes, statx_bytes};
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Stop, Supervisor, flag_argument, id_argument, number_argument};
use crate::sandbox::attributes::Attributes;
use crate::sandbox::sys::notify::Notification;

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;
const PERMISSIONS: u32 = 0o7777;
/// An owner that is not changed (chown(2)).
const UNCHANGED: u32 = u32::MAX;
/// Maximum size of the value of an extended attribute (xattr(7), `XATTR_SIZE_MAX`).
const MAX_XATTR_BYTES: u64 = 65_536;
/// `UTIME_OMIT` (utimensat(2)).
const UTIME_OMIT: i64 = 0x3fff_fffe;
const CAPABILITY_XATTR: &[u8] = b"security.capability";

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
    fn attributes(&self, found: &Found) -> Attributes {
        if self.rules.emulates_owners {
            return self.files.of(&found.stat);
        }
        let stat = &found.stat;
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

    pub(super) fn truncate(&mut self, call: &Notification) -> Answer {
        let [path, len, ..] = call.args;
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let found = self.locate_to_change(target, &path, true)?;
        self.check(&found, &self.state(target), WRITE)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(CWD, found.own_path(), flags, Mode::empty())?;
        rustix::fs::ftruncate(file, len)?;
        Ok(Reply::Value(0))
    }

    pub(super) fn chmod(&mut self, call: &Notification) -> Answer {
        let [path, mode, ..] = call.args;
        self.change_mode(call, (AT_FDCWD, path), mode, AtFlags::empty())
    }

    pub(super) fn fchmod(&mut self, call: &Notification) -> Answer {
        let [file, mode, ..] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.find_descriptor(target, number_argument(file))?;
        let found = self.with_own_file(found)?;
        self.set_mode(target, &found, mode)
    }

    pub(super) fn fchmodat(&mut self, call: &Notification) -> Answer {
        let [directory, path, mode, ..] = call.args;
        self.change_mode(call, (number_argument(directory), path), mode, AtFlags::empty())
    }

    pub(super) fn fchmodat2(&mut self, call: &Notification) -> Answer {
        let [directory, path, mode, flags, ..] = call.args;
        self.change_mode(call, (number_argument(directory), path), mode, flag_argument(flags))
    }

    fn change_mode(
        &mut self,
        call: &Notification,
        place: (i32, u64),
        mode: u64,
        flags: AtFlags,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let follows = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        let found = self.object_to_change(target, place, flags, follows)?;
        self.set_mode(target, &found, mode)
    }

    fn set_mode(&mut self, target: Target, found: &Found, mode: u64) -> Answer {
        let mut wanted = u32::try_from(mode & 0o7777).unwrap_or(0);
        if found.file_type() == FileType::Symlink {
            return Err(Errno::OPNOTSUPP.into());
        }
        self.check_read_only(found)?;
        let state = self.state(target);
        let mut attributes = self.attributes(found);
        if self.rules.emulates_owners {
            if !owns(&state, &attributes) {
                return Err(Errno::PERM.into());
            }
            if state.uid.filesystem != 0 && !state.is_in_group(attributes.gid) {
                wanted &= !SET_GROUP_ID;
            }
        }
        let is_directory = found.file_type() == FileType::Directory;
        let disk = Mode::from_raw_mode(self.disk_mode(wanted, is_directory));
        rustix::fs::chmodat(CWD, found.own_path(), disk, AtFlags::empty())?;
        if self.rules.emulates_owners {
            attributes.mode = (attributes.mode & !PERMISSIONS) | wanted;
            self.record(&rustix::fs::fstat(&found.file)?, attributes);
        }
        Ok(Reply::Value(0))
    }

    fn check_read_only(&self, found: &Found) -> Result<(), Errno> {
        match found.mount.and_then(|at| self.mounts.get(at)) {
            Some(at) if at.read_only => Err(Errno::ROFS),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn chown(&mut self, call: &Notification) -> Answer {
        let [path, ..] = call.args;
        self.change_owner(call, (AT_FDCWD, path), 1, AtFlags::empty())
    }

    pub(super) fn lchown(&mut self, call: &Notification) -> Answer {
        let [path, ..] = call.args;
        self.change_owner(call, (AT_FDCWD, path), 1, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn fchown(&mut self, call: &Notification) -> Answer {
        let [file, ..] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.find_descriptor(target, number_argument(file))?;
        let found = self.with_own_file(found)?;
        self.set_owner(target, &found, id_argument(call, 1), id_argument(call, 2))
    }

    pub(super) fn fchownat(&mut self, call: &Notification) -> Answer {
        let [directory, path, _, _, flags, _] = call.args;
        self.change_owner(call, (number_argument(directory), path), 2, flag_argument(flags))
    }

    /// `ids` is the index of the first argument that is an id.
    fn change_owner(
        &mut self,
        call: &Notification,
        place: (i32, u64),
        ids: usize,
        flags: AtFlags,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let follows = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        let found = self.object_to_change(target, place, flags, follows)?;
        let (uid, gid) = (id_argument(call, ids), id_argument(call, ids.saturating_add(1)));
        self.set_owner(target, &found, uid, gid)
    }

    fn set_owner(&mut self, target: Target, found: &Found, uid: u32, gid: u32) -> Answer {
        self.check_read_only(found)?;
        if !self.rules.emulates_owners {
            let id = |id: u32| (id != UNCHANGED).then_some(id);
            let (uid, gid) = (id(uid).map(Uid::from_raw), id(gid).map(Gid::from_raw));
            rustix::fs::chownat(&found.file, c"", uid, gid, AtFlags::EMPTY_PATH)?;
            return Ok(Reply::Value(0));
        }
        let state = self.state(target);
        let mut attributes = self.files.of(&found.stat);
        if state.uid.filesystem != 0 {
            let keeps_user = uid == UNCHANGED || uid == attributes.uid;
            let may_set_group = gid == UNCHANGED || state.is_in_group(gid);
            if !owns(&state, &attributes) || !keeps_user || !may_set_group {
                return Err(Errno::PERM.into());
            }
        }
        if uid != UNCHANGED {
            attributes.uid = uid;
        }
        if gid != UNCHANGED {
            attributes.gid = gid;
        }
        // chown(2): set-id bits and file capabilities do not survive a change of the owner.
        if found.file_type() != FileType::Directory && found.file_type() != FileType::Symlink {
            attributes.mode &= !SET_USER_ID;
            if attributes.mode & GROUP_EXECUTE != 0 {
                attributes.mode &= !SET_GROUP_ID;
            }
            attributes.xattrs.remove(CAPABILITY_XATTR);
        }
        self.record(&found.stat, attributes);
        Ok(Reply::Value(0))
    }

    pub(super) fn utime(&mut self, call: &Notification) -> Answer {
        let [path, times, ..] = call.args;
        let target = Target::new(call.pid)?;
        let times = if times == 0 {
            None
        } else {
            let seconds = |at: u64| target.u64(times.saturating_add(at)).map(u64::cast_signed);
            Some([(seconds(0)?, 0), (seconds(8)?, 0)])
        };
        self.set_times(call, (AT_FDCWD, path), times, AtFlags::empty())
    }

    pub(super) fn utimes(&mut self, call: &Notification) -> Answer {
        let [path, times, ..] = call.args;
        self.utimes_at(call, (AT_FDCWD, path), times)
    }

    pub(super) fn futimesat(&mut self, call: &Notification) -> Answer {
        let [directory, path, times, ..] = call.args;
        self.utimes_at(call, (number_argument(directory), path), times)
    }

    fn utimes_at(&mut self, call: &Notification, place: (i32, u64), times: u64) -> Answer {
        let target = Target::new(call.pid)?;
        let times = if times == 0 {
            None
        } else {
            let word = |at: u64| target.u64(times.saturating_add(at)).map(u64::cast_signed);
            let micro = |at: u64| word(at).map(|micros| micros.saturating_mul(1000));
            Some([(word(0)?, micro(8)?), (word(16)?, micro(24)?)])
        };
        self.set_times(call, place, times, AtFlags::empty())
    }

    pub(super) fn utimensat(&mut self, call: &Notification) -> Answer {
        let [directory, path, times, flags, ..] = call.args;
        let target = Target::new(call.pid)?;
        let read = if times == 0 {
            None
        } else {
            let word = |at: u64| target.u64(times.saturating_add(at)).map(u64::cast_signed);
            Some([(word(0)?, word(8)?), (word(16)?, word(24)?)])
        };
        self.set_times(call, (number_argument(directory), path), read, flag_argument(flags))
    }

    /// Sets access and modification time, in seconds and nanoseconds; the current time for `None`.
    fn set_times(
        &mut self,
        call: &Notification,
        place: (i32, u64),
        times: Option<[(i64, i64); 2]>,
        flags: AtFlags,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        if place.1 == 0 {
            // futimens(3): the descriptor itself.
            return Err(Stop::Proceed);
        }
        let follows = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        let found = self.object_to_change(target, place, flags, follows)?;
        self.check_read_only(&found)?;
        let state = self.state(target);
        let attributes = self.attributes(&found);
        if self.rules.emulates_owners && !owns(&state, &attributes) {
            let keeps_both = times.is_some_and(|[a, m]| a.1 == UTIME_OMIT && m.1 == UTIME_OMIT);
            if !keeps_both && (times.is_some() || !may(&state, &attributes, WRITE)) {
                return Err(if times.is_some() { Errno::PERM } else { Errno::ACCESS }.into());
            }
        }
        let now = (0, rustix::fs::UTIME_NOW);
        let [access, modification] = times.map_or([now; 2], |times| times.map(|(s, ns)| (s, ns)));
        let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time(access), last_modification: time(modification) };
        if found.file_type() == FileType::Symlink {
            let path = self.path(target, place.1)?;
            let name = self.name(target, place.0, &path)?;
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(&name.directory, &name.name, &times, flags)?;
        } else {
            rustix::fs::utimensat(CWD, found.own_path(), &times, AtFlags::empty())?;
        }
        Ok(Reply::Value(0))
    }

    pub(super) fn setxattr(&mut self, call: &Notification) -> Answer {
        self.set_xattr(call, XattrPlace::Path { follows: true })
    }

    pub(super) fn lsetxattr(&mut self, call: &Notification) -> Answer {
        self.set_xattr(call, XattrPlace::Path { follows: false })
    }

    pub(super) fn fsetxattr(&mut self, call: &Notification) -> Answer {
        self.set_xattr(call, XattrPlace::Descriptor)
    }

    pub(super) fn getxattr(&mut self, call: &Notification) -> Answer {
        self.get_xattr(call, XattrPlace::Path { follows: true })
    }

    pub(super) fn lgetxattr(&mut self, call: &Notification) -> Answer {
        self.get_xattr(call, XattrPlace::Path { follows: false })
    }

    pub(super) fn fgetxattr(&mut self, call: &Notification) -> Answer {
        self.get_xattr(call, XattrPlace::Descriptor)
    }

    pub(super) fn listxattr(&mut self, call: &Notification) -> Answer {
        self.list_xattrs(call, XattrPlace::Path { follows: true })
    }

    pub(super) fn llistxattr(&mut self, call: &Notification) -> Answer {
        self.list_xattrs(call, XattrPlace::Path { follows: false })
    }

    pub(super) fn flistxattr(&mut self, call: &Notification) -> Answer {
        self.list_xattrs(call, XattrPlace::Descriptor)
    }

    pub(super) fn removexattr(&mut self, call: &Notification) -> Answer {
        self.remove_xattr(call, XattrPlace::Path { follows: true })
    }

    pub(super) fn lremovexattr(&mut self, call: &Notification) -> Answer {
        self.remove_xattr(call, XattrPlace::Path { follows: false })
    }

    pub(super) fn fremovexattr(&mut self, call: &Notification) -> Answer {
        self.remove_xattr(call, XattrPlace::Descriptor)
    }

    fn xattr_file(&self, target: Target, place: XattrPlace, argument: u64) -> Result<Found, Stop> {
        match place {
            XattrPlace::Path { follows } => {
                let path = self.path(target, argument)?;
                self.locate(target, AT_FDCWD, &path, follows)
            }
            XattrPlace::Descriptor => Ok(self.find_descriptor(target, number_argument(argument))?),
        }
    }

    fn xattr_file_to_change(
        &mut self,
        target: Target,
        place: XattrPlace,
        argument: u64,
    ) -> Result<Found, Stop> {
        if let XattrPlace::Path { follows } = place {
            let path = self.path(target, argument)?;
            return self.locate_to_change(target, &path, follows);
        }
        let found = self.xattr_file(target, place, argument)?;
        Ok(self.with_own_file(found)?)
    }

    /// Finds an object to change by its path, like [`Self::object_to_change`].
    fn locate_to_change(
        &mut self,
        target: Target,
        path: &[u8],
        follows: bool,
    ) -> Result<Found, Stop> {
        match self.locate(target, AT_FDCWD, path, follows) {
            Err(Stop::Proceed) => {
                if let Ok(found) = self.find(target, AT_FDCWD, path, follows) {
                    self.break_link(&found)?;
                }
                Err(Stop::Proceed)
            }
            found => Ok(self.with_own_file(found?)?),
        }
    }

    fn set_xattr(&mut self, call: &Notification, place: XattrPlace) -> Answer {
        let [file, name, value, size, flags, _] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.xattr_file_to_change(target, place, file)?;
        let name = target.string(name)?;
        if size > MAX_XATTR_BYTES {
            return Err(Errno::TOOBIG.into());
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        target.read_exact(value, &mut bytes)?;
        self.check_read_only(&found)?;
        let flags = XattrFlags::from_bits_retain(u32::try_from(flags & 0xff).unwrap_or(0));
        if !self.is_emulated_xattr(&name) {
            self.check(&found, &self.state(target), WRITE)?;
            rustix::fs::setxattr(found.own_path(), name.as_slice(), &bytes, flags)?;
            return Ok(Reply::Value(0));
        }
        if name.starts_with(b"system.") {
            // Access control lists, without which copying programs continue.
            return Err(Errno::OPNOTSUPP.into());
        }
        if !self.state(target).is_privileged() {
            return Err(Errno::PERM.into());
        }
        let mut attributes = self.files.of(&found.stat);
        let exists = attributes.xattrs.contains_key(&name);
        if exists && flags.contains(XattrFlags::CREATE) {
            return Err(Errno::EXIST.into());
        }
        if !exists && flags.contains(XattrFlags::REPLACE) {
            return Err(Errno::NODATA.into());
        }
        attributes.xattrs.insert(name, bytes);
        self.record(&found.stat, attributes);
        Ok(Reply::Value(0))
    }

    /// Returns whether an attribute is one that this process may not set on the disk.
    fn is_emulated_xattr(&self, name: &[u8]) -> bool {
        self.rules.emulates_owners && !name.starts_with(b"user.")
    }

    fn get_xattr(&mut self, call: &Notification, place: XattrPlace) -> Answer {
        let [file, name, buffer, size, ..] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.xattr_file(target, place, file)?;
        let name = target.string(name)?;
        let value = if self.is_emulated_xattr(&name) {
            if name.starts_with(b"system.") {
                return Err(Errno::OPNOTSUPP.into());
            }
            let mut xattrs = self.files.of(&found.stat).xattrs;
            xattrs.remove(&name).ok_or(Errno::NODATA)?
        } else {
            self.check(&found, &self.state(target), READ)?;
            read_xattr(&found.own_path(), &name)?
        };
        write_sized(target, &value, buffer, size)
    }

    fn list_xattrs(&mut self, call: &Notification, place: XattrPlace) -> Answer {
        let [file, buffer, size, ..] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.xattr_file(target, place, file)?;
        let mut all = Vec::new();
        if found.file_type() != FileType::Symlink {
            let mut names = vec![0; usize::try_from(MAX_XATTR_BYTES).unwrap_or(0)];
            // A file system without extended attributes has none to list.
            let len = rustix::fs::listxattr(found.own_path(), &mut names).unwrap_or(0);
            names.truncate(len);
            for name in names.split_inclusive(|byte| *byte == 0) {
                if !self.is_emulated_xattr(name) {
                    all.extend_from_slice(name);
                }
            }
        }
        if self.rules.emulates_owners {
            for name in self.files.of(&found.stat).xattrs.keys() {
                all.extend_from_slice(name);
                all.push(0);
            }
        }
        write_sized(target, &all, buffer, size)
    }

    fn remove_xattr(&mut self, call: &Notification, place: XattrPlace) -> Answer {
        let [file, name, ..] = call.args;
        let target = Target::new(call.pid)?;
        let found = self.xattr_file_to_change(target, place, file)?;
        let name = target.string(name)?;
        self.check_read_only(&found)?;
        if !self.is_emulated_xattr(&name) {
            self.check(&found, &self.state(target), WRITE)?;
            rustix::fs::removexattr(found.own_path(), name.as_slice())?;
            return Ok(Reply::Value(0));
        }
        if !self.state(target).is_privileged() {
            return Err(Errno::PERM.into());
        }
        let mut attributes = self.files.of(&found.stat);
        attributes.xattrs.remove(&name).ok_or(Errno::NODATA)?;
        self.record(&found.stat, attributes);
        Ok(Reply::Value(0))
    }

    /// Checks that a process may execute a file.
    pub(super) fn check_executable(&self, target: Target, found: &Found) -> Result<(), Errno> {
        if found.file_type() != FileType::RegularFile {
            return Err(Errno::ACCESS);
        }
        self.check(found, &self.state(target), EXECUTE)
    }
}

/// The kind of the first argument of a call about extended attributes.
#[derive(Debug, Clone, Copy)]
enum XattrPlace {
    Path { follows: bool },
    Descriptor,
}

fn read_xattr(path: &CString, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; usize::try_from(MAX_XATTR_BYTES).unwrap_or(0)];
    let len = rustix::fs::getxattr(path, name, &mut value)?;
    value.truncate(len);
    Ok(value)
}

/// Writes a value as getxattr(2) does: a size of 0 only asks for its length.
fn write_sized(target: Target, value: &[u8], buffer: u64, size: u64) -> Answer {
    let len = u64::try_from(value.len()).unwrap_or(u64::MAX);
    if size != 0 {
        if len > size {
            return Err(Errno::RANGE.into());
        }
        target.write(buffer, value)?;
    }
    Ok(Reply::Value(len.cast_signed()))
}
