//! Calls that only the process itself can make, with a path that the supervisor replaces.
//!
//! The supervisor stops the process as a tracer (ptrace(2)), writes the new path below its stack, where
//! the process has nothing, and changes the registers. The kernel then starts the call again, and the
//! supervisor lets it proceed.

use std::os::fd::AsFd as _;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::lookup::{Found, own_path};
use super::mounts::path_of;
use super::permissions::WRITE;
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Stop, Supervisor};
use crate::sandbox::sys::notify::{self, Notification};
use crate::sandbox::sys::trace::Traced;

/// Bytes below the stack pointer that a function may use without moving it (System V ABI for x86-64,
/// "The Stack Frame").
const RED_ZONE_BYTES: u64 = 128;
/// Maximum length of the path of a socket (`sun_path`, unix(7)).
const MAX_SOCKET_PATH: usize = 108;

/// Data for a call, and where its address goes.
#[derive(Debug, Default)]
pub(super) struct Redirection {
    /// Bytes to write, and the index of the argument that becomes their address.
    pub(super) data: Vec<(Vec<u8>, usize)>,
    /// Other arguments to replace, by index.
    pub(super) arguments: Vec<(usize, u64)>,
    /// The call to make instead.
    pub(super) number: Option<i32>,
}

impl Redirection {
    /// Replaces the path that is the argument with this index. `path` ends with a null byte.
    pub(super) fn with_path(path: Vec<u8>, index: usize) -> Self {
        Self { data: vec![(path, index)], ..Self::default() }
    }
}

impl Supervisor {
    /// Starts a call again with other arguments. `build` gets the address of the data that it lays out.
    pub(super) fn redirect(&mut self, call: &Notification, to: Redirection) -> Answer {
        let target = Target::new(call.pid)?;
        self.expected.insert(call.pid, to.number.unwrap_or(call.number));
        let redirected = self.restart_with(target, call, to);
        if redirected.is_err() {
            self.expected.remove(&call.pid);
        }
        redirected?;
        Ok(Reply::Answered)
    }

    fn restart_with(&self, target: Target, call: &Notification, to: Redirection) -> Result<()> {
        let traced = target.with_access(|| Traced::attach(target.pid))?;
        notify::restart(self.listener.as_fd(), call.id)?;
        traced.wait_until_stopped()?;
        let mut registers = traced.registers()?;
        let mut free = stack_pointer(&registers).saturating_sub(RED_ZONE_BYTES);
        for (bytes, index) in to.data {
            let len = u64::try_from(bytes.len()).map_err(|_error| Errno::NAMETOOLONG)?;
            free = free.saturating_sub(len) & !15;
            target.write(free, &bytes)?;
            set_argument(&mut registers, index, free);
        }
        for (index, value) in to.arguments {
            set_argument(&mut registers, index, value);
        }
        if let Some(number) = to.number {
            set_number(&mut registers, number);
        }
        traced.set_registers(registers)
    }

    /// Makes a directory the working directory of the calling process.
    pub(super) fn enter(&mut self, call: &Notification, _target: Target, found: &Found) -> Answer {
        if !self.rules.translates_paths {
            return self.enter_by_descriptor(call, found);
        }
        let mut path = path_of(&found.file)?;
        if path.len() >= 4096 || !path.starts_with(b"/") {
            return self.enter_by_descriptor(call, found);
        }
        path.push(0);
        self.redirect(call, Redirection::with_path(path, 0))
    }

    fn enter_by_descriptor(&mut self, call: &Notification, found: &Found) -> Answer {
        let listener = self.listener.as_fd();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, found.own_path(), flags, Mode::empty())?;
        let number = notify::add_descriptor(listener, call.id, directory.as_fd(), true, false)?;
        let descriptor = u64::try_from(number).map_err(|_error| Errno::BADF)?;
        let fchdir = i32::try_from(libc::SYS_fchdir).map_err(|_error| Errno::NOSYS)?;
        self.redirect(
            call,
            Redirection {
                arguments: vec![(0, descriptor)],
                number: Some(fchdir),
                ..Redirection::default()
            },
        )
    }

    pub(super) fn inotify_add_watch(&mut self, call: &Notification) -> Answer {
        let [_, path, ..] = call.args;
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let found = self.locate(target, AT_FDCWD, &path, true)?;
        let mut outside = path_of(&found.file)?;
        outside.push(0);
        self.redirect(call, Redirection::with_path(outside, 1))
    }

    pub(super) fn connect(&mut self, call: &Notification) -> Answer {
        let target = Target::new(call.pid)?;
        let path = self.socket_path(target, call)?;
        let found = self.locate(target, AT_FDCWD, &path, true)?;
        if found.file_type() != FileType::Socket {
            return Err(Errno::CONNREFUSED.into());
        }
        self.check(&found, &self.state(target), WRITE)?;
        let outside = path_of(&found.file)?;
        self.with_socket_path(call, outside)
    }

    pub(super) fn bind(&mut self, call: &Notification) -> Answer {
        let target = Target::new(call.pid)?;
        let path = self.socket_path(target, call)?;
        let name = self.name(target, AT_FDCWD, &path)?;
        if name.name.is_empty() {
            return Err(Errno::ADDRINUSE.into());
        }
        self.check_directory(&name.directory, name.mount, &self.state(target))?;
        let mut outside = path_of(&name.directory)?;
        outside.push(b'/');
        outside.extend_from_slice(name.name.as_bytes());
        if outside.len() >= MAX_SOCKET_PATH {
            let listener = self.listener.as_fd();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let path = own_path(name.directory.as_fd());
            let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
            let number = notify::add_descriptor(listener, call.id, directory.as_fd(), true, false)?;
            outside = format!("/proc/self/fd/{number}/").into_bytes();
            outside.extend_from_slice(name.name.as_bytes());
        }
        self.with_socket_path(call, outside)
    }

    /// Returns the path of a call's `sockaddr_un`; lets calls for other addresses proceed.
    fn socket_path(
        &self,
        target: Target,
        call: &Notification,
    ) -> std::result::Result<Vec<u8>, Stop> {
        let [_, address, len, ..] = call.args;
        let len = usize::try_from(len & 0xffff_ffff).map_err(|_error| Errno::INVAL)?;
        if len <= 2 || len > 2 + MAX_SOCKET_PATH {
            return Err(Stop::Proceed);
        }
        let mut bytes = vec![0; len];
        target.read_exact(address, &mut bytes)?;
        let (family, path) = bytes.split_at_checked(2).ok_or(Errno::INVAL)?;
        let is_local = family == u16::try_from(libc::AF_UNIX).unwrap_or(0).to_ne_bytes();
        // An abstract address begins with a null byte.
        if !is_local || path.first() == Some(&0) {
            return Err(Stop::Proceed);
        }
        Ok(path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
    }

    fn with_socket_path(&mut self, call: &Notification, path: Vec<u8>) -> Answer {
        if path.len() >= MAX_SOCKET_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let family = u16::try_from(libc::AF_UNIX).unwrap_or(0).to_ne_bytes();
        let mut address = family.to_vec();
        address.extend_from_slice(&path);
        address.push(0);
        let len = u64::try_from(address.len()).unwrap_or(0);
        self.redirect(
            call,
            Redirection {
                data: vec![(address, 1)],
                arguments: vec![(2, len)],
                ..Redirection::default()
            },
        )
    }
}

#[cfg(target_arch = "x86_64")]
const fn stack_pointer(registers: &libc::user_regs_struct) -> u64 {
    registers.rsp
}

#[cfg(target_arch = "x86_64")]
const fn set_argument(registers: &mut libc::user_regs_struct, index: usize, value: u64) {
    match index {
        0 => registers.rdi = value,
        1 => registers.rsi = value,
        2 => registers.rdx = value,
        3 => registers.r10 = value,
        4 => registers.r8 = value,
        _ => registers.r9 = value,
    }
}

#[cfg(target_arch = "x86_64")]
fn set_number(registers: &mut libc::user_regs_struct, number: i32) {
    registers.orig_rax = u64::try_from(number).unwrap_or(u64::MAX);
}

#[cfg(target_arch = "aarch64")]
const fn stack_pointer(registers: &libc::user_regs_struct) -> u64 {
    registers.sp
}

#[cfg(target_arch = "aarch64")]
fn set_argument(registers: &mut libc::user_regs_struct, index: usize, value: u64) {
    if let Some(register) = registers.regs.get_mut(index) {
        *register = value;
    }
}

#[cfg(target_arch = "aarch64")]
fn set_number(registers: &mut libc::user_regs_struct, number: i32) {
    if let Some(register) = registers.regs.get_mut(8) {
        *register = u64::try_from(number).unwrap_or(u64::MAX);
    }
}
