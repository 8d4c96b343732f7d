//! Calls that open, create, rename and remove files.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, Result};

use super::identity::ProcessState;
use super::lookup::{Found, Name, is_magic_link, own_path, process_of};
use super::mounts::path_of;
use super::permissions::{EXECUTE, READ, WRITE, is_protected};
use super::redirect::Redirection;
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Stop, Supervisor, flag_argument, number_argument};
use crate::sandbox::attributes::{Attributes, FileId};
use crate::sandbox::sys::notify::{self, Notification};

const SET_GROUP_ID: u32 = 0o2000;
/// Maximum number of dangling links that lead to a file to create.
const MAX_CREATED_LINKS: u32 = 8;

/// The arguments of openat2(2).
#[derive(Debug, Clone, Copy)]
struct OpenArguments {
    flags: OFlags,
    mode: u32,
}

impl OpenArguments {
    fn access(self) -> u32 {
        if self.flags.contains(OFlags::PATH) {
            return 0;
        }
        let kind = match self.flags & OFlags::ACCMODE {
            OFlags::RDONLY => READ,
            OFlags::WRONLY => WRITE,
            _ => READ | WRITE,
        };
        if self.flags.contains(OFlags::TRUNC) { kind | WRITE } else { kind }
    }
}

impl Supervisor {
    pub(super) fn open(&mut self, call: &Notification) -> Answer {
        let [path, flags, mode, ..] = call.args;
        self.open_at(call, AT_FDCWD, path, flags, mode)
    }

    pub(super) fn creat(&mut self, call: &Notification) -> Answer {
        let [path, mode, ..] = call.args;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
        self.open_at(call, AT_FDCWD, path, flags.bits().into(), mode)
    }

    pub(super) fn openat(&mut self, call: &Notification) -> Answer {
        let [directory, path, flags, mode, ..] = call.args;
        self.open_at(call, number_argument(directory), path, flags, mode)
    }

    pub(super) fn openat2(&mut self, call: &Notification) -> Answer {
        let [directory, path, how, size, ..] = call.args;
        let target = Target::new(call.pid)?;
        if size < 24 {
            return Err(Errno::INVAL.into());
        }
        let (flags, mode) = (target.u64(how)?, target.u64(how.saturating_add(8))?);
        let resolve = target.u64(how.saturating_add(16))?;
        if resolve != 0 && self.rules.translates_paths {
            // Programs that ask for such a lookup handle kernels without it.
            return Err(Errno::NOSYS.into());
        }
        self.open_at(call, number_argument(directory), path, flags, mode)
    }

    fn open_at(
        &mut self,
        call: &Notification,
        directory: i32,
        path: u64,
        flags: u64,
        mode: u64,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let flags = OFlags::from_bits_retain(u32::try_from(flags & 0xffff_ffff).unwrap_or(0));
        let mode = u32::try_from(mode & 0o7777).unwrap_or(0);
        let arguments = OpenArguments { flags, mode };
        if self.kernel_opens(target, flags) {
            return Err(Stop::Proceed);
        }
        self.open_path(call, target, (directory, &path), arguments, 0)
    }

    /// Returns whether the kernel opens an existing file as the step expects: paths lead there, and the
    /// process may open all files.
    fn kernel_opens(&self, target: Target, flags: OFlags) -> bool {
        !self.rules.translates_paths
            && !self.rules.has_mounts
            && !flags.contains(OFlags::CREATE)
            && self.state(target).uid.filesystem == 0
    }

    fn open_path(
        &mut self,
        call: &Notification,
        target: Target,
        (directory, path): (i32, &[u8]),
        arguments: OpenArguments,
        n_links: u32,
    ) -> Answer {
        let OpenArguments { flags, .. } = arguments;
        let creates = flags.contains(OFlags::CREATE) && !flags.contains(OFlags::PATH);
        let is_new = creates && flags.contains(OFlags::EXCL);
        let follows = !flags.contains(OFlags::NOFOLLOW) && !is_new;
        match self.find(target, directory, path, follows) {
            Ok(found) if !self.acts_on(&found) => {
                if arguments.access() & WRITE != 0 {
                    self.break_link(&found)?;
                }
                Err(Stop::Proceed)
            }
            Ok(_) if is_new => Err(Errno::EXIST.into()),
            Ok(found) => self.open_found(call, target, found, arguments),
            Err(Errno::NOENT) if creates => {
                self.create_file(call, target, (directory, path), arguments, n_links)
            }
            Err(errno) => Err(self.lookup_failed(errno)),
        }
    }

    /// Opens an object for its path alone (open(2), `O_PATH`). The kernel passes no such descriptor to
    /// other processes, so the process opens it itself if it can.
    fn open_path_only(&mut self, call: &Notification, found: Found, close_on_exec: bool) -> Answer {
        if self.rules.translates_paths {
            let mut path = path_of(&found.file)?;
            if path.first() == Some(&b'/') {
                path.push(0);
                let index = usize::from(is_relative_call(call.number));
                return self.redirect(call, Redirection::with_path(path, index));
            }
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = rustix::fs::openat(CWD, found.own_path(), flags, Mode::empty())?;
        Ok(Reply::Descriptor { file, close_on_exec })
    }

    fn open_found(
        &mut self,
        call: &Notification,
        target: Target,
        found: Found,
        arguments: OpenArguments,
    ) -> Answer {
        let OpenArguments { flags, .. } = arguments;
        let close_on_exec = flags.contains(OFlags::CLOEXEC);
        let kind = found.file_type();
        if flags.contains(OFlags::DIRECTORY) && kind != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        if flags.contains(OFlags::PATH) {
            return self.open_path_only(call, found, close_on_exec);
        }
        if kind == FileType::Symlink {
            return Err(Errno::LOOP.into());
        }
        let is_unnamed = flags.contains(OFlags::TMPFILE);
        if kind == FileType::Directory && flags.contains(OFlags::CREATE) && !is_unnamed {
            return Err(Errno::ISDIR.into());
        }
        let state = self.state(target);
        self.check(&found, &state, arguments.access())?;
        let found =
            if arguments.access() & WRITE != 0 { self.with_own_file(found)? } else { found };
        let removed = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let own_flags = (flags - removed) | OFlags::NOCTTY | OFlags::CLOEXEC;
        if let Some(device) = self.emulated_device(&found) {
            let path = device.ok_or(Errno::NXIO)?;
            let file = rustix::fs::openat(CWD, path, own_flags, Mode::empty())?;
            return Ok(Reply::Descriptor { file, close_on_exec });
        }
        let waits = !flags.contains(OFlags::NONBLOCK) && flags & OFlags::ACCMODE != OFlags::RDWR;
        if kind == FileType::Fifo && waits {
            self.open_later(call, found, own_flags, close_on_exec)?;
            return Ok(Reply::Answered);
        }
        let mode = Mode::from_raw_mode(arguments.mode & !state.umask);
        let mut file = rustix::fs::openat(CWD, found.own_path(), own_flags, mode)?;
        if let Some(copies) = &mut self.copies
            && kind == FileType::RegularFile
            && flags & OFlags::ACCMODE == OFlags::RDONLY
        {
            file = copies.of(&found, file)?;
        }
        Ok(Reply::Descriptor { file, close_on_exec })
    }

    /// Opens a FIFO in a thread: that waits until another process opens it, too (fifo(7)).
    fn open_later(
        &self,
        call: &Notification,
        found: Found,
        flags: OFlags,
        close_on_exec: bool,
    ) -> Result<()> {
        let (listener, id) = (Arc::clone(&self.listener), call.id);
        let open = move || {
            let opened = rustix::fs::openat(CWD, found.own_path(), flags, Mode::empty());
            // The caller may have been killed meanwhile.
            let _answered = match opened {
                Ok(file) => {
                    notify::add_descriptor(listener.as_fd(), id, file.as_fd(), close_on_exec, true)
                        .map(drop)
                }
                Err(errno) => notify::respond(listener.as_fd(), id, Err(errno)),
            };
        };
        let thread = std::thread::Builder::new().name("open-fifo".to_owned()).spawn(open);
        thread.map(drop).map_err(|_error| Errno::AGAIN)
    }

    /// Returns the path of a device that is emulated: `Some(None)` if there is no such device here.
    fn emulated_device(&self, found: &Found) -> Option<Option<&'static std::ffi::CStr>> {
        if found.file_type() != FileType::RegularFile {
            return None;
        }
        let attributes = self.files.get(found.id())?;
        match FileType::from_raw_mode(attributes.mode) {
            FileType::CharacterDevice => {}
            FileType::BlockDevice => return Some(None),
            _ => return None,
        }
        let number = (rustix::fs::major(attributes.device), rustix::fs::minor(attributes.device));
        Some(match number {
            (1, 3) => Some(c"/dev/null"),
            (1, 5) => Some(c"/dev/zero"),
            (1, 7) => Some(c"/dev/full"),
            (1, 8) => Some(c"/dev/random"),
            (1, 9) => Some(c"/dev/urandom"),
            _ => None,
        })
    }

    fn create_file(
        &mut self,
        call: &Notification,
        target: Target,
        (directory, path): (i32, &[u8]),
        arguments: OpenArguments,
        n_links: u32,
    ) -> Answer {
        let OpenArguments { flags, mode } = arguments;
        let name = self.name(target, directory, path)?;
        if name.name.is_empty() || name.wants_directory {
            return Err(Errno::ISDIR.into());
        }
        let link = rustix::fs::readlinkat(&name.directory, &name.name, Vec::new());
        if let Ok(link) = link {
            if flags.contains(OFlags::NOFOLLOW) || n_links >= MAX_CREATED_LINKS {
                return Err(Errno::LOOP.into());
            }
            let path = self.beside(&name, link.as_bytes(), &self.state(target))?;
            return self.open_path(call, target, (AT_FDCWD, &path), arguments, n_links + 1);
        }
        let state = self.state(target);
        let parent = self.check_directory(&name.directory, name.mount, &state)?;
        let wanted = mode & !self.umask_of(target, &state);
        let own_flags = flags | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let disk = Mode::from_raw_mode(self.disk_mode(wanted, false));
        let file = rustix::fs::openat(&name.directory, &name.name, own_flags, disk)?;
        self.mend_mode(&file, disk)?;
        self.note_new(target, &file, &parent, wanted, &state)?;
        let close_on_exec = flags.contains(OFlags::CLOEXEC);
        Ok(Reply::Descriptor { file, close_on_exec })
    }

    /// Returns the path of what a link at `name` refers to.
    fn beside(
        &self,
        name: &Name,
        link: &[u8],
        state: &ProcessState,
    ) -> std::result::Result<Vec<u8>, Stop> {
        if link.first() == Some(&b'/') {
            return Ok(link.to_vec());
        }
        let directory = self.inside_path(&path_of(&name.directory)?);
        let directory = directory.and_then(|path| state.seen(&path)).ok_or(Errno::NOENT)?;
        Ok([directory.as_slice(), b"/", link].concat())
    }

    /// Returns the permissions on the disk for those that the step wants: this process must be able to
    /// read and write all files where it has no rights of root.
    pub(super) const fn disk_mode(&self, wanted: u32, is_directory: bool) -> u32 {
        if !self.rules.emulates_owners {
            return wanted;
        }
        (wanted & 0o777) | if is_directory { 0o700 } else { 0o600 }
    }

    /// Sets the permissions that rbuild's own umask has removed.
    fn mend_mode(&self, file: &OwnedFd, mode: Mode) -> Result<()> {
        if mode.as_raw_mode() & self.own_umask == 0 {
            return Ok(());
        }
        rustix::fs::chmodat(CWD, own_path(file.as_fd()), mode, AtFlags::empty())
    }

    /// Records the owner and the mode of a new file.
    fn note_new(
        &mut self,
        target: Target,
        file: &OwnedFd,
        parent: &Attributes,
        wanted: u32,
        state: &ProcessState,
    ) -> Result<()> {
        let stat = rustix::fs::fstat(file)?;
        if !self.rules.emulates_owners {
            return self.own_like(target, file);
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

    /// Gives a new file in a mount to the user of the process that creates it.
    fn own_like(&self, target: Target, file: &OwnedFd) -> Result<()> {
        let (Some(uid), Some(gid)) = (target.status_id("Uid"), target.status_id("Gid")) else {
            return Ok(());
        };
        if uid == 0 && gid == 0 {
            return Ok(());
        }
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(file, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
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
        let wanted = u32::try_from(mode & 0o1777).unwrap_or(0) & !self.umask_of(target, &state);
        let disk = Mode::from_raw_mode(self.disk_mode(wanted, true));
        rustix::fs::mkdirat(&name.directory, &name.name, disk)?;
        let file = self.open_new(&name)?;
        self.mend_mode(&file, disk)?;
        self.note_new(target, &file, &parent, wanted, &state)?;
        Ok(Reply::Value(0))
    }

    fn exists(&self, name: &Name) -> bool {
        rustix::fs::statat(&name.directory, &name.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn open_new(&self, name: &Name) -> Result<OwnedFd> {
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
        let wanted = raw & 0o7777 & !self.umask_of(target, &state);
        let kind = match FileType::from_raw_mode(raw) {
            FileType::Unknown if raw & 0o170_000 == 0 => FileType::RegularFile,
            kind => kind,
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
        self.note_new(target, &file, &parent, wanted, &state)?;
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
        self.note_new(target, &file, &parent, 0o777, &state)?;
        Ok(Reply::Value(0))
    }

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
        let found = self.object(target, from, flags, follows)?;
        let path = self.path(target, to.1)?;
        let name = self.name(target, to.0, &path)?;
        if name.name.is_empty() || self.is_mount_point(&name) {
            return Err(Errno::EXIST.into());
        }
        let state = self.state(target);
        self.check_directory(&name.directory, name.mount, &state)?;
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
        let name = self.name(target, directory, &path)?;
        if name.name.is_empty() || self.is_mount_point(&name) {
            return Err(Errno::BUSY.into());
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
    fn check_removal(&self, target: Target, name: &Name) -> Result<Option<FileId>> {
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

    fn forget(&mut self, file: Option<FileId>) {
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
        let from = self.name_any(target, from.0, &from_path)?;
        let to = self.name_any(target, to.0, &to_path)?;
        if let Ok(file) = self.open_new(&from)
            && from.mount.is_none()
        {
            self.check_rename(file.as_fd(), &rustix::fs::fstat(&file)?)?;
        }
        if !self.acts_in(from.mount) && !self.acts_in(to.mount) {
            return Err(Stop::Proceed);
        }
        for name in [&from, &to] {
            if name.name.is_empty() || self.is_mount_point(name) {
                return Err(Errno::BUSY.into());
            }
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

    pub(super) fn readlink(&mut self, call: &Notification) -> Answer {
        let [path, buffer, size, ..] = call.args;
        self.read_link(call, AT_FDCWD, path, (buffer, size))
    }

    pub(super) fn readlinkat(&mut self, call: &Notification) -> Answer {
        let [directory, path, buffer, size, ..] = call.args;
        self.read_link(call, number_argument(directory), path, (buffer, size))
    }

    fn read_link(
        &mut self,
        call: &Notification,
        directory: i32,
        path: u64,
        (buffer, size): (u64, u64),
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let link = if path.is_empty() {
            let found = self.find_descriptor(target, directory)?;
            rustix::fs::readlinkat(&found.file, c"", Vec::new())?.into_bytes()
        } else {
            self.link_at(target, directory, &path)?
        };
        let len = link.len().min(usize::try_from(size).unwrap_or(0));
        if len == 0 {
            return Err(Errno::INVAL.into());
        }
        target.write(buffer, link.get(..len).unwrap_or_default())?;
        Ok(Reply::Value(i64::try_from(len).unwrap_or(0)))
    }

    fn link_at(
        &self,
        target: Target,
        directory: i32,
        path: &[u8],
    ) -> std::result::Result<Vec<u8>, Stop> {
        let name = self.name_any(target, directory, path)?;
        let mount = name.mount.and_then(|at| self.mounts.get(at));
        if !mount.is_some_and(|at| at.is_proc) {
            let found = self.locate(target, directory, path, false)?;
            if found.file_type() != FileType::Symlink {
                return Err(Errno::INVAL.into());
            }
            return Ok(rustix::fs::readlinkat(&found.file, c"", Vec::new())?.into_bytes());
        }
        let bytes = name.name.as_bytes();
        if bytes == b"self" && path_of(&name.directory)?.ends_with(b"/proc") {
            return Ok(target.thread_group().to_string().into_bytes());
        }
        let is_magic = is_magic_link(&name.directory, bytes);
        if is_magic && bytes == b"exe" && self.rules.translates_paths {
            let process = process_of(&name.directory).unwrap_or(target);
            return Ok(self.state(process).program.clone());
        }
        if is_magic && bytes == b"root" {
            return Ok(b"/".to_vec());
        }
        let link = rustix::fs::readlinkat(&name.directory, &name.name, Vec::new())?.into_bytes();
        if is_magic && link.first() == Some(&b'/') {
            return Ok(self.inside_path(&link).unwrap_or(link));
        }
        Ok(link)
    }

    pub(super) fn getcwd(&mut self, call: &Notification) -> Answer {
        let [buffer, size, ..] = call.args;
        let target = Target::new(call.pid)?;
        let outside = target.link("cwd")?;
        let directory = target.working_directory()?;
        if !self.acts_in(self.mount_of(&directory)) {
            return Err(Stop::Proceed);
        }
        if rustix::fs::fstat(&directory)?.st_nlink == 0 {
            return Err(Errno::NOENT.into());
        }
        let path = self.inside_path(&outside);
        let mut path = path.and_then(|path| self.state(target).seen(&path)).ok_or(Errno::NOENT)?;
        path.push(0);
        let len = u64::try_from(path.len()).unwrap_or(u64::MAX);
        if len > size {
            return Err(Errno::RANGE.into());
        }
        target.write(buffer, &path)?;
        Ok(Reply::Value(len.cast_signed()))
    }

    pub(super) fn chdir(&mut self, call: &Notification) -> Answer {
        let [path, ..] = call.args;
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let found = self.locate(target, AT_FDCWD, &path, true)?;
        if found.file_type() != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        self.check(&found, &self.state(target), EXECUTE)?;
        self.enter(call, target, &found)
    }

    pub(super) fn chroot(&mut self, call: &Notification) -> Answer {
        let [path, ..] = call.args;
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let found = self.locate(target, AT_FDCWD, &path, true)?;
        if found.file_type() != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        let state = self.state(target);
        if !state.is_privileged() {
            return Err(Errno::PERM.into());
        }
        let mut root = self.inside_path(&path_of(&found.file)?).ok_or(Errno::NOENT)?;
        if root == b"/" {
            root.clear();
        }
        self.set_state(target, ProcessState { root, ..ProcessState::clone(&state) })?;
        if self.rules.translates_paths { Ok(Reply::Value(0)) } else { Err(Stop::Proceed) }
    }
}

/// Returns whether the path of an open call is its second argument, after a directory.
fn is_relative_call(number: i32) -> bool {
    let number = libc::c_long::from(number);
    number == libc::SYS_openat || number == libc::SYS_openat2
}
