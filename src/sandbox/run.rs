//! Runs a command: starts the child, passes its output on, waits for its end.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Gid, Pid, Signal, Uid, WaitId, WaitIdOptions, WaitIdStatus};
use rustix::thread::CapabilitySet;

use crate::pathio;
use crate::pathio::ids::{self, UnmappedId};

use super::child::{self, EXEC, Report};
use super::idmap::in_user_namespace;
use super::ops::{self, SetupOp};
use super::rootfs::Rootfs;
use super::spec::{Exit, Kept, Network, Output, RunSpec, SandboxError, User, View};
use super::streams::{Connected, Followed, pipe};
use super::sys::{clone, signal};
use super::verify::Part;
use super::{caps, keep, prepare};

/// What is around a command while it runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attending<'a> {
    /// When this becomes readable the command is killed; the result then is [`Exit::Signal`] with 9.
    pub cancel: Option<BorrowedFd<'a>>,
    /// What the command reads, unless its streams are [`Streams::Output`](super::Streams::Output). If it has a terminal, so
    /// has the caller, here: one that passes on every key as it is typed (raw mode).
    pub input: Option<BorrowedFd<'a>>,
    /// Becomes readable when the caller's terminal has another size; it never blocks.
    pub resized: Option<BorrowedFd<'a>>,
}

/// What came of a command.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub exit: Result<Exit, SandboxError>,
    /// The mounts of [`View::Kept`], if they were made.
    pub kept: Option<Kept>,
}

/// Runs the command of `spec` in `rootfs` to its end, without input.
///
/// `on_output` gets what it writes, as it comes. When `cancel` becomes readable the command is
/// killed; the result then is [`Exit::Signal`] with 9. When this returns, all processes that the
/// command started have ended and all its mounts are gone. The rootfs's mount is used up: it can
/// still be read through its descriptor, but not run in again.
///
/// # Errors
/// `NotFound`, `InterpreterNotFound`, `WrongFormat`, `PermissionDenied` and `TooLong` when the
/// program cannot be executed; `Setup` for everything before that.
pub fn run(
    rootfs: &Rootfs,
    spec: &RunSpec,
    cancel: Option<BorrowedFd<'_>>,
    on_output: &mut dyn FnMut(Output, &[u8]),
) -> Result<Exit, SandboxError> {
    run_attended(rootfs, spec, Attending { cancel, ..Attending::default() }, on_output).exit
}

/// The same, with input if `spec` says so, and with what it left if that is to be kept. What a
/// terminal shows is standard output.
pub fn run_attended(
    rootfs: &Rootfs,
    spec: &RunSpec,
    attending: Attending<'_>,
    on_output: &mut dyn FnMut(Output, &[u8]),
) -> Ran {
    let mut kept = None;
    let exit = start_and_attend(rootfs, &Setup::of(spec), attending, on_output, &mut kept);
    Ran { exit, kept }
}

/// The setup of a command's child.
pub(super) struct Setup<'a> {
    pub(super) spec: &'a RunSpec,
    /// Flags of clone(2), `CLONE_NEW*`.
    pub(super) namespaces: u64,
    pub(super) ops: Vec<SetupOp>,
}

impl<'a> Setup<'a> {
    pub(super) fn of(spec: &'a RunSpec) -> Self {
        Self { spec, namespaces: namespaces(spec), ops: ops::rootfs_ops(spec) }
    }
}

pub(super) fn start_and_attend(
    rootfs: &Rootfs,
    setup: &Setup<'_>,
    attending: Attending<'_>,
    on_output: &mut dyn FnMut(Output, &[u8]),
    kept: &mut Option<Kept>,
) -> Result<Exit, SandboxError> {
    let Setup { spec, namespaces, ops } = setup;
    for op in ops {
        tracing::debug!(%op, "sandbox");
    }
    let started = Instant::now();
    let streams = Connected::new(spec.streams, attending.input)?;
    let prepared = prepare::child(rootfs, spec, ops, streams.terminal())?;
    let status = pipe()?;
    let keep = matches!(spec.view, View::Kept).then(keep::ends).transpose();
    let keep = keep.map_err(|errno| SandboxError::setup("make a pair of sockets", errno))?;
    let ends = streams.ends(status.write.as_fd(), keep.as_ref().map(|(_, child)| child.as_fd()));
    let step =
        Step::start_patiently(*namespaces, attending.cancel, &|| child::main(&prepared, ends))?;
    *kept = keep.and_then(|(own, _)| keep::receive(own.as_fd()));
    // The child has its own copies; while these are open the pipes would not end.
    drop((status.write, prepared));

    let Followed { report, interrupted } = streams
        .attend(status.read, &step, attending, on_output)
        .map_err(|errno| SandboxError::setup("follow the command", errno))?;
    let exit = step.wait()?;
    let program = spec.argv.first();
    tracing::debug!(?program, ?exit, took = ?started.elapsed(), "command ended");
    match report {
        Some(report) => Err(failure(report, ops, spec)),
        None if interrupted => Ok(Exit::Signal(Signal::INT.as_raw())),
        None => Ok(exit),
    }
}

/// The namespaces of a step. The user namespace is that of rbuild: an ordinary user's rbuild has
/// entered one of its own.
fn namespaces(spec: &RunSpec) -> u64 {
    let always =
        libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    let mounts = match spec.view {
        View::Own | View::Kept => libc::CLONE_NEWNS,
        View::Of(_) => 0,
    };
    let network = match spec.network {
        Network::Host => 0,
        Network::None => libc::CLONE_NEWNET,
    };
    u64::from((always | mounts | network).cast_unsigned())
}

/// A step's pid 1. Whoever loses it kills it, and with it all that it started.
pub(super) struct Step {
    pub(super) pidfd: OwnedFd,
    waited: bool,
}

/// Number of times that a step is started again while a limit on processes (`ulimit -u`, or a
/// cgroup's `pids.max`) is reached: other steps may end meanwhile.
const N_STARTS: u32 = 1200;
/// The time between two starts.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

impl Step {
    fn start_patiently(
        namespaces: u64,
        cancel: Option<BorrowedFd<'_>>,
        body: &dyn Fn(),
    ) -> Result<Self, SandboxError> {
        let failed = |errno| SandboxError::start("start a process in new namespaces", errno);
        for _ in 1..N_STARTS {
            match Self::start(namespaces, body) {
                Err(Errno::AGAIN) => {}
                started => return started.map_err(failed),
            }
            let mut fds = cancel.map(|cancel| PollFd::from_borrowed_fd(cancel, PollFlags::IN));
            match rustix::event::poll(fds.as_mut_slice(), Some(&PAUSE)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        Self::start(namespaces, body).map_err(failed)
    }

    fn start(namespaces: u64, body: &dyn Fn()) -> rustix::io::Result<Self> {
        // A handler of this program must not run in the child, where it would act for the
        // parent.
        let before = signal::set_mask(signal::Mask::ALL)?;
        let started = clone::clone_step(namespaces, body);
        let step = started.map(|pidfd| Self { pidfd, waited: false });
        signal::set_mask(before)?;
        step
    }

    /// Its number here, while it is not waited for (`Pid:` of a pidfd's fdinfo, Linux 5.2).
    pub(super) fn pid(&self) -> Option<Pid> {
        let path = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
        let text = pathio::read_to_string(Path::new(&path), 4096).ok()?;
        let number = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        number.trim().parse().ok().and_then(Pid::from_raw)
    }

    pub(super) fn kill(&self) {
        // That it has ended already is fine.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    fn wait(mut self) -> Result<Exit, SandboxError> {
        let status =
            self.reap().map_err(|errno| SandboxError::setup("wait for the command", errno))?;
        Ok(status.map_or(Exit::Signal(0), |status| exit_of(&status)))
    }

    fn reap(&mut self) -> rustix::io::Result<Option<WaitIdStatus>> {
        let status = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
        })?;
        self.waited = true;
        Ok(status)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.waited {
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

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && in_user_namespace()
}

/// The error of a change of ids: the first that the user namespace lacks, if that is why.
fn become_error(errno: i32, user: &User) -> io::Error {
    let errno = Errno::from_raw_os_error(errno);
    let explained = |gid: &u32| ids::explained(errno, Uid::from_raw(user.uid), Gid::from_raw(*gid));
    let errors = std::iter::once(&user.gid).chain(&user.groups).map(explained);
    let found = errors.into_iter().find(|error| UnmappedId::in_io(error).is_some());
    found.unwrap_or_else(|| errno.into())
}

/// Makes an error of what the child reported.
fn failure(report: Report, ops: &[SetupOp], spec: &RunSpec) -> SandboxError {
    let source = io::Error::from_raw_os_error(report.errno);
    if report.op != EXEC {
        let op = usize::try_from(report.op).ok().and_then(|index| ops.get(index));
        if let Some(part) = Part::of_number(report.detail) {
            return SandboxError::Open { part: part.name() };
        }
        if matches!(op, Some(SetupOp::Filesystem { kind: "proc", .. })) && is_refusal(&source) {
            return SandboxError::NoUserNamespace {
                reason: "the kernel refuses a new /proc in it, since part of the present one is \
                         hidden"
                    .to_owned(),
                help: "start the container that rbuild is in with `--security-opt \
                       systempaths=unconfined`"
                    .to_owned(),
            };
        }
        let source = match op {
            Some(SetupOp::Become(user)) => become_error(report.errno, user),
            Some(SetupOp::Capabilities(set)) => {
                caps::explained(Errno::from_raw_os_error(report.errno), *set)
            }
            Some(SetupOp::BoundingSet(_)) => {
                caps::explained(Errno::from_raw_os_error(report.errno), CapabilitySet::SETPCAP)
            }
            _ => source,
        };
        return SandboxError::setup(op.map_or_else(String::new, ToString::to_string), source);
    }
    let argv0: OsString = spec.argv.first().cloned().unwrap_or_default();
    match Errno::from_raw_os_error(report.errno) {
        Errno::LOOP => SandboxError::MagicLink { argv0 },
        Errno::NOENT | Errno::NOTDIR if report.detail == 0 => SandboxError::NotFound { argv0 },
        Errno::NOENT | Errno::NOTDIR => SandboxError::InterpreterNotFound { argv0 },
        Errno::NOEXEC => SandboxError::WrongFormat { argv0 },
        Errno::ACCESS | Errno::PERM => SandboxError::PermissionDenied { argv0 },
        Errno::TOOBIG => SandboxError::TooLong { argv0 },
        _ => SandboxError::setup(format!("execute `{}`", argv0.display()), source),
    }
}
