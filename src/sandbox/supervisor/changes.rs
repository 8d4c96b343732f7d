//! Calls that change sizes, modes, owners and times of files.

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::lookup::Found;
use super::permissions::{WRITE, may, owns};
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Stop, Supervisor, flag_argument, id_argument, number_argument};
use crate::sandbox::sys::notify::Notification;

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;
const PERMISSIONS: u32 = 0o7777;
/// An owner that is not changed (chown(2)).
const UNCHANGED: u32 = u32::MAX;
/// `UTIME_OMIT` (utimensat(2)).
const UTIME_OMIT: i64 = 0x3fff_fffe;
const CAPABILITY_XATTR: &[u8] = b"security.capability";

impl Supervisor {
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

    pub(super) fn check_read_only(&self, found: &Found) -> Result<(), Errno> {
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

    /// Finds an object to change by its path, like [`Self::object_to_change`].
    pub(super) fn locate_to_change(
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
}
