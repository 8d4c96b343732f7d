//! What happens between clone and exec: a loop over the prepared operations.
//!
//! Nothing here allocates, locks, logs or panics: until exec the child has the memory of its
//! parent, one thread of many, and a lock that another of them holds is not to be waited for.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::mount::MountPropagationFlags;
use rustix::process::Signal;

use super::mounts::{
    attach_root, locate, make_blanks, make_device, make_read_only, mask, mount_filesystem,
    mount_sys, move_onto, open_in, resolve, resolve_or_create,
};
use super::prepare::{Child, Prepared};
use super::streams::Ends;
use super::sys::{clone, descriptors, exec, filter, landlock, net, signal};
use super::{caps, keep, pivot, verify};

/// What the child tells its parent when it cannot execute the command: three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    /// The number of the operation, or [`EXEC`].
    pub(super) op: u32,
    /// The kernel's answer.
    pub(super) errno: i32,
    /// For [`EXEC`]: 1 when the program exists. For the last operation: which part of the sandbox
    /// is not as it must be.
    pub(super) detail: u32,
}

/// Stands for execve in [`Report::op`]. The launcher's code has it, too.
pub(super) const EXEC: u32 = u32::MAX;

impl Report {
    /// The length of a report in bytes.
    pub(super) const BYTES: usize = 12;

    /// Takes what [`Report::send`] wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (op, rest) = bytes.split_first_chunk()?;
        let (errno, rest) = rest.split_first_chunk()?;
        let (detail, _) = rest.split_first_chunk()?;
        Some(Self {
            op: u32::from_ne_bytes(*op),
            errno: i32::from_ne_bytes(*errno),
            detail: u32::from_ne_bytes(*detail),
        })
    }

    /// Writes the report at once: a pipe takes so few bytes whole.
    fn send(self, status: BorrowedFd<'_>) {
        let mut bytes = [0; Self::BYTES];
        let words = [self.op.to_ne_bytes(), self.errno.to_ne_bytes(), self.detail.to_ne_bytes()];
        for (to, from) in bytes.iter_mut().zip(words.as_flattened()) {
            *to = *from;
        }
        // When the parent is gone nobody wants to know.
        let _ = rustix::io::write(status, &bytes);
    }
}

/// Results of operations that later ones use.
struct State<'a> {
    /// The pipe for reports, which gets another number when descriptors are closed.
    status: BorrowedFd<'a>,
    /// The launcher's file, likewise.
    launcher: BorrowedFd<'a>,
    /// The id of the rootfs's mount, which does not change when it is moved.
    root_mount: Option<u64>,
    /// The tmpfs of an empty file and an empty directory.
    blanks: Option<OwnedFd>,
}

/// The reason why the command is not executed.
struct Failed {
    errno: Errno,
    detail: u32,
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self { errno, detail: 0 }
    }
}

/// Applies all operations and executes the command; does not return.
pub(super) fn main(child: &Child<'_>, ends: Ends<'_>) {
    // Directories and files that are made have exactly the permissions that they are made with.
    rustix::process::umask(Mode::empty());
    let mut state = State {
        status: ends.status,
        launcher: child.launcher.as_fd(),
        root_mount: verify::mount_id(child.root, c""),
        blanks: None,
    };
    let mut op = 0;
    for prepared in &child.ops {
        if let Err(Failed { errno, detail }) = apply(prepared, child, ends, &mut state) {
            Report { op, errno: errno.raw_os_error(), detail }.send(state.status);
            clone::exit_now(1);
        }
        op = u32::saturating_add(op, 1);
    }
    execute(child, &state).send(state.status);
    clone::exit_now(1);
}

fn apply<'a>(
    op: &Prepared<'_>,
    child: &'a Child<'_>,
    ends: Ends<'a>,
    state: &mut State<'a>,
) -> std::result::Result<(), Failed> {
    if let Prepared::Verify(expected) = op {
        let wrong = verify::first_wrong(expected, state.root_mount, state.launcher);
        return wrong.map_or(Ok(()), |part| {
            Err(Failed { errno: Errno::NOTRECOVERABLE, detail: part.number() })
        });
    }
    Ok(change(op, child, ends, state)?)
}

fn change<'a>(
    op: &Prepared<'_>,
    child: &'a Child<'_>,
    ends: Ends<'a>,
    state: &mut State<'a>,
) -> Result<()> {
    let root = child.root;
    match op {
        Prepared::PrivatePropagation => rustix::mount::mount_change(
            c"/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        ),
        Prepared::AttachRoot => attach_root(root),
        Prepared::JoinMounts(kept) => keep::join(kept, root),
        Prepared::Terminals { directory, target } => {
            move_onto(*directory, resolve_or_create(root, target, true)?.as_fd())
        }
        Prepared::Filesystem(filesystem) => mount_filesystem(root, filesystem),
        Prepared::Sys { read_only } => mount_sys(root, *read_only),
        Prepared::DevDirectory(name) => {
            rustix::fs::mkdirat(resolve(root, c"/dev")?, name.as_c_str(), Mode::from(0o755))
        }
        Prepared::DevNode { host, name, device } => make_device(root, host, name, *device),
        Prepared::DevLink { name, to } => {
            rustix::fs::symlinkat(to.as_c_str(), resolve(root, c"/dev")?, name.as_c_str())
        }
        Prepared::ReadOnly(path) => make_read_only(root, path),
        Prepared::Locate { mount, path, attributes } => locate(mount.as_fd(), path, *attributes),
        Prepared::Bind { mount, target } => {
            let about = rustix::fs::fstat(mount)?;
            let is_directory = FileType::from_raw_mode(about.st_mode).is_dir();
            move_onto(mount.as_fd(), resolve_or_create(root, target, is_directory)?.as_fd())
        }
        Prepared::Loopback => net::loopback_up(),
        Prepared::Hostname(name) => rustix::system::sethostname(name.as_bytes()),
        Prepared::PivotRoot => pivot::pivot(root, ends.keep),
        Prepared::EnterDirectory(directory) => enter_directory(directory),
        Prepared::Streams { uid, gid } => ends.connect(root, *uid, *gid),
        Prepared::Signals => {
            signal::reset_actions();
            signal::set_mask(signal::Mask::NONE).map(drop)
        }
        Prepared::Session => rustix::process::setsid().map(drop),
        Prepared::ControllingTerminal => rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()),
        Prepared::Umask(mask) => {
            rustix::process::umask(Mode::from_bits_truncate(*mask));
            Ok(())
        }
        Prepared::Limit(resource, limit) => rustix::process::setrlimit(*resource, *limit),
        Prepared::Seccomp(program) => filter::load(program),
        Prepared::BoundingSet(set) => caps::bound(*set),
        Prepared::Become { uid, gid, groups } => {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid)
        }
        Prepared::Capabilities(set) => caps::restrict(*set),
        Prepared::DieWithParent => die_with_parent(child.parent.as_fd()),
        Prepared::ScopeSockets(rules) => rules.map_or(Ok(()), landlock::restrict_self),
        Prepared::Blanks => make_blanks(root).map(|blanks| state.blanks = Some(blanks)),
        Prepared::Mask(path) => mask(root, path, state.blanks.as_ref()),
        Prepared::CloseDescriptors => close_descriptors(state),
        Prepared::RenewDieWithParent => renew_die_with_parent(state.status),
        Prepared::Verify(_) => Ok(()),
    }
}

fn close_descriptors(state: &mut State<'_>) -> Result<()> {
    let kept = descriptors::keep_only(state.status, state.launcher)?;
    (state.status, state.launcher) = (kept.status, kept.launcher);
    Ok(())
}

/// Enters the working directory, which an image or a Dockerfile names: never by a magic link such
/// as `/proc/self/fd/7` (CVE-2024-21626).
fn enter_directory(path: &CStr) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(c"/", flags, Mode::empty())?;
    rustix::process::fchdir(open_in(root.as_fd(), path, flags)?)
}

fn die_with_parent(parent: BorrowedFd<'_>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before: its pidfd then is readable. (getppid is 0 in a new namespace.)
    let mut died = [PollFd::from_borrowed_fd(parent, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut died, Some(&at_once))? {
        0 => Ok(()),
        _ => Err(Errno::SRCH),
    }
}

/// Sets the signal once more. The death of rbuild in between shows on the status pipe, whose
/// reader is rbuild alone.
fn renew_die_with_parent(status: BorrowedFd<'_>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut reader = [PollFd::from_borrowed_fd(status, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut reader, Some(&at_once))? {
        0 => Ok(()),
        _ => Err(Errno::SRCH),
    }
}

/// Becomes the launcher, which tries the candidates; returns only when that failed.
fn execute(child: &Child<'_>, state: &State<'_>) -> Report {
    let report = |errno: Errno| Report { op: EXEC, errno: errno.raw_os_error(), detail: 1 };
    if leads_through_magic_link(child) {
        return report(Errno::LOOP);
    }
    report(exec::execveat(state.launcher, &child.argv, &child.env))
}

/// Returns whether the first candidate that exists is reached by a magic link of `/proc`. The
/// launcher makes that harmless; here it gets an error that says so.
fn leads_through_magic_link(child: &Child<'_>) -> bool {
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
