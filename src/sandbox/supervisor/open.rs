//! Calls that open and create files.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::identity::ProcessState;
use super::lookup::{Found, Name};
use super::mounts::path_of;
use super::permissions::{READ, WRITE};
use super::redirect::Redirection;
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Stop, Supervisor, number_argument};
use crate::sandbox::sys::notify::{self, Notification};

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
        let starts_in_mount = self.starts_in_mount(target, directory, path);
        match self.find(target, directory, path, follows) {
            Ok(found) if !starts_in_mount && !self.acts_on(&found) => {
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
            Err(errno) => Err(self.lookup_failed(errno, starts_in_mount)),
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
        if let Some(file) = self.mount_list(&found)? {
            return Ok(Reply::Descriptor { file, close_on_exec });
        }
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
        let path = found.own_path();
        let open = || rustix::fs::openat(CWD, &path, own_flags, mode);
        // Files such as `/proc/PID/maps` need access to the process.
        let mut file = if self.is_in_proc(&found) { target.with_access(open) } else { open() }?;
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

    /// Returns the path of an emulated device: `Some(None)` if this machine lacks it, `None` for other
    /// files.
    fn emulated_device(&self, found: &Found) -> Option<Option<&'static std::ffi::CStr>> {
        if found.file_type() != FileType::RegularFile {
            return None;
        }
        let attributes = self.files.get(found.id())?;
        match FileType::from_raw_mode(attributes.mode) {
            FileType::CharacterDevice => {}
            FileType::BlockDevice => return Some(None),
            FileType::RegularFile
            | FileType::Directory
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::Unknown => return None,
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
        let wanted = mode & !state.umask;
        let own_flags = flags | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let disk = Mode::from_raw_mode(self.disk_mode(wanted, false));
        let file = rustix::fs::openat(&name.directory, &name.name, own_flags, disk)?;
        self.mend_mode(&file, disk)?;
        self.note_new(&file, &parent, wanted, &state)?;
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
}

/// Returns whether the path of an open call is its second argument, after a directory.
fn is_relative_call(number: i32) -> bool {
    let number = libc::c_long::from(number);
    number == libc::SYS_openat || number == libc::SYS_openat2
}
