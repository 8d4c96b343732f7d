//! Calls that only the process itself can make, with a path that the supervisor replaces.
//!
//! The supervisor stops the process as a tracer (ptrace(2)), writes the new path below its stack, where
//! the process has nothing, and changes the registers. The kernel then starts the call again, and the
//! supervisor lets it proceed.

use std::os::fd::AsFd as _;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::lookup::Found;
use super::mounts::path_of;
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Supervisor};
use crate::sandbox::sys::notify::{self, Notification};
use crate::sandbox::sys::trace::Traced;

/// Bytes below the stack pointer that a function may use without moving it (System V ABI for x86-64,
/// "The Stack Frame").
const RED_ZONE_BYTES: u64 = 128;

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
