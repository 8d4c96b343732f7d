//! The parent of a step's processes where they have no pid namespace.
//!
//! The kernel ends no process when the command ends, so a process between rbuild and the command does:
//! all that the step leaves behind becomes its child (prctl(2), `PR_SET_CHILD_SUBREAPER`), and it kills
//! its children until none is left. It does the same when rbuild dies.
//!
//! It is a copy of rbuild made by clone(2), so it makes raw system calls only, and allocates nothing.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus};

use super::sys::{clone, descriptors, signal};

/// The exit code of a reaper that could not start the command.
const FAILED: i32 = 255;
/// The pause between two attempts to end processes that were killed.
const KILL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// Size of the buffer for the list of children.
const CHILDREN_BYTES: usize = 4096;

/// Starts the command with `body`, waits for its end, ends all else, and exits like the command; does
/// not return. `parent` is a pidfd of rbuild, `namespaces` are flags of clone(2) for the command.
pub(super) fn main(parent: BorrowedFd<'_>, namespaces: u64, body: &dyn Fn()) {
    let code = match supervise(parent, namespaces, body) {
        Ok(code) => code,
        Err(_) => FAILED,
    };
    end_children();
    clone::exit_now(code);
}

fn supervise(parent: BorrowedFd<'_>, namespaces: u64, body: &dyn Fn()) -> Result<i32> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let mut died = [PollFd::from_borrowed_fd(parent, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    if rustix::event::poll(&mut died, Some(&at_once))? != 0 {
        return Err(Errno::SRCH);
    }
    let command = clone::clone_step(namespaces, body)?;
    // The command has executed a program by now, so it no longer shares this process's memory, which is a
    // copy of rbuild's.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // The ends of the command's pipes, above all.
    descriptors::close_all_but(command.pidfd.as_fd())?;
    wait_for(command.pid)
}

/// Waits until the command ends; returns the exit code for it. Reaps children that it left meanwhile.
fn wait_for(command: Pid) -> Result<i32> {
    let signals = signal::Mask::of(&[libc::SIGCHLD, libc::SIGTERM]);
    loop {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == command => return Ok(exit_code(status)),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(errno) => return Err(errno),
            }
        }
        match signal::wait(signals) {
            Ok(libc::SIGTERM) => return Ok(Signal::KILL.as_raw().saturating_add(128)),
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    let by_signal = status.terminating_signal().map(|signal| signal.saturating_add(128));
    status.exit_status().or(by_signal).unwrap_or(FAILED)
}

/// Kills children until there is none. Their children become this process's.
fn end_children() {
    loop {
        kill_children();
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        let _slept = rustix::event::poll(&mut [], Some(&KILL_INTERVAL));
    }
}

/// Kills the children that `/proc` lists (proc_tid_children(5)).
fn kill_children() {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = c"/proc/thread-self/children";
    let Ok(list) = rustix::fs::openat(CWD, path, flags, Mode::empty()) else { return };
    let mut bytes = [0; CHILDREN_BYTES];
    let Ok(len) = rustix::io::read(&list, &mut bytes) else { return };
    let mut pid = 0_i32;
    for byte in bytes.iter().take(len) {
        if byte.is_ascii_digit() {
            let digit = i32::from(byte.wrapping_sub(b'0'));
            pid = pid.saturating_mul(10).saturating_add(digit);
            continue;
        }
        if let Some(pid) = Pid::from_raw(pid) {
            let _ended_already = rustix::process::kill_process(pid, Signal::KILL);
        }
        pid = 0;
    }
}
