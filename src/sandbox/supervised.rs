//! Runs a command without namespaces: in chroot(2), or with paths that a supervisor translates.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::thread::{self, JoinHandle};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::process::PidfdFlags;

use super::attributes::EmulatedFiles;
use super::error::SandboxError;
use super::file_time::FileTime;
use super::isolation::Isolation;
use super::report::{EXEC, Report};
use super::rootfs::Rootfs;
use super::spec::{Exit, MountNamespace, Network, Output, RunSpec, Streams};
use super::step_process::StepProcess;
use super::streams::{AttachOptions, AttachResult, CommandStreams, pipe};
use super::supervised_child::{self, STEPS, SupervisedChild};
use super::supervised_mounts::StepScratch;
use super::supervisor::{Identity, Rules, Supervisor};
use super::sys::descriptors;
use super::{kept_mounts, launcher, prepare, reaper};

/// Runs the command of `spec`, like [`run_attached`](super::run_attached).
pub(super) fn run(
    rootfs: &Rootfs,
    spec: &RunSpec,
    isolation: Isolation,
    attach: AttachOptions<'_>,
    on_output: &mut dyn FnMut(Output, &[u8]),
) -> Result<Exit, SandboxError> {
    refuse_unsupported(spec, isolation)?;
    if isolation == Isolation::Chroot {
        refuse_without_execution(rootfs)?;
    }
    let rules = rules(isolation);
    let scratch = StepScratch::new(rootfs.as_fd(), spec, rules)?;
    let streams = CommandStreams::new(spec.streams, attach.input)?;
    let status = pipe()?;
    let (own, theirs) = kept_mounts::socket_pair()
        .map_err(|errno| SandboxError::setup("create a socket pair", errno))?;
    let child = SupervisedChild::new(rootfs, spec, isolation, rules, &scratch)?;
    let programs = launcher::programs(spec)?;
    let (argv, env) = (prepare::arguments(spec)?, prepare::environment(spec)?);
    let me = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map_err(|errno| SandboxError::setup("open a pidfd of this process", errno))?;
    let own_number = own.as_raw_fd();
    let supervisor = start_supervisor(rootfs, spec, rules, &scratch, own)?;
    let ends = streams.ends(status.write.as_fd(), Some(theirs.as_fd()));
    let step = StepProcess::start_reaper(attach.cancel, &|| {
        // The listener travels in this socket. While a copy of its receiving end were open here, the calls
        // of the command would wait for a supervisor that died with rbuild.
        let _closed = descriptors::close_copy(own_number);
        let no_namespaces = 0;
        reaper::main(me.as_fd(), no_namespaces, &|| {
            supervised_child::main(&child, ends, &programs, &argv, &env);
        });
    })?;
    // The child has its own copies. While these are open, the pipes would not reach end of file.
    drop((status.write, theirs));
    let attended = streams.attend(status.read, &step, attach, on_output);
    let exit = attended
        .map_err(|errno| SandboxError::setup("follow the command", errno))
        .and_then(|attended| Ok((attended, step.wait()?)));
    let supervised = finish(supervisor, rootfs);
    scratch.remove();
    supervised?;
    let (AttachResult { report, killed }, exit) = exit?;
    match (report, killed) {
        (Some(report), _) => Err(error_from_report(report, spec)),
        (None, Some(cause)) => cause.result(),
        (None, None) => Ok(exit),
    }
}

pub(super) const fn rules(isolation: Isolation) -> Rules {
    Rules {
        translates_paths: matches!(isolation, Isolation::Emulated),
        has_mounts: !isolation.may_mount(),
        emulates_owners: isolation.emulates_owners(),
    }
}

fn refuse_unsupported(spec: &RunSpec, isolation: Isolation) -> Result<(), SandboxError> {
    let missing = if matches!(spec.mount_namespace, MountNamespace::Join(_)) {
        "join the mounts of another command"
    } else if spec.streams == Streams::Terminal {
        "open a terminal for the command"
    } else if matches!(spec.network, Network::Private(_)) {
        "give a command a network of its own (`--network=private`)"
    } else if spec.insecure && isolation != Isolation::Chroot {
        "run a command with `--security=insecure`"
    } else {
        return Ok(());
    };
    let reason = format!(
        "isolation `{}` has no namespaces; `rbuild doctor` shows what would permit them",
        isolation.name()
    );
    Err(SandboxError::setup(missing, std::io::Error::new(std::io::ErrorKind::Unsupported, reason)))
}

/// Refuses a root on a file system that is mounted `noexec`, which docker does with a tmpfs.
fn refuse_without_execution(rootfs: &Rootfs) -> Result<(), SandboxError> {
    let failed = |errno| SandboxError::setup("inspect the file system of the store", errno);
    let stat = rustix::fs::fstatvfs(rootfs.as_fd()).map_err(failed)?;
    if !stat.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Ok(());
    }
    let reason = "it is mounted `noexec`: mount it with `exec` (docker: `--tmpfs DIR:exec`), or choose \
                  another directory with `--root`";
    let source = std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason);
    Err(SandboxError::setup("execute programs on the file system of the store", source))
}

/// Starts the thread that answers the calls of a command in namespaces, which sends its listener and
/// its root directory to the other end of `socket`.
pub(super) fn start_in_namespace(
    rootfs: &Rootfs,
    rules: Rules,
    user: Identity,
    socket: OwnedFd,
) -> Result<SupervisorThread, SandboxError> {
    let (files, started) = (rootfs.take_attributes(), rootfs.started());
    spawn(move || {
        let started = started.unwrap_or_else(|| FileTime::now().next());
        let listener = kept_mounts::receive_descriptor(socket.as_fd());
        let root = listener.as_ref().and_then(|_| kept_mounts::receive_descriptor(socket.as_fd()));
        let (Some(listener), Some(root)) = (listener, root) else { return Ok(files) };
        let made = Supervisor::new(listener, rules, root, files, user, Vec::new(), started);
        made.map(Supervisor::run).map_err(failed_supervisor)
    })
}

/// The thread of a supervisor, which returns the attributes of the step's files.
pub(super) type SupervisorThread = JoinHandle<Result<EmulatedFiles, SandboxError>>;

/// Waits for a supervisor whose processes have ended.
///
/// # Errors
/// The reason why it could not start; then the kernel did not execute the command either.
pub(super) fn finish(supervisor: SupervisorThread, rootfs: &Rootfs) -> Result<(), SandboxError> {
    let panicked = |_panic| failed_supervisor(Errno::NOTRECOVERABLE);
    *rootfs.lock_attributes() = supervisor.join().map_err(panicked)??;
    Ok(())
}

fn failed_supervisor(errno: Errno) -> SandboxError {
    SandboxError::setup("start the supervisor of the command's system calls", errno)
}

fn spawn(
    body: impl FnOnce() -> Result<EmulatedFiles, SandboxError> + Send + 'static,
) -> Result<SupervisorThread, SandboxError> {
    thread::Builder::new()
        .name("supervisor".to_owned())
        .spawn(body)
        .map_err(|error| SandboxError::setup("start the supervisor", error))
}

/// Starts the thread that answers the step's calls. It ends with the step's last process.
fn start_supervisor(
    rootfs: &Rootfs,
    spec: &RunSpec,
    rules: Rules,
    scratch: &StepScratch,
    socket: OwnedFd,
) -> Result<SupervisorThread, SandboxError> {
    let root = open_root(rootfs.as_fd()).map_err(failed_supervisor)?;
    let (files, started) = (rootfs.take_attributes(), rootfs.started());
    let user = Identity::of(&spec.user);
    let loader = scratch.loader_path();
    let mounts = scratch.mounts(rootfs.as_fd(), spec)?;
    let own_attributes = scratch.attributes(spec)?;
    spawn(move || {
        let started = started.unwrap_or_else(|| FileTime::now().next());
        let Some(listener) = kept_mounts::receive_descriptor(socket.as_fd()) else {
            return Ok(files);
        };
        drop(socket);
        let made = Supervisor::new(listener, rules, root, files, user, loader, started);
        let mut supervisor = made.map_err(failed_supervisor)?;
        for mount in mounts {
            let shown = String::from_utf8_lossy(&mount.target).into_owned();
            let failed = |errno| SandboxError::setup(format!("show a mount at {shown}"), errno);
            supervisor.mount(mount).map_err(failed)?;
        }
        for (file, attributes) in own_attributes {
            supervisor.set_attributes(file, attributes);
        }
        Ok(supervisor.run())
    })
}

fn open_root(root: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(root, c".", flags, Mode::empty())
}

/// Converts the child's report into an error.
fn error_from_report(report: Report, spec: &RunSpec) -> SandboxError {
    let source = std::io::Error::from_raw_os_error(report.errno);
    if report.op != EXEC {
        let step = usize::try_from(report.op).ok().and_then(|index| STEPS.get(index));
        return SandboxError::setup(step.copied().unwrap_or("start the command"), source);
    }
    super::exec_error::of(report, spec)
}
