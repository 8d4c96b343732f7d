//! The code between clone(2) and execve(2) of a command without namespaces.
//!
//! Like [`super::child`] it makes raw system calls only, and neither allocates nor panics.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use libc::sock_filter;
use rustix::event::Timespec;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Signal, Uid};
use rustix::thread::CapabilitySet;

use super::child::enter_cgroup;
use super::error::SandboxError;
use super::isolation::Isolation;
use super::report::{EXEC, Report};
use super::rootfs::Rootfs;
use super::spec::{Network, RunSpec};
use super::streams::ChildEnds;
use super::supervised_mounts::StepScratch;
use super::supervisor::{self, Rules};
use super::sys::exec::StringArray;
use super::sys::{clone, descriptors, exec, filter, landlock, notify, signal};
use super::{caps, kept_mounts, prepare, seccomp};

/// The steps of the setup, worded to follow "cannot", in order.
pub(super) const STEPS: [&str; 12] = [
    "tie the command to rbuild",
    "start a session",
    "connect the streams of the command",
    "set the limits of the command",
    "change the root directory",
    "enter the working directory of the command",
    "become the user of the command",
    "give up the right to gain rights",
    "fence the command off with Landlock",
    "load the system call filter",
    "close descriptors",
    "start the supervision of the command",
];

/// Maximum number of attempts to execute a file that another process has open for writing; together they
/// take two seconds.
const MAX_BUSY_ATTEMPTS: u32 = 400;
const BUSY_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Everything that the child needs.
pub(super) struct SupervisedChild<'a> {
    root: BorrowedFd<'a>,
    cwd: OwnedFd,
    /// True for chroot(2); otherwise the root stays rbuild's.
    changes_root: bool,
    null: OwnedFd,
    limits: Vec<(Resource, Rlimit)>,
    /// Files that move the command into its control group.
    groups: Vec<BorrowedFd<'a>>,
    user: Option<(Uid, Gid, Vec<Gid>)>,
    owner: (Uid, Gid),
    capabilities: CapabilitySet,
    fence: Option<OwnedFd>,
    filters: Vec<Vec<sock_filter>>,
    supervision: Vec<sock_filter>,
}

impl<'a> SupervisedChild<'a> {
    pub(super) fn new(
        rootfs: &'a Rootfs,
        spec: &'a RunSpec,
        isolation: Isolation,
        rules: Rules,
        scratch: &StepScratch,
    ) -> std::result::Result<Self, SandboxError> {
        let failed = |errno| SandboxError::setup("prepare the command", errno);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        let null = rustix::fs::open(c"/dev/null", flags, Mode::empty())
            .map_err(|errno| SandboxError::setup("open /dev/null", errno))?;
        let uid = prepare::user(spec.user.uid).map_err(failed)?;
        let gid = prepare::group(spec.user.gid).map_err(failed)?;
        let groups = spec.user.groups.iter().map(|gid| prepare::group(*gid));
        let groups = groups.collect::<Result<Vec<_>>>().map_err(failed)?;
        let changes_root = isolation == Isolation::Chroot;
        let carrier = rules.emulates_owners.then_some(supervisor::CARRIER_LIMIT);
        let limits = spec.limits.iter().copied().chain(carrier);
        let limits = limits.map(|limit| (limit.resource, prepare::rlimit(limit))).collect();
        let mut filters = Vec::new();
        if !spec.insecure {
            filters.push(seccomp::docker_default().to_vec());
        }
        if matches!(spec.network, Network::None) {
            filters.push(seccomp::no_network());
        }
        let own = rustix::thread::capabilities(None).map_err(failed)?.permitted;
        let capabilities = if !changes_root {
            CapabilitySet::empty()
        } else if spec.insecure {
            own
        } else {
            // A process with this right leaves the root: it changes its root again, but not its working
            // directory (chroot(2)).
            let wanted = spec.capabilities.applied_to(caps::DOCKER_DEFAULT);
            own.intersection(wanted).difference(CapabilitySet::SYS_CHROOT)
        };
        Ok(Self {
            root: rootfs.as_fd(),
            cwd: scratch
                .open_directory(rootfs.as_fd(), spec)
                .map_err(|errno| SandboxError::setup(STEPS[5], errno))?,
            changes_root,
            null,
            limits,
            groups: prepare::cgroup_files(spec),
            user: changes_root.then_some((uid, gid, groups)),
            owner: (uid, gid),
            capabilities,
            fence: scratch.fence(rootfs.as_fd(), spec)?,
            filters,
            supervision: supervisor::filter(rules),
        })
    }
}

/// Sets everything up and executes the command; does not return.
pub(super) fn main(
    child: &SupervisedChild<'_>,
    ends: ChildEnds<'_>,
    programs: &[CString],
    argv: &StringArray,
    env: &StringArray,
) {
    let mut state = State { status: ends.status, socket: ends.keep };
    for step in 0..STEPS.len() {
        if let Err(errno) = apply(step, child, ends, &mut state) {
            let op = u32::try_from(step).unwrap_or(0);
            Report { op, errno: errno.raw_os_error(), detail: 0 }.send(state.status);
            clone::exit_now(1);
        }
    }
    execute(programs, argv, env).send(state.status);
    clone::exit_now(1);
}

struct State<'a> {
    status: BorrowedFd<'a>,
    socket: Option<BorrowedFd<'a>>,
}

fn apply<'a>(
    step: usize,
    child: &SupervisedChild<'_>,
    ends: ChildEnds<'a>,
    state: &mut State<'a>,
) -> Result<()> {
    match step {
        0 => rustix::process::set_parent_process_death_signal(Some(Signal::KILL)),
        1 => {
            signal::reset_actions();
            signal::set_mask(signal::Mask::NONE)?;
            rustix::process::umask(Mode::from_raw_mode(supervisor::INITIAL_UMASK));
            rustix::process::setsid().map(drop)
        }
        2 => connect(child, ends),
        3 => {
            enter_cgroup(&child.groups)?;
            let limits = child.limits.iter();
            let mut set = limits.map(|(name, limit)| rustix::process::setrlimit(*name, *limit));
            set.try_for_each(|done| done)
        }
        4 if child.changes_root => {
            rustix::process::fchdir(child.root)?;
            rustix::process::chroot(c".")
        }
        5 => rustix::process::fchdir(&child.cwd),
        6 => become_user(child),
        7 => notify::set_no_new_privs(),
        8 => match &child.fence {
            Some(rules) => landlock::restrict_self(rules.as_fd()),
            None => Ok(()),
        },
        9 => child.filters.iter().try_for_each(|program| filter::load(program)),
        10 => {
            let socket = state.socket.ok_or(Errno::BADF)?;
            let kept = descriptors::keep_only(state.status, socket, None)?;
            (state.status, state.socket) = (kept.status, Some(kept.launcher));
            Ok(())
        }
        11 => {
            // The status pipe must be closed by exec, which proves that the command was executed.
            rustix::io::fcntl_setfd(state.status, rustix::io::FdFlags::CLOEXEC)?;
            // The supervisor reads this process's memory, which rbuild's own setting may forbid.
            rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            let listener = notify::load(&child.supervision)?;
            let socket = state.socket.ok_or(Errno::BADF)?;
            // The listener is closed here: while this process had it open, its own calls would wait for
            // a supervisor that has died.
            kept_mounts::send(socket, listener.as_fd())
        }
        _ => Ok(()),
    }
}

fn connect(child: &SupervisedChild<'_>, ends: ChildEnds<'_>) -> Result<()> {
    for end in [ends.stdout, ends.stderr].into_iter().chain(ends.stdin) {
        // The user must be able to reopen `/dev/stdout`.
        let (uid, gid) = child.owner;
        let _best_effort = rustix::fs::fchown(end, Some(uid), Some(gid));
    }
    rustix::stdio::dup2_stdout(ends.stdout)?;
    rustix::stdio::dup2_stderr(ends.stderr)?;
    rustix::stdio::dup2_stdin(ends.stdin.unwrap_or(child.null.as_fd()))
}

fn become_user(child: &SupervisedChild<'_>) -> Result<()> {
    let own = rustix::thread::capabilities(None)?.permitted;
    if own.contains(CapabilitySet::SETPCAP) {
        caps::limit_bounding_set(child.capabilities)?;
    }
    if let Some((uid, gid, groups)) = &child.user {
        if own.contains(CapabilitySet::SETGID) {
            rustix::thread::set_thread_groups(groups)?;
        }
        rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
        rustix::thread::set_thread_res_uid(*uid, *uid, *uid)?;
        if !uid.is_root() {
            return Ok(());
        }
    }
    caps::set_exactly(child.capabilities)
}

/// Tries the candidates as execvp(3) does; returns only if none could be executed.
fn execute(programs: &[CString], argv: &StringArray, env: &StringArray) -> Report {
    let mut report = Report { op: EXEC, errno: Errno::NOENT.raw_os_error(), detail: 0 };
    for path in programs {
        let mut errno = exec::execve(path, argv, env);
        // The reaper of another step is a copy of rbuild, with its open files, until that step's command
        // runs. If it was made while this file was being written, the file is busy (execve(2), `ETXTBSY`).
        for _ in 0..MAX_BUSY_ATTEMPTS {
            if errno != Errno::TXTBSY {
                break;
            }
            let _slept = rustix::event::poll(&mut [], Some(&BUSY_INTERVAL));
            errno = exec::execve(path, argv, env);
        }
        let exists = || rustix::fs::access(path.as_c_str(), rustix::fs::Access::EXISTS).is_ok();
        match errno {
            Errno::NOENT | Errno::NOTDIR if !exists() => {}
            Errno::ACCESS => {
                report = Report { op: EXEC, errno: errno.raw_os_error(), detail: 1 };
            }
            _ => return Report { op: EXEC, errno: errno.raw_os_error(), detail: 1 },
        }
    }
    report
}
