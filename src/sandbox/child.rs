//! The code between clone(2) and execve(2): a loop over the prepared operations.
//!
//! Nothing here allocates, locks, logs or panics. Until exec the child shares the memory of its
//! parent, one thread of many; a lock that another thread holds may never be released for the child
//! (signal-safety(7), fork(2)).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::mount::MountPropagationFlags;
use rustix::process::Signal;
use rustix::thread::LinkNameSpaceType;

use super::mounts::{
    attach_root, locate, make_blanks, make_device, make_read_only, mask, mount_filesystem,
    mount_sys, move_onto, open_in, resolve, resolve_or_create,
};
use super::prepared::{PreparedChild, PreparedOp};
use super::report::{EXEC, Report};
use super::streams::ChildEnds;
use super::sys::{clone, descriptors, exec, filter, landlock, net, notify, signal};
use super::{caps, kept_mounts, pivot, verify};

/// The results of operations that later ones use.
struct ChildState<'a> {
    /// The status pipe, whose number changes when descriptors are closed.
    status: BorrowedFd<'a>,
    /// The launcher's file, whose number changes likewise.
    launcher: BorrowedFd<'a>,
    /// The socket to rbuild.
    socket: Option<BorrowedFd<'a>>,
    /// The id of the rootfs's mount, which stays the same when it is moved.
    root_mount: Option<u64>,
    /// The tmpfs with the empty file and directory that masks are made of.
    blanks: Option<OwnedFd>,
}

/// The error of an operation, with the report's detail.
struct SetupFailure {
    errno: Errno,
    detail: u32,
}

impl From<Errno> for SetupFailure {
    fn from(errno: Errno) -> Self {
        Self { errno, detail: 0 }
    }
}

/// Applies all operations and executes the command; does not return.
pub(super) fn main(child: &PreparedChild<'_>, ends: ChildEnds<'_>) {
    // Files and directories get exactly the permissions that they are created with.
    rustix::process::umask(Mode::empty());
    let mut state = ChildState {
        status: ends.status,
        launcher: child.launcher.as_fd(),
        socket: ends.keep,
        root_mount: verify::mount_id(child.root, c""),
        blanks: None,
    };
    let mut op = 0;
    for prepared in &child.ops {
        if let Err(SetupFailure { errno, detail }) = apply(prepared, child, ends, &mut state) {
            Report { op, errno: errno.raw_os_error(), detail }.send(state.status);
            clone::exit_now(1);
        }
        op = u32::saturating_add(op, 1);
    }
    execute(child, &state).send(state.status);
    clone::exit_now(1);
}

fn apply<'a>(
    op: &PreparedOp<'_>,
    child: &'a PreparedChild<'_>,
    ends: ChildEnds<'a>,
    state: &mut ChildState<'a>,
) -> std::result::Result<(), SetupFailure> {
    if let PreparedOp::Verify(expected) = op {
        let wrong = verify::first_mismatch(expected, state.root_mount, state.launcher);
        return wrong.map_or(Ok(()), |part| {
            Err(SetupFailure { errno: Errno::NOTRECOVERABLE, detail: part.number() })
        });
    }
    Ok(change(op, child, ends, state)?)
}

/// Moves the calling process into the groups of these files. Allocates nothing.
pub(super) fn enter_cgroup(files: &[BorrowedFd<'_>]) -> Result<()> {
    // 0 stands for the writing process (cgroups(7)).
    files.iter().try_for_each(|file| rustix::io::write(file, b"0").map(drop))
}

fn make_mounts_private() -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)
}

fn join_network(namespace: BorrowedFd<'_>) -> Result<()> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
}

fn change<'a>(
    op: &PreparedOp<'_>,
    child: &'a PreparedChild<'_>,
    ends: ChildEnds<'a>,
    state: &mut ChildState<'a>,
) -> Result<()> {
    let root = child.root;
    match op {
        PreparedOp::PrivatePropagation => make_mounts_private(),
        PreparedOp::AttachRoot => attach_root(root),
        PreparedOp::EnterCgroup(files) => enter_cgroup(files),
        PreparedOp::JoinNetwork(namespace) => join_network(*namespace),
        PreparedOp::JoinMounts(kept) => kept_mounts::join(kept, root),
        PreparedOp::Terminals { directory, target } => {
            move_onto(*directory, resolve_or_create(root, target, true)?.as_fd())
        }
        PreparedOp::Filesystem(filesystem) => mount_filesystem(root, filesystem),
        PreparedOp::Sys { read_only } => mount_sys(root, *read_only),
        PreparedOp::DevDirectory(name) => {
            rustix::fs::mkdirat(resolve(root, c"/dev")?, name.as_c_str(), Mode::from(0o755))
        }
        PreparedOp::DevNode { host, name, device } => make_device(root, host, name, *device),
        PreparedOp::DevLink { name, to } => {
            rustix::fs::symlinkat(to.as_c_str(), resolve(root, c"/dev")?, name.as_c_str())
        }
        PreparedOp::ReadOnly(path) => make_read_only(root, path),
        PreparedOp::Locate { mount, path, attributes } => locate(mount.as_fd(), path, *attributes),
        PreparedOp::Bind { mount, target } => {
            let about = rustix::fs::fstat(mount)?;
            let is_directory = FileType::from_raw_mode(about.st_mode).is_dir();
            move_onto(mount.as_fd(), resolve_or_create(root, target, is_directory)?.as_fd())
        }
        PreparedOp::Loopback => net::loopback_up(),
        PreparedOp::Hostname(name) => rustix::system::sethostname(name.as_bytes()),
        PreparedOp::PivotRoot { kept } => pivot::pivot(root, ends.keep.filter(|_| *kept)),
        PreparedOp::EnterDirectory(directory) => enter_directory(directory),
        PreparedOp::Streams { uid, gid } => ends.connect(root, *uid, *gid),
        PreparedOp::Signals => {
            signal::reset_actions();
            signal::set_mask(signal::Mask::NONE).map(drop)
        }
        PreparedOp::Session => rustix::process::setsid().map(drop),
        PreparedOp::ControllingTerminal => rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()),
        PreparedOp::Umask(mask) => {
            rustix::process::umask(Mode::from_bits_truncate(*mask));
            Ok(())
        }
        PreparedOp::Limit(resource, limit) => rustix::process::setrlimit(*resource, *limit),
        PreparedOp::Seccomp(program) => filter::load(program),
        PreparedOp::BoundingSet(set) => caps::limit_bounding_set(*set),
        PreparedOp::Become { uid, gid, groups } => {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid)
        }
        PreparedOp::Capabilities(set) => caps::set_exactly(*set),
        PreparedOp::DieWithParent => die_with_parent(child.parent.as_fd()),
        PreparedOp::ScopeSockets(rules) => rules.map_or(Ok(()), landlock::restrict_self),
        PreparedOp::Blanks => make_blanks(root).map(|blanks| state.blanks = Some(blanks)),
        PreparedOp::Mask(path) => mask(root, path, state.blanks.as_ref()),
        PreparedOp::CloseDescriptors { keeps_socket } => close_descriptors(state, *keeps_socket),
        PreparedOp::Supervise(program) => supervise(program, state.socket),
        PreparedOp::RenewDieWithParent => renew_die_with_parent(state.status),
        PreparedOp::Verify(_) => Ok(()),
    }
}

fn close_descriptors(state: &mut ChildState<'_>, keeps_socket: bool) -> Result<()> {
    let socket = state.socket.filter(|_| keeps_socket);
    let kept = descriptors::keep_only(state.status, state.launcher, socket)?;
    (state.status, state.launcher, state.socket) = (kept.status, kept.launcher, kept.extra);
    Ok(())
}

/// Loads the filter of a supervisor, and sends rbuild its listener and the root directory.
fn supervise(program: &[libc::sock_filter], socket: Option<BorrowedFd<'_>>) -> Result<()> {
    let socket = socket.ok_or(Errno::BADF)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(c"/", flags, Mode::empty())?;
    notify::set_no_new_privs()?;
    let listener = notify::load(program)?;
    kept_mounts::send(socket, listener.as_fd())?;
    kept_mounts::send(socket, root.as_fd())
}

/// Enters the working directory, which an image or a Dockerfile names. Never follows a magic link
/// such as `/proc/self/fd/7`, which could lead to the host (CVE-2024-21626 in runc).
fn enter_directory(path: &CStr) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(c"/", flags, Mode::empty())?;
    rustix::process::fchdir(open_in(root.as_fd(), path, flags)?)
}

/// Asks the kernel to kill this process when rbuild dies (prctl(2), `PR_SET_PDEATHSIG`).
fn die_with_parent(parent: BorrowedFd<'_>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // rbuild may have died before the call: its pidfd is then readable. getppid(2) returns 0 in a
    // new pid namespace, so it cannot tell.
    let mut died = [PollFd::from_borrowed_fd(parent, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut died, Some(&at_once))? {
        0 => Ok(()),
        _ => Err(Errno::SRCH),
    }
}

/// Sets the signal again: a change of credentials clears it (prctl(2), `PR_SET_PDEATHSIG`). If
/// rbuild has died in between, the status pipe reports an error, since rbuild alone holds its
/// reader.
fn renew_die_with_parent(status: BorrowedFd<'_>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut reader = [PollFd::from_borrowed_fd(status, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut reader, Some(&at_once))? {
        0 => Ok(()),
        _ => Err(Errno::SRCH),
    }
}

/// Executes the launcher, which tries the candidates; returns only if that failed.
fn execute(child: &PreparedChild<'_>, state: &ChildState<'_>) -> Report {
    let report = |errno: Errno| Report { op: EXEC, errno: errno.raw_os_error(), detail: 1 };
    if leads_through_magic_link(child) {
        return report(Errno::LOOP);
    }
    report(exec::execveat(state.launcher, &child.argv, &child.env))
}

/// Returns whether the first existing candidate is reached through a magic link of `/proc`. The
/// launcher makes such a link harmless; this check gives it a clear error.
fn leads_through_magic_link(child: &PreparedChild<'_>) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    for program in &child.programs {
        let found = rustix::fs::openat2(
            CWD,
            program.as_c_str(),
            flags,
            Mode::empty(),
            ResolveFlags::NO_MAGICLINKS,
        );
        match found {
            Ok(_) => return false,
            Err(Errno::LOOP) => {
                return rustix::fs::statat(CWD, program.as_c_str(), AtFlags::empty()).is_ok();
            }
            Err(_) => {}
        }
    }
    false
}
