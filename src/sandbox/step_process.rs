//! The process of a step: pid 1 of its pid namespace, held by a pidfd (pidfd_open(2)).

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use crate::pathio;

use super::error::SandboxError;
use super::spec::Exit;
use super::sys::{clone, signal};

/// The pid 1 of a step. Dropping it kills the process, and with it all that the step started
/// (pid_namespaces(7)).
pub(super) struct StepProcess {
    pub(super) pidfd: OwnedFd,
    /// The signal that ends it and all that the step started.
    end: Signal,
    reaped: bool,
}

/// Maximum number of attempts to start a step while a limit on processes is reached (`ulimit -u`,
/// or `pids.max` of a cgroup): other steps may end meanwhile. With [`START_INTERVAL`] this is one
/// minute.
const MAX_STARTS: u32 = 1200;
/// The time between two attempts.
const START_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

impl StepProcess {
    /// Starts the child with `body`, and retries while a limit on processes is reached; stops
    /// retrying when `cancel` becomes readable.
    pub(super) fn start_with_retries(
        namespaces: u64,
        cancel: Option<BorrowedFd<'_>>,
        body: &dyn Fn(),
    ) -> Result<Self, SandboxError> {
        let failed = |errno| SandboxError::start("start a process in new namespaces", errno);
        Self::retry(cancel, &|| Self::start(namespaces, body)).map_err(failed)
    }

    /// Starts a [reaper](super::reaper) with `body`, without namespaces. It ends all processes of the
    /// step when it gets SIGTERM.
    pub(super) fn start_reaper(
        cancel: Option<BorrowedFd<'_>>,
        body: &dyn Fn(),
    ) -> Result<Self, SandboxError> {
        let start = || {
            let before = signal::set_mask(signal::Mask::ALL)?;
            let started = clone::fork_step(body);
            signal::set_mask(before)?;
            started.map(|pidfd| Self { pidfd, end: Signal::TERM, reaped: false })
        };
        Self::retry(cancel, &start).map_err(|errno| SandboxError::start("start a process", errno))
    }

    fn retry(
        cancel: Option<BorrowedFd<'_>>,
        start: &dyn Fn() -> rustix::io::Result<Self>,
    ) -> rustix::io::Result<Self> {
        for _ in 1..MAX_STARTS {
            match start() {
                Err(Errno::AGAIN) => {}
                started => return started,
            }
            let mut fds = cancel.map(|cancel| PollFd::from_borrowed_fd(cancel, PollFlags::IN));
            match rustix::event::poll(fds.as_mut_slice(), Some(&START_INTERVAL)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        start()
    }

    fn start(namespaces: u64, body: &dyn Fn()) -> rustix::io::Result<Self> {
        // The child shares our memory until exec: a signal handler that ran in the child would act
        // for the parent.
        let before = signal::set_mask(signal::Mask::ALL)?;
        let started = clone::clone_step(namespaces, body);
        let step =
            started.map(|child| Self { pidfd: child.pidfd, end: Signal::KILL, reaped: false });
        signal::set_mask(before)?;
        step
    }

    /// Returns its pid as rbuild sees it, until it is waited for. The `Pid:` line of a pidfd's
    /// fdinfo exists since Linux 5.2 (proc_pid_fdinfo(5)).
    pub(super) fn pid(&self) -> Option<Pid> {
        let path = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
        let text = pathio::read_to_string(Path::new(&path), 4096).ok()?;
        let number = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        number.trim().parse().ok().and_then(Pid::from_raw)
    }

    pub(super) fn kill(&self) {
        // It may have ended already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, self.end);
    }

    pub(super) fn wait(mut self) -> Result<Exit, SandboxError> {
        let status =
            self.reap().map_err(|errno| SandboxError::setup("wait for the command", errno))?;
        Ok(status.map_or(Exit::Signal(0), |status| exit_of(&status)))
    }

    fn reap(&mut self) -> rustix::io::Result<Option<WaitIdStatus>> {
        let status = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
        })?;
        self.reaped = true;
        Ok(status)
    }
}

impl Drop for StepProcess {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.reap();
        }
    }
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match status.exit_status() {
        Some(code) => Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        None => Exit::Signal(status.terminating_signal().unwrap_or(0)),
    }
}
