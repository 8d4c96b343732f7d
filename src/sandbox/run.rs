//! Runs a command: starts the child, passes its output on, waits for its end.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::child::{self, EXEC, Pipes, Report};
use super::idmap::in_user_namespace;
use super::ops::{self, SetupOp};
use super::prepare;
use super::rootfs::Rootfs;
use super::spec::{Exit, Network, Output, RunSpec, SandboxError};
use super::sys::{clone, signal};

/// How much output is read at once: what a pipe holds.
const CHUNK_BYTES: usize = 64 << 10;

/// Runs the command of `spec` in `rootfs` to its end.
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
    let ops = ops::rootfs_ops(spec);
    let prepared = prepare::child(rootfs, spec, &ops)?;
    let [status, stdout, stderr] = [pipe()?, pipe()?, pipe()?];
    let ends = Pipes {
        status: status.write.as_fd(),
        stdout: stdout.write.as_fd(),
        stderr: stderr.write.as_fd(),
    };
    let step = Step::start(namespaces(spec.network), &|| child::main(&prepared, ends))?;
    // The child has its own copies; while these are open the pipes would not end.
    drop((status.write, stdout.write, stderr.write, prepared));

    let streams = [
        Stream::new(status.read, None),
        Stream::new(stdout.read, Some(Output::Stdout)),
        Stream::new(stderr.read, Some(Output::Stderr)),
    ];
    let report = attend(&step, streams, cancel, on_output)
        .map_err(|errno| SandboxError::setup("follow the command", errno))?;
    let exit = step.wait()?;
    match report {
        Some(report) => Err(failure(report, &ops, spec)),
        None => Ok(exit),
    }
}

/// The namespaces of a step. The user namespace is that of rbuild: an ordinary user's rbuild has
/// entered one of its own.
fn namespaces(network: Network) -> u64 {
    let always = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let flags = match network {
        Network::Host => always,
        Network::None => always | libc::CLONE_NEWNET,
    };
    u64::from(flags.cast_unsigned())
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe that never blocks its reader.
fn pipe() -> Result<Pipe, SandboxError> {
    let failed = |errno| SandboxError::setup("make a pipe", errno);
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    rustix::io::ioctl_fionbio(&read, true).map_err(failed)?;
    Ok(Pipe { read, write })
}

/// A step's pid 1. Whoever loses it kills it, and with it all that it started.
struct Step {
    pidfd: OwnedFd,
    waited: bool,
}

impl Step {
    fn start(namespaces: u64, body: &dyn Fn()) -> Result<Self, SandboxError> {
        let failed = |errno| SandboxError::setup("start a process in new namespaces", errno);
        // A handler of this program must not run in the child, where it would act for the
        // parent.
        let before = signal::set_mask(signal::Mask::ALL).map_err(failed)?;
        let started = clone::clone_step(namespaces, body);
        let step = started.map(|pidfd| Self { pidfd, waited: false });
        signal::set_mask(before).map_err(failed)?;
        step.map_err(failed)
    }

    fn kill(&self) {
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

/// The parent's end of one of the pipes.
struct Stream {
    /// `None` when it has ended.
    pipe: Option<OwnedFd>,
    /// `None` for the reports of the child.
    output: Option<Output>,
}

impl Stream {
    fn new(pipe: OwnedFd, output: Option<Output>) -> Self {
        Self { pipe: Some(pipe), output }
    }

    /// Reads what is there now.
    fn drain(
        &mut self,
        chunk: &mut [u8],
        report: &mut Option<Report>,
        on_output: &mut dyn FnMut(Output, &[u8]),
    ) -> rustix::io::Result<()> {
        while let Some(pipe) = &self.pipe {
            let bytes = match rustix::io::read(pipe, &mut *chunk) {
                Ok(len) => chunk.get(..len).unwrap_or_default(),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            match (bytes, self.output) {
                ([], _) => self.pipe = None,
                (bytes, Some(output)) => on_output(output, bytes),
                (bytes, None) => *report = Report::from_bytes(bytes),
            }
        }
        Ok(())
    }
}

/// Passes the output on until the command has ended.
fn attend(
    step: &Step,
    mut streams: [Stream; 3],
    cancel: Option<BorrowedFd<'_>>,
    on_output: &mut dyn FnMut(Output, &[u8]),
) -> rustix::io::Result<Option<Report>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut report = None;
    let mut cancel = cancel;
    loop {
        let ready = poll(step, &streams, cancel)?;
        if ready.cancelled {
            step.kill();
            cancel = None;
        }
        // All writers are gone once pid 1 has ended, so that nothing is missed when the pipes
        // are read once more after that.
        for stream in &mut streams {
            stream.drain(&mut chunk, &mut report, on_output)?;
        }
        if ready.ended {
            return Ok(report);
        }
    }
}

/// What woke the parent up, besides output.
struct Ready {
    ended: bool,
    cancelled: bool,
}

fn poll(
    step: &Step,
    streams: &[Stream],
    cancel: Option<BorrowedFd<'_>>,
) -> rustix::io::Result<Ready> {
    let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let pidfd = step.pidfd.as_fd();
    // A descriptor may be polled twice: pid 1 stands in for a cancellation that cannot come.
    let mut fds = vec![readable(pidfd), readable(cancel.unwrap_or(pidfd))];
    fds.extend(
        streams.iter().filter_map(|stream| stream.pipe.as_ref()).map(|fd| readable(fd.as_fd())),
    );
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    let mut woken = fds.iter().map(|fd| !fd.revents().is_empty());
    let ended = woken.next().unwrap_or(false);
    let cancelled = woken.next().unwrap_or(false) && cancel.is_some();
    Ok(Ready { ended, cancelled })
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && in_user_namespace()
}

/// Makes an error of what the child reported.
fn failure(report: Report, ops: &[SetupOp], spec: &RunSpec) -> SandboxError {
    let source = io::Error::from_raw_os_error(report.errno);
    if report.op != EXEC {
        let op = usize::try_from(report.op).ok().and_then(|index| ops.get(index));
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
        return SandboxError::setup(op.map_or_else(String::new, ToString::to_string), source);
    }
    let argv0: OsString = spec.argv.first().cloned().unwrap_or_default();
    match Errno::from_raw_os_error(report.errno) {
        Errno::NOENT | Errno::NOTDIR if report.program_exists == 0 => {
            SandboxError::NotFound { argv0 }
        }
        Errno::NOENT | Errno::NOTDIR => SandboxError::InterpreterNotFound { argv0 },
        Errno::NOEXEC => SandboxError::WrongFormat { argv0 },
        Errno::ACCESS | Errno::PERM => SandboxError::PermissionDenied { argv0 },
        Errno::TOOBIG => SandboxError::TooLong { argv0 },
        _ => SandboxError::setup(format!("execute `{}`", argv0.display()), source),
    }
}
