//! Tries what the isolation of steps needs, in a child process: a trial cannot be undone.

use std::io::Read as _;
use std::os::fd::AsFd as _;

use rustix::io::{Errno, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Gid, Pid, Uid, WaitOptions};

use super::error::SandboxError;
use super::isolation::{Isolation, Refusal};
use super::loader;
use super::sys::trace::Traced;
use super::sys::{clone, fork, notify};
use super::{supervised, supervisor};

/// A step of a trial, and what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A mount namespace, and mounts in it.
    Mounts,
    /// chroot(2), and users other than root.
    Chroot,
    /// A seccomp filter with user notification.
    Notification,
    /// ptrace(2).
    Tracing,
}

impl Need {
    /// Returns what a refusal says.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Mounts => "mounts in a new mount namespace (unshare, mount)",
            Self::Chroot => "chroot(2) and several user ids, with CAP_SYS_CHROOT and CAP_SETUID",
            Self::Notification => "a seccomp filter with user notification (Linux 5.14)",
            Self::Tracing => "ptrace(2) of own child processes",
        }
    }

    /// Returns what would permit it.
    pub(super) const fn help(self) -> &'static str {
        match self {
            Self::Mounts => {
                "start the container with `--privileged`, or with `--cap-add SYS_ADMIN --security-opt \
                 seccomp=unconfined --security-opt apparmor=unconfined --security-opt \
                 systempaths=unconfined`"
            }
            Self::Chroot => "run rbuild as root, with docker's default capabilities",
            Self::Notification => {
                "a newer kernel, or a container whose system call filter allows seccomp(2), as docker's \
                 default does"
            }
            Self::Tracing => {
                "a container whose system call filter allows ptrace(2), as docker's default does; \
                 `sysctl kernel.yama.ptrace_scope` must be at most 1"
            }
        }
    }
}

/// The need that the system refuses, and its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) need: Need,
    pub(super) errno: Errno,
}

/// Tries whether this process, as it is, can run steps under `isolation`. Must be called while it has a
/// single thread.
pub(super) fn attempt(isolation: Isolation) -> std::result::Result<(), Refused> {
    for need in needs(isolation) {
        let tried = match need {
            Need::Tracing => trace(),
            Need::Mounts | Need::Chroot | Need::Notification => in_child(&|| match need {
                Need::Mounts => mount(),
                Need::Chroot => chroot(),
                Need::Notification | Need::Tracing => notification(isolation),
            }),
        };
        tried.map_err(|errno| Refused { need: *need, errno })?;
    }
    Ok(())
}

const fn needs(isolation: Isolation) -> &'static [Need] {
    match isolation {
        Isolation::Namespace => &[Need::Mounts],
        Isolation::SingleId => &[Need::Mounts, Need::Notification],
        Isolation::Chroot => &[Need::Chroot, Need::Notification],
        Isolation::Emulated => &[Need::Notification, Need::Tracing],
    }
}

/// Runs `attempt` in a child; returns its result.
fn in_child(attempt: &dyn Fn() -> Result<()>) -> Result<()> {
    match fork::fork()? {
        fork::Forked::Child => {
            let errno = attempt().err().map_or(0, Errno::raw_os_error);
            clone::exit_now(errno)
        }
        fork::Forked::Parent(child) => match exit_status(child)? {
            0 => Ok(()),
            errno => Err(Errno::from_raw_os_error(errno)),
        },
    }
}

/// Returns what `attempt` returns in another process: a child, or the child that it continues in if it
/// enters a user namespace. Must be called while this process has a single thread.
pub(super) fn in_other_process(
    attempt: &dyn Fn() -> Option<Refusal>,
) -> std::result::Result<Option<Refusal>, SandboxError> {
    let failed = |errno| SandboxError::setup("try an isolation in another process", errno);
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    match fork::fork().map_err(failed)? {
        fork::Forked::Child => {
            let report = attempt().map_or_else(String::new, |refusal| to_report(&refusal));
            // A report that is not written whole is read as a failure.
            let _written = rustix::io::write(&writer, format!("{report}\0").as_bytes());
            clone::exit_now(0)
        }
        fork::Forked::Parent(child) => {
            drop(writer);
            let mut report = String::new();
            let read = std::fs::File::from(reader).read_to_string(&mut report);
            exit_status(child).map_err(failed)?;
            let report = report.strip_suffix('\0').filter(|_| read.is_ok());
            from_report(report.ok_or(Errno::PIPE).map_err(failed)?).map_err(failed)
        }
    }
}

/// Returns a refusal as text: one line each for kind, attempt, reason and help.
fn to_report(refusal: &Refusal) -> String {
    let Refusal { isolation, tried, reason, help } = refusal;
    let parts = [isolation.name(), tried, reason, help];
    parts.map(|part| part.replace(['\n', '\0'], " ")).join("\n")
}

fn from_report(report: &str) -> Result<Option<Refusal>> {
    if report.is_empty() {
        return Ok(None);
    }
    let mut lines = report.split('\n');
    let [name, tried, reason, help] = [(); 4].map(|()| lines.next().unwrap_or_default().to_owned());
    let isolation = Isolation::ALL.into_iter().find(|isolation| isolation.name() == name);
    let isolation = isolation.ok_or(Errno::PIPE)?;
    Ok(Some(Refusal { isolation, tried, reason, help }))
}

fn exit_status(child: Pid) -> Result<i32> {
    let ended =
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()))?;
    // A seccomp filter may kill instead of refusing.
    Ok(ended.and_then(|(_, status)| status.exit_status()).unwrap_or(libc::EPERM))
}

fn mount() -> Result<()> {
    fork::unshare_mounts_and_pids()?;
    let private =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)?;
    super::detached_mount::new_tmpfs()?;
    // Only a process in a new pid namespace mounts a new /proc. The kernel refuses it where parts of the
    // existing one are masked (mount_too_revealing() in fs/namespace.c).
    in_child(&|| {
        let context = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::empty(), MountAttrFlags::empty()).map(drop)
    })
}

fn chroot() -> Result<()> {
    rustix::process::chroot(c"/")?;
    let (uid, gid) = (Uid::from_raw(1), Gid::from_raw(1));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

fn notification(isolation: Isolation) -> Result<()> {
    if !isolation.may_mount() {
        notify::set_no_new_privs()?;
    }
    if isolation == Isolation::Emulated {
        // The loader exists for one architecture.
        loader::image()?;
    }
    let listener = notify::load(&supervisor::filter(supervised::rules(isolation)))?;
    // Answers with a descriptor exist since Linux 5.14: `INVAL` is for the call that does not exist.
    let file = listener.as_fd();
    match notify::add_descriptor(file, 0, file, true, true) {
        Err(Errno::NOENT) | Ok(_) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Waits to be killed, at the latest with the parent process.
fn wait_with(parent: Pid) -> ! {
    let signal = Some(rustix::process::Signal::KILL);
    let is_bound = rustix::process::set_parent_process_death_signal(signal).is_ok();
    // It may have ended before the call.
    if !is_bound || rustix::process::getppid() != Some(parent) {
        clone::exit_now(1);
    }
    loop {
        rustix::event::pause();
    }
}

/// Stops a child as a tracer.
fn trace() -> Result<()> {
    let parent = rustix::process::getpid();
    match fork::fork()? {
        fork::Forked::Child => wait_with(parent),
        fork::Forked::Parent(child) => {
            let traced = Traced::attach(child)
                .and_then(|traced| traced.wait_until_stopped().map(|()| traced))
                .and_then(|traced| traced.registers().map(drop));
            let _ended = rustix::process::kill_process(child, rustix::process::Signal::KILL);
            exit_status(child)?;
            traced
        }
    }
}
