//! Runs a command: starts the child, forwards its output, and waits for its end.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::CapabilitySet;

use crate::pathio::ids::{self, UnmappedId};

use super::error::SandboxError;
use super::isolation::{Isolation, isolation};
use super::ops::{self, SetupOp};
use super::report::{EXEC, Report};
use super::rootfs::Rootfs;
use super::spec::{Exit, KeptMounts, MountNamespace, Network, Output, RunSpec, User};
use super::step_process::StepProcess;
use super::streams::{AttachOptions, AttachResult, CommandStreams, pipe};
use super::supervisor::{Identity, Rules};
use super::user_namespace::in_user_namespace;
use super::verify::SandboxPart;
use super::{caps, child, exec_error, kept_mounts, prepare, supervised};

/// The result of a command, and the mounts that it left.
#[derive(Debug)]
pub struct RunOutcome {
    /// The way in which it ended, or the reason why it could not run.
    pub exit: Result<Exit, SandboxError>,
    /// The mounts of [`MountNamespace::Kept`], if the child came as far as making them.
    pub kept: Option<KeptMounts>,
}

/// Runs the command of `spec` in `rootfs` until it ends, without input.
///
/// `on_output` receives what it writes, as it arrives. When `cancel` becomes readable, the command
/// is killed, and the result is [`Exit::Signal`] with 9. When this function returns, all processes
/// that the command started have ended and all its mounts are gone. The mount of the rootfs is used
/// up: its files can still be read through its descriptor, but no other command can run in it.
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
    run_attached(rootfs, spec, AttachOptions { cancel, ..AttachOptions::default() }, on_output).exit
}

/// Runs the command of `spec` like [`run`], with the streams and the mount namespace that `spec`
/// asks for. The output of a terminal is reported as standard output.
pub fn run_attached(
    rootfs: &Rootfs,
    spec: &RunSpec,
    attach: AttachOptions<'_>,
    on_output: &mut dyn FnMut(Output, &[u8]),
) -> RunOutcome {
    let mut kept = None;
    if let Some(isolation) = isolation().filter(|isolation| !isolation.may_mount()) {
        let exit = supervised::run(rootfs, spec, isolation, attach, on_output);
        return RunOutcome { exit, kept };
    }
    let exit = start_and_attach(rootfs, &Setup::of(spec), attach, on_output, &mut kept);
    RunOutcome { exit, kept }
}

/// The plan for a command's child: its namespaces and its operations.
pub(super) struct Setup<'a> {
    pub(super) spec: Cow<'a, RunSpec>,
    /// The supervisor of the command, and the user that it pretends to be.
    pub(super) supervision: Option<(Rules, Identity)>,
    /// Flags of clone(2), `CLONE_NEW*`.
    pub(super) namespaces: u64,
    pub(super) ops: Vec<SetupOp>,
}

impl<'a> Setup<'a> {
    pub(super) fn of(spec: &'a RunSpec) -> Self {
        if isolation() == Some(Isolation::SingleId) {
            let user = Identity::of(&spec.user);
            let ops = ops::single_id_ops(spec);
            let spec = ops::as_single_id(spec);
            return Self {
                supervision: Some((supervised::rules(Isolation::SingleId), user)),
                namespaces: namespaces(&spec),
                spec: Cow::Owned(spec),
                ops,
            };
        }
        Self {
            spec: Cow::Borrowed(spec),
            supervision: None,
            namespaces: namespaces(spec),
            ops: ops::rootfs_ops(spec),
        }
    }
}

pub(super) fn start_and_attach(
    rootfs: &Rootfs,
    setup: &Setup<'_>,
    attach: AttachOptions<'_>,
    on_output: &mut dyn FnMut(Output, &[u8]),
    kept: &mut Option<KeptMounts>,
) -> Result<Exit, SandboxError> {
    let Setup { spec, supervision, namespaces, ops } = setup;
    let spec = spec.as_ref();
    for op in ops {
        tracing::debug!(%op, "sandbox");
    }
    let started = Instant::now();
    let streams = CommandStreams::new(spec.streams, attach.input)?;
    let rules = supervision.as_ref().map(|(rules, _)| *rules);
    let prepared = prepare::child(rootfs, spec, ops, streams.terminal(), rules)?;
    let status = pipe()?;
    let uses_socket = supervision.is_some() || matches!(spec.mount_namespace, MountNamespace::Kept);
    let pair = uses_socket.then(kept_mounts::socket_pair).transpose();
    let pair = pair.map_err(|errno| SandboxError::setup("create a socket pair", errno))?;
    let (own, theirs) = pair.unzip();
    let mut own = own;
    let supervisor = match (supervision, own.take_if(|_| supervision.is_some())) {
        (Some((rules, user)), Some(socket)) => {
            Some(supervised::start_in_namespace(rootfs, *rules, user.clone(), socket)?)
        }
        _ => None,
    };
    let ends = streams.ends(status.write.as_fd(), theirs.as_ref().map(OwnedFd::as_fd));
    let step = StepProcess::start_with_retries(*namespaces, attach.cancel, &|| {
        child::main(&prepared, ends);
    })?;
    *kept = own.and_then(|own| kept_mounts::receive(own.as_fd()));
    // The child has its own copies. While these are open, the pipes would not reach end of file.
    drop((status.write, prepared, theirs));

    let AttachResult { report, killed } = streams
        .attend(status.read, &step, attach, on_output)
        .map_err(|errno| SandboxError::setup("follow the command", errno))?;
    let exit = step.wait()?;
    if let Some(supervisor) = supervisor {
        supervised::finish(supervisor, rootfs)?;
    }
    let program = spec.argv.first();
    tracing::debug!(?program, ?exit, took = ?started.elapsed(), "command ended");
    match (report, killed) {
        (Some(report), _) => Err(error_from_report(report, ops, spec)),
        (None, Some(cause)) => cause.result(),
        (None, None) => Ok(exit),
    }
}

/// Returns the flags for a step's new namespaces (namespaces(7)). The user namespace is that of
/// rbuild: an ordinary user's rbuild has already entered its own.
fn namespaces(spec: &RunSpec) -> u64 {
    let always =
        libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    let mounts = match spec.mount_namespace {
        MountNamespace::Own | MountNamespace::Kept => libc::CLONE_NEWNS,
        MountNamespace::Join(_) => 0,
    };
    let network = match spec.network {
        // The child joins a private network.
        Network::Host | Network::Private(_) => 0,
        Network::None => libc::CLONE_NEWNET,
    };
    u64::from((always | mounts | network).cast_unsigned())
}

fn is_denied_in_user_namespace(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && in_user_namespace()
}

/// Returns the error of a failed change of ids. It names the first id that the user namespace does
/// not map, if that is the cause (user_namespaces(7)).
fn set_user_error(errno: i32, user: &User) -> io::Error {
    let errno = Errno::from_raw_os_error(errno);
    let explained = |gid: &u32| ids::explained(errno, Uid::from_raw(user.uid), Gid::from_raw(*gid));
    let errors = std::iter::once(&user.gid).chain(&user.groups).map(explained);
    let found = errors.into_iter().find(|error| UnmappedId::in_io(error).is_some());
    found.unwrap_or_else(|| errno.into())
}

/// Converts the child's report into an error.
fn error_from_report(report: Report, ops: &[SetupOp], spec: &RunSpec) -> SandboxError {
    let source = io::Error::from_raw_os_error(report.errno);
    if report.op != EXEC {
        let op = usize::try_from(report.op).ok().and_then(|index| ops.get(index));
        if let Some(part) = SandboxPart::of_number(report.detail) {
            return SandboxError::NotIsolated { part: part.name() };
        }
        // The kernel allows a new procfs in a user namespace only where an existing one is fully
        // visible (user_namespaces(7), mount_too_revealing() in fs/namespace.c).
        if matches!(op, Some(SetupOp::Filesystem { kind: "proc", .. }))
            && is_denied_in_user_namespace(&source)
        {
            return SandboxError::NoUserNamespace {
                reason: "the kernel refuses to mount a new /proc in it, because parts of the \
                         existing one are masked"
                    .to_owned(),
                help: "start rbuild's container with `--security-opt systempaths=unconfined`"
                    .to_owned(),
            };
        }
        let source = match op {
            Some(SetupOp::Become(user)) => set_user_error(report.errno, user),
            Some(SetupOp::Capabilities(set)) => {
                caps::explain_error(Errno::from_raw_os_error(report.errno), *set)
            }
            Some(SetupOp::BoundingSet(_)) => {
                caps::explain_error(Errno::from_raw_os_error(report.errno), CapabilitySet::SETPCAP)
            }
            _ => source,
        };
        return SandboxError::setup(op.map_or_else(String::new, ToString::to_string), source);
    }
    exec_error::of(report, spec)
}
