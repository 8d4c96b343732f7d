//! The user namespace of an ordinary user's rbuild (user_namespaces(7)).
//!
//! A process with several threads cannot enter another user namespace (unshare(2), `EINVAL`), so
//! the program forks before it starts any. The child continues inside. The parent stays outside: it
//! writes the id maps, forwards signals, and returns the child's exit status to its own caller. If
//! the child cannot enter, it reports the error to the parent and ends, and the parent continues.
#![expect(clippy::disallowed_methods, reason = "newuidmap and newgidmap are programs")]

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};

use super::caps;
use super::entry_report::EntryReport;
use super::error::SandboxError;
use super::sys::{clone, fork, signal};
use crate::pathio::{self, program};

/// The process in which the calling program continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// The process that called: it may already mount and create namespaces.
    AlreadyPrivileged,
    /// A child in a new user and mount namespace, as user 0 there.
    Child,
}

/// The inode number of the initial user namespace (`PROC_USER_INIT_INO`, include/linux/proc_ns.h).
const INITIAL: u64 = 0xEFFF_FFFD;

/// Returns whether this process is in a user namespace other than the initial one. There overlayfs
/// names its attributes `user.overlay.*`, not `trusted.overlay.*`.
#[must_use]
pub fn in_user_namespace() -> bool {
    rustix::fs::stat(c"/proc/self/ns/user").is_ok_and(|about| about.st_ino != INITIAL)
}

/// Gives this program the rights to run commands if it lacks them: from here on it is user 0 of a
/// new user namespace. Must be called at the start of `main`, before any thread exists.
///
/// The caller's own user becomes 0 inside, and its subordinate ids (subuid(5), subgid(5)) become 1
/// and up. In the original process this function does not return: it stays outside, forwards
/// SIGINT, SIGTERM, SIGHUP and SIGQUIT, waits, and exits like the child (128 plus the number for a
/// signal). The child is killed when that process dies.
///
/// # Errors
/// [`SandboxError::NoUserNamespace`], with what to install or to change; [`SandboxError::Setup`] if
/// a system call fails unexpectedly.
pub fn enter_user_namespace() -> Result<Entered, SandboxError> {
    if caps::has_sys_admin() {
        return Ok(Entered::AlreadyPrivileged);
    }
    enter_with(&IdMaps::of_caller()?)
}

/// Enters a user namespace like [`enter_user_namespace`], in which the caller's own user is 0 and there
/// is no other.
///
/// # Errors
/// The errors of [`enter_user_namespace`].
pub(super) fn enter_with_own_id() -> Result<Entered, SandboxError> {
    enter_with(&IdMaps::own_id())
}

fn enter_with(maps: &IdMaps) -> Result<Entered, SandboxError> {
    let failed = |errno| SandboxError::setup("start a process in a user namespace", errno);
    // The child writes to `reports`; `mapped` tells it that its id maps are written.
    let reports = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let mapped = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let parent = rustix::process::getpid();
    let before = signal::set_mask(forwarded_mask()).map_err(failed)?;
    let failed_fork = |errno| SandboxError::start("start a process in a user namespace", errno);
    match fork::fork().map_err(failed_fork)? {
        fork::Forked::Child => {
            signal::set_mask(before).map_err(failed)?;
            drop((reports.0, mapped.1));
            enter(parent, &reports.1, &mapped.0);
            Ok(Entered::Child)
        }
        fork::Forked::Parent(child) => {
            drop((reports.1, mapped.0));
            let Err(error) = serve_child(child, maps, &reports.0, mapped.1);
            // The caller may continue without a namespace.
            signal::set_mask(before).map_err(failed)?;
            Err(error)
        }
    }
}

/// The signals that the parent forwards.
const FORWARDED: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

fn forwarded_mask() -> signal::Mask {
    signal::Mask::of(&FORWARDED)
}

/// Runs in the child: enters the namespaces and becomes user 0 there. Ends the process if that fails.
fn enter(parent: Pid, reports: &OwnedFd, mapped: &OwnedFd) {
    report(reports, fork::unshare_user_and_mounts().map_err(EntryReport::Refused));
    let mut answer = [0];
    let mapped_well = rustix::io::retry_on_intr(|| rustix::io::read(mapped, &mut answer));
    if mapped_well != Ok(1) {
        // The parent could not write the maps.
        clone::exit_now(1);
    }
    report(reports, become_root(parent));
}

/// Reports to the parent how an attempt ended. Ends the process if it failed.
fn report(reports: &OwnedFd, result: Result<(), EntryReport>) {
    let report = result.err().unwrap_or(EntryReport::Done);
    let written = rustix::io::write(reports, &report.to_bytes());
    if report != EntryReport::Done || written != Ok(EntryReport::N_BYTES) {
        clone::exit_now(1);
    }
}

fn become_root(parent: Pid) -> Result<(), EntryReport> {
    let (root, group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_res_gid(group, group, group).map_err(EntryReport::Failed)?;
    rustix::thread::set_thread_res_uid(root, root, root).map_err(EntryReport::Failed)?;
    // After the change of credentials, which clears it (prctl(2), `PR_SET_PDEATHSIG`).
    let signal = Some(Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal).map_err(EntryReport::Failed)?;
    if rustix::process::getppid() != Some(parent) {
        clone::exit_now(1);
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    // The first call that needs a right in the namespace: some systems let every user create one
    // and then grant no rights in it (AppArmor's restriction of unprivileged user namespaces).
    rustix::mount::mount_change(c"/", private).map_err(EntryReport::Refused)
}

/// Runs in the parent: writes the maps and waits. Returns only if the child cannot enter.
fn serve_child(
    child: Pid,
    maps: &IdMaps,
    reports: &OwnedFd,
    mapped: OwnedFd,
) -> Result<Infallible, SandboxError> {
    let entered = take_report(reports).and_then(|()| {
        maps.write(child)?;
        match rustix::io::write(&mapped, b".") {
            // EPIPE: a signal has killed the child, and its report is missing, too.
            Ok(_) | Err(Errno::PIPE) => take_report(reports),
            Err(errno) => Err(SandboxError::setup("wake the process in the namespace", errno)),
        }
    });
    // Without an answer, a child that waits for its maps ends.
    drop(mapped);
    if let Err(error) = entered {
        exit_if_killed(child);
        return Err(error);
    }
    forward_signals(child)
        .map_err(|errno| SandboxError::setup("wait for the process in the namespace", errno))
}

/// Waits for a report of the child.
fn take_report(reports: &OwnedFd) -> Result<(), SandboxError> {
    match EntryReport::read(reports).unwrap_or(EntryReport::Failed(Errno::PIPE)) {
        EntryReport::Done => Ok(()),
        EntryReport::Refused(errno) => Err(no_namespace(errno)),
        EntryReport::Failed(errno) => Err(SandboxError::setup("enter the user namespace", errno)),
    }
}

/// Waits for the child, and exits like it if a signal killed it: that is then why it did not enter.
fn exit_if_killed(child: Pid) {
    let ended =
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()));
    if let Ok(Some((_, status))) = ended
        && status.signaled()
    {
        clone::exit_now(exit_code(status));
    }
}

/// Forwards signals to the child until it ends, and exits like it.
fn forward_signals(child: Pid) -> rustix::io::Result<Infallible> {
    let signals = signal::descriptor(forwarded_mask())?;
    let pidfd = rustix::process::pidfd_open(child, PidfdFlags::empty())?;
    loop {
        let mut fds = [PollFd::new(&signals, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
        // A terminal sends a key's signal to the whole foreground process group, so the child has
        // it already. On hang-up the kernel sends SIGHUP to the session leader alone
        // (credentials(7)).
        if let Some(taken) = signal::take(&signals)
            && (taken.from_process || taken.signal == libc::SIGHUP)
            && let Some(signal) = Signal::from_named_raw(taken.signal)
        {
            let _ = rustix::process::pidfd_send_signal(&pidfd, signal);
        }
        if let Some(status) = ended(child) {
            clone::exit_now(status);
        }
    }
}

/// Returns the exit code for the child's status, if it has ended.
fn ended(child: Pid) -> Option<i32> {
    let status = match rustix::process::waitpid(Some(child), WaitOptions::NOHANG) {
        Ok(status) => status.map(|(_, status)| status)?,
        Err(_) => return Some(1),
    };
    Some(exit_code(status))
}

fn exit_code(status: WaitStatus) -> i32 {
    let signalled = status.terminating_signal().map(|signal| signal.saturating_add(128));
    status.exit_status().or(signalled).unwrap_or(1)
}

fn no_namespace(errno: Errno) -> SandboxError {
    SandboxError::NoUserNamespace {
        reason: io::Error::from(errno).to_string(),
        help: namespace_help(errno, is_filtered(), &sysctl).to_owned(),
    }
}

/// Returns advice where no user namespace can be created; `is_filtered` tells whether a seccomp
/// filter is in force.
fn namespace_help(
    errno: Errno,
    is_filtered: Option<bool>,
    sysctl: &dyn Fn(&str) -> Option<u32>,
) -> &'static str {
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        "AppArmor forbids it for programs without a profile: `sudo sysctl -w \
         kernel.apparmor_restrict_unprivileged_userns=0`, or give rbuild a profile with `userns,`"
    } else if sysctl("kernel/unprivileged_userns_clone") == Some(0) {
        "disabled on this system: `sudo sysctl -w kernel.unprivileged_userns_clone=1`"
    } else if sysctl("user/max_user_namespaces") == Some(0) {
        "disabled on this system: `sudo sysctl -w user.max_user_namespaces=15000`"
    } else if errno == Errno::NOSPC {
        "the limit on user namespaces is reached: `sudo sysctl -w user.max_user_namespaces=15000`"
    } else if errno == Errno::PERM && is_filtered == Some(false) {
        "not permitted, and no system call filter is in force: a security module (AppArmor, SELinux) \
         forbids it, or rbuild runs in a chroot; run rbuild as root with the right to mount"
    } else if errno == Errno::PERM {
        "not permitted here: a container's system call filter forbids it; start the container \
         with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or run \
         rbuild as root with the right to mount"
    } else {
        "run rbuild as root instead"
    }
}

/// Returns whether a system call filter is in force for this process (proc_pid_status(5)).
pub(super) fn is_filtered() -> Option<bool> {
    filtered_in(&pathio::read_to_string(Path::new("/proc/self/status"), 64 << 10).ok()?)
}

/// Returns what a text of `/proc/PID/status` says of system call filters: mode 0 is none.
fn filtered_in(status: &str) -> Option<bool> {
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?;
    Some(mode.trim() != "0")
}

fn sysctl(name: &str) -> Option<u32> {
    let text = pathio::read_to_string(&Path::new("/proc/sys").join(name), 64).ok()?;
    text.trim().parse().ok()
}

/// A range of ids of a namespace: `count` ids from `inside`, which are `outside` and up in the
/// parent namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct IdRange {
    inside: u32,
    outside: u32,
    count: u32,
}

/// The two id maps of a namespace.
#[derive(Debug)]
struct IdMaps {
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
    writer: MapWriter,
}

/// The way in which the maps are written (user_namespaces(7), "Defining user and group ID mappings").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MapWriter {
    /// By this process, which has the capabilities for all its ids.
    Own,
    /// By newuidmap(1) and newgidmap(1), which are set-id.
    Helpers,
    /// By this process, which may map its own id alone, and only if it gives up setgroups(2).
    OwnId,
}

/// Maximum size of `/etc/subuid` and `/etc/subgid`.
const MAX_SUBIDS_BYTES: u64 = 1 << 20;

/// Maximum length of a helper's output in bytes: a name or an error message.
const MAX_HELPER_OUTPUT_BYTES: u64 = 64 * 1024;

impl IdMaps {
    fn of_caller() -> Result<Self, SandboxError> {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        if uid == 0 && rustix::process::geteuid().is_root() {
            // Root without the right to mount: all ids of this namespace, unchanged.
            let [uids, gids] = ["/proc/self/uid_map", "/proc/self/gid_map"].map(identity);
            if n_ids(&uids) == 1 {
                return Ok(Self { uids, gids, writer: MapWriter::OwnId });
            }
            return Ok(Self { uids, gids, writer: MapWriter::Own });
        }
        let name = user_name(uid);
        let uids = subordinate("/etc/subuid", "--add-subuids", name.as_deref(), uid)?;
        let gids = subordinate("/etc/subgid", "--add-subgids", name.as_deref(), uid)?;
        let (uids, gids) = (own_first(uid, uids), own_first(gid, gids));
        Ok(Self { uids, gids, writer: MapWriter::Helpers })
    }

    /// Returns the maps with the caller's own ids alone, as 0.
    fn own_id() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (uids, gids) = (own_first(uid, Vec::new()), own_first(gid, Vec::new()));
        Self { uids, gids, writer: MapWriter::OwnId }
    }

    fn write(&self, child: Pid) -> Result<(), SandboxError> {
        let child = child.as_raw_nonzero().get();
        match self.writer {
            MapWriter::Own => {}
            MapWriter::Helpers => {
                run_map_helper("newuidmap", child, &self.uids)?;
                return run_map_helper("newgidmap", child, &self.gids);
            }
            MapWriter::OwnId => {
                let path = format!("/proc/{child}/setgroups");
                let denied = pathio::write(Path::new(&path), b"deny");
                denied.map_err(|error| SandboxError::NoUserNamespace {
                    reason: error.to_string(),
                    help: "rbuild must be able to write to its child's files in /proc".to_owned(),
                })?;
            }
        }
        for (file, ranges) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            let lines = ranges
                .iter()
                .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count));
            let path = format!("/proc/{child}/{file}");
            let lines: String = lines.collect();
            pathio::write(Path::new(&path), lines.as_bytes()).map_err(|error| {
                SandboxError::NoUserNamespace {
                    reason: error.to_string(),
                    help: "root lacks the capabilities CAP_SETUID and CAP_SETGID here".to_owned(),
                }
            })?;
        }
        Ok(())
    }
}

/// Returns the ids of this namespace, each mapped to itself.
fn identity(map: &str) -> Vec<IdRange> {
    let text = pathio::read_to_string(Path::new(map), MAX_SUBIDS_BYTES).unwrap_or_default();
    let range = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let inside = words.next()?.parse().ok()?;
        Some(IdRange { inside, outside: inside, count: words.nth(1)?.parse().ok()? })
    };
    text.lines().filter_map(range).collect()
}

fn n_ids(ranges: &[IdRange]) -> u32 {
    ranges.iter().map(|range| range.count).fold(0, u32::saturating_add)
}

/// Returns whether this process has a single user id, so that files can have no other owner.
pub(super) fn has_single_id() -> bool {
    n_ids(&identity("/proc/self/uid_map")) == 1
}

/// Returns the map in which the user's own id is 0 and the subordinate ids follow.
fn own_first(own: u32, subordinate: Vec<(u32, u32)>) -> Vec<IdRange> {
    let mut ranges = vec![IdRange { inside: 0, outside: own, count: 1 }];
    let mut inside = 1_u32;
    for (outside, count) in subordinate {
        let count = count.min(u32::MAX.saturating_sub(inside));
        ranges.push(IdRange { inside, outside, count });
        inside = inside.saturating_add(count);
    }
    ranges
}

/// Returns the user's name from `/etc/passwd`, or from the system's other sources by id(1)
/// (nsswitch.conf(5)).
fn user_name(uid: u32) -> Option<String> {
    let passwd = pathio::read_to_string(Path::new("/etc/passwd"), 16 << 20).unwrap_or_default();
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    listed.or_else(|| {
        let output = program::stdout_of(Command::new("id").arg("-un"), MAX_HELPER_OUTPUT_BYTES);
        let (status, name) = output.ok()?;
        let name = String::from_utf8(name).ok()?;
        status.success().then(|| name.trim().to_owned())
    })
}

/// Returns the user's subordinate ids in `file`; fails with advice if there are none.
fn subordinate(
    file: &str,
    option: &str,
    name: Option<&str>,
    uid: u32,
) -> Result<Vec<(u32, u32)>, SandboxError> {
    let text = pathio::read_to_string(Path::new(file), MAX_SUBIDS_BYTES).unwrap_or_default();
    let ranges = subordinate_ranges(&text, name, uid);
    if ranges.is_empty() {
        let who = name.map_or_else(|| uid.to_string(), str::to_owned);
        return Err(SandboxError::NoUserNamespace {
            reason: format!("the user {who} has no subordinate ids in {file}"),
            help: format!("assign some with `sudo usermod {option} 100000-165535 {who}`"),
        });
    }
    Ok(ranges)
}

/// Returns the ranges of the user's lines `user:first:count`, by name or by number (subuid(5)).
fn subordinate_ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        if Some(who) != name && who != number {
            return None;
        }
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (count > 0).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

/// Writes a map by newuidmap(1) or newgidmap(1), which are set-id and may map what `/etc/subuid`
/// grants.
fn run_map_helper(helper: &str, child: i32, ranges: &[IdRange]) -> Result<(), SandboxError> {
    let mut command = Command::new(helper);
    command.arg(child.to_string());
    for IdRange { inside, outside, count } in ranges {
        command.args([inside, outside, count].map(ToString::to_string));
    }
    let output = program::stderr_of(&mut command, MAX_HELPER_OUTPUT_BYTES);
    let (status, message) = output.map_err(|error| {
        // execvp(3) fails with EACCES, too, if a directory of $PATH is not accessible.
        let reason = if error.kind() == io::ErrorKind::NotFound {
            format!("the program {helper} is missing")
        } else {
            format!("the program {helper} is missing or cannot be executed: {error}")
        };
        SandboxError::NoUserNamespace {
            reason,
            help: "install it with `sudo apt-get install uidmap` (`shadow-utils` on Fedora)"
                .to_owned(),
        }
    })?;
    if status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&message);
    Err(SandboxError::NoUserNamespace {
        reason: format!("{helper} failed: {}", message.trim()),
        help: format!(
            "check that {helper} is setuid root, and that the ranges in /etc/subuid and \
             /etc/subgid overlap with no others"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_found_by_name_and_by_number() {
        let text = "root:1:2\n# a note\nann:100000:65536\n1000:300000:10\nann:x:1\nann:7:0\n";
        assert_eq!(subordinate_ranges(text, Some("ann"), 1000), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(subordinate_ranges(text, None, 1001), []);
    }

    #[test]
    fn namespace_help_blames_a_filter_only_if_one_is_in_force() {
        let help = |is_filtered| namespace_help(Errno::PERM, is_filtered, &|_name| None);
        assert!(help(Some(true)).contains("seccomp=unconfined"));
        assert!(help(None).contains("seccomp=unconfined"));
        assert!(help(Some(false)).contains("no system call filter is in force"));
        let off = namespace_help(Errno::PERM, Some(true), &|_name| Some(0));
        assert!(off.contains("disabled"), "{off}");
        assert!(namespace_help(Errno::NOSPC, None, &|_name| None).contains("limit"));
    }

    #[test]
    fn filter_is_in_force_if_the_mode_is_not_0() {
        assert_eq!(filtered_in("NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n"), Some(false));
        assert_eq!(filtered_in("NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"), Some(true));
        assert_eq!(filtered_in("NoNewPrivs:\t0\n"), None);
    }

    #[test]
    fn own_id_is_zero_and_subordinate_ids_follow() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        assert_eq!(
            own_first(1000, vec![(100_000, 65_536), (300_000, 10)]),
            [range(0, 1000, 1), range(1, 100_000, 65_536), range(65_537, 300_000, 10)]
        );
    }
}
