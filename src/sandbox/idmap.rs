//! The user namespace of an ordinary user's rbuild.
//!
//! A process with threads cannot go to another user namespace, so the program forks before it
//! starts any: the child goes on inside, the parent stays to write the maps, to pass signals on
//! and to hand the child's status to whoever called.
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
use super::spec::SandboxError;
use super::sys::{clone, fork, signal};
use crate::pathio::{self, program};

/// Where the calling program goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// Where it was: it may mount and make namespaces already.
    AlreadyPrivileged,
    /// In a user and a mount namespace of its own, as user 0 there.
    Child,
}

/// The inode of the initial user namespace on every machine (`PROC_USER_INIT_INO`).
const INITIAL: u64 = 0xEFFF_FFFD;

/// Whether this process is in a user namespace other than the initial one. There overlayfs names
/// its attributes `user.overlay.*`, not `trusted.overlay.*`.
#[must_use]
pub fn in_user_namespace() -> bool {
    rustix::fs::stat(c"/proc/self/ns/user").is_ok_and(|about| about.st_ino != INITIAL)
}

/// Gives this program the rights that running commands needs, if it lacks them: from here on it
/// is user 0 of a new user namespace. To be called at the start of `main`, before any thread.
///
/// The caller's own user is 0 inside, its subordinate ids (`/etc/subuid`, `/etc/subgid`) are 1
/// and up. The process that was started stays outside: it passes SIGINT, SIGTERM, SIGHUP and
/// SIGQUIT on, waits, and exits as the child did (128 and the number for a signal); in it this
/// does not return. The child is killed when it dies.
///
/// # Errors
/// `NoUserNamespace`, with what to install or to set.
pub fn enter_user_namespace() -> Result<Entered, SandboxError> {
    if caps::has_sys_admin() {
        return Ok(Entered::AlreadyPrivileged);
    }
    let maps = Maps::of_caller()?;
    let failed = |errno| SandboxError::setup("start a process in a user namespace", errno);
    // `moved`: the child is in its namespace. `mapped`: its ids mean something.
    let moved = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let mapped = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let parent = rustix::process::getpid();
    let before = signal::set_mask(watched()).map_err(failed)?;
    let failed_fork = |errno| SandboxError::start("start a process in a user namespace", errno);
    match fork::fork().map_err(failed_fork)? {
        fork::Forked::Child => {
            signal::set_mask(before).map_err(failed)?;
            drop((moved.0, mapped.1));
            enter(parent, moved.1, &mapped.0)?;
            Ok(Entered::Child)
        }
        fork::Forked::Parent(child) => {
            drop((moved.1, mapped.0));
            let never = stay_outside(child, &maps, &moved.0, mapped.1)?;
            match never {}
        }
    }
}

/// The signals that the parent passes on.
const PASSED_ON: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

fn watched() -> signal::Mask {
    signal::Mask::of(&PASSED_ON)
}

/// The child's part.
fn enter(parent: Pid, moved: OwnedFd, mapped: &OwnedFd) -> Result<(), SandboxError> {
    fork::unshare_user_and_mounts().map_err(no_namespace)?;
    let failed = |errno| SandboxError::setup("enter the user namespace", errno);
    rustix::io::write(&moved, b".").map_err(failed)?;
    drop(moved);
    let mut answer = [0];
    let mapped_well = rustix::io::retry_on_intr(|| rustix::io::read(mapped, &mut answer));
    if mapped_well.map_err(failed)? == 0 {
        // The parent has failed, and says why.
        clone::exit_now(1);
    }
    let root = rustix::process::Uid::ROOT;
    let group = rustix::process::Gid::ROOT;
    rustix::thread::set_thread_res_gid(group, group, group).map_err(failed)?;
    rustix::thread::set_thread_res_uid(root, root, root).map_err(failed)?;
    // After the change of credentials, which would take it back.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed)?;
    if rustix::process::getppid() != Some(parent) {
        clone::exit_now(1);
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    // The first thing that needs a right in the namespace: some systems let everybody make one
    // and then give no rights in it.
    rustix::mount::mount_change(c"/", private).map_err(no_namespace)
}

/// The parent's part; returns only when the child cannot go on.
fn stay_outside(
    child: Pid,
    maps: &Maps,
    moved: &OwnedFd,
    mapped: OwnedFd,
) -> Result<Infallible, SandboxError> {
    let mut word = [0];
    let moved_well = rustix::io::retry_on_intr(|| rustix::io::read(moved, &mut word));
    // Nothing came: the child could not make its namespace, and says why as it ends.
    if moved_well.is_ok_and(|len| len == 1) {
        if let Err(error) = maps.write(child) {
            drop(mapped);
            exit_if_killed(child);
            return Err(error);
        }
        match rustix::io::write(&mapped, b".") {
            // A signal has ended the child: its status says so below.
            Ok(_) | Err(Errno::PIPE) => {}
            Err(errno) => {
                return Err(SandboxError::setup("wake the process in the namespace", errno));
            }
        }
    }
    drop(mapped);
    pass_signals_on(child)
        .map_err(|errno| SandboxError::setup("wait for the process in the namespace", errno))
}

/// Waits for the child, and ends as it did if a signal ended it: then there is no map for it.
fn exit_if_killed(child: Pid) {
    let ended =
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()));
    if let Ok(Some((_, status))) = ended
        && status.signaled()
    {
        clone::exit_now(exit_code(status));
    }
}

fn pass_signals_on(child: Pid) -> rustix::io::Result<Infallible> {
    let signals = signal::descriptor(watched())?;
    let pidfd = rustix::process::pidfd_open(child, PidfdFlags::empty())?;
    loop {
        let mut fds = [PollFd::new(&signals, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
        // What the terminal sends for a key goes to the whole process group: the child has it already.
        // A terminal that is gone sends SIGHUP to the leader of the session alone (credentials(7)).
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

/// The exit code that says how the child ended, if it has.
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

/// Says what to do where there can be no user namespace; `is_filtered` says whether a system call
/// filter is in force.
fn namespace_help(
    errno: Errno,
    is_filtered: Option<bool>,
    sysctl: &dyn Fn(&str) -> Option<u32>,
) -> &'static str {
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        "AppArmor forbids it to programs without a profile: `sudo sysctl -w \
         kernel.apparmor_restrict_unprivileged_userns=0`, or give rbuild a profile with `userns,`"
    } else if sysctl("kernel/unprivileged_userns_clone") == Some(0) {
        "switched off on this system: `sudo sysctl -w kernel.unprivileged_userns_clone=1`"
    } else if sysctl("user/max_user_namespaces") == Some(0) {
        "switched off on this system: `sudo sysctl -w user.max_user_namespaces=15000`"
    } else if errno == Errno::NOSPC {
        "the limit on user namespaces is reached: `sudo sysctl -w user.max_user_namespaces=15000`"
    } else if errno == Errno::PERM && is_filtered == Some(false) {
        "not permitted, and no system call filter is in force: a security module (AppArmor, SELinux) \
         forbids it, or rbuild is in a chroot; run rbuild as root with the right to mount"
    } else if errno == Errno::PERM {
        "not permitted here: a container's system call filter forbids it; start the container \
         with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or run \
         rbuild as root with the right to mount"
    } else {
        "run rbuild as root instead"
    }
}

/// Returns whether a system call filter is in force for this process (proc_pid_status(5)).
fn is_filtered() -> Option<bool> {
    let text = pathio::read_to_string(Path::new("/proc/self/status"), 64 << 10).ok()?;
    let mode = text.lines().find_map(|line| line.strip_prefix("Seccomp:"))?;
    Some(mode.trim() != "0")
}

fn sysctl(name: &str) -> Option<u32> {
    let text = pathio::read_to_string(&Path::new("/proc/sys").join(name), 64).ok()?;
    text.trim().parse().ok()
}

/// Which ids a namespace has: its own, what they are outside, how many.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

/// The two maps of a namespace.
#[derive(Debug)]
struct Maps {
    uids: Vec<Range>,
    gids: Vec<Range>,
    /// By newuidmap and newgidmap, not by this process.
    helped: bool,
}

/// What a user's own files of subordinate ids are at most.
const MAX_SUBIDS_BYTES: u64 = 1 << 20;

/// Maximum length of a name or an error message of a helper, bytes.
const MAX_SAID_BYTES: u64 = 64 * 1024;

impl Maps {
    fn of_caller() -> Result<Self, SandboxError> {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        if uid == 0 && rustix::process::geteuid().is_root() {
            // Root without the right to mount: every id that there is, as it is.
            let [uids, gids] = ["/proc/self/uid_map", "/proc/self/gid_map"].map(identity);
            return Ok(Self { uids, gids, helped: false });
        }
        let name = user_name(uid);
        let uids = subordinate("/etc/subuid", "--add-subuids", name.as_deref(), uid)?;
        let gids = subordinate("/etc/subgid", "--add-subgids", name.as_deref(), uid)?;
        Ok(Self { uids: own_first(uid, uids), gids: own_first(gid, gids), helped: true })
    }

    fn write(&self, child: Pid) -> Result<(), SandboxError> {
        let child = child.as_raw_nonzero().get();
        if self.helped {
            help_map("newuidmap", child, &self.uids)?;
            return help_map("newgidmap", child, &self.gids);
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
                    help: "root here lacks the capabilities SETUID and SETGID".to_owned(),
                }
            })?;
        }
        Ok(())
    }
}

/// The ids of this namespace, each as itself.
fn identity(map: &str) -> Vec<Range> {
    let text = pathio::read_to_string(Path::new(map), MAX_SUBIDS_BYTES).unwrap_or_default();
    let range = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let inside = words.next()?.parse().ok()?;
        Some(Range { inside, outside: inside, count: words.nth(1)?.parse().ok()? })
    };
    text.lines().filter_map(range).collect()
}

/// The user's own id is 0, the subordinate ones follow.
fn own_first(own: u32, subordinate: Vec<(u32, u32)>) -> Vec<Range> {
    let mut ranges = vec![Range { inside: 0, outside: own, count: 1 }];
    let mut inside = 1_u32;
    for (outside, count) in subordinate {
        let count = count.min(u32::MAX.saturating_sub(inside));
        ranges.push(Range { inside, outside, count });
        inside = inside.saturating_add(count);
    }
    ranges
}

/// The user's name in `/etc/passwd`, or else as the system's other sources have it.
fn user_name(uid: u32) -> Option<String> {
    let passwd = pathio::read_to_string(Path::new("/etc/passwd"), 16 << 20).unwrap_or_default();
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    listed.or_else(|| {
        let said = program::stdout_of(Command::new("id").arg("-un"), MAX_SAID_BYTES);
        let (status, name) = said.ok()?;
        let name = String::from_utf8(name).ok()?;
        status.success().then(|| name.trim().to_owned())
    })
}

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
            help: format!("`sudo usermod {option} 100000-165535 {who}` gives some"),
        });
    }
    Ok(ranges)
}

/// The lines `who:first:count` of the user, by name or number (subuid(5)).
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

/// Runs newuidmap(1) or newgidmap(1), which may map what the user's files grant.
fn help_map(helper: &str, child: i32, ranges: &[Range]) -> Result<(), SandboxError> {
    let mut command = Command::new(helper);
    command.arg(child.to_string());
    for Range { inside, outside, count } in ranges {
        command.args([inside, outside, count].map(ToString::to_string));
    }
    let said = program::stderr_of(&mut command, MAX_SAID_BYTES);
    let (status, said) = said.map_err(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            return SandboxError::setup(format!("execute {helper}"), error);
        }
        SandboxError::NoUserNamespace {
            reason: format!("the program {helper} is missing"),
            help: "`sudo apt-get install uidmap` has it (`shadow-utils` on Fedora)".to_owned(),
        }
    })?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    Err(SandboxError::NoUserNamespace {
        reason: format!("{helper} failed: {}", said.trim()),
        help: format!(
            "see whether {helper} is setuid root and the ranges in /etc/subuid and \
                       /etc/subgid overlap with nothing"
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
    fn filter_is_blamed_only_where_there_is_one() {
        let help = |is_filtered| namespace_help(Errno::PERM, is_filtered, &|_name| None);
        assert!(help(Some(true)).contains("seccomp=unconfined"));
        assert!(help(None).contains("seccomp=unconfined"));
        assert!(help(Some(false)).contains("no system call filter is in force"));
        let off = namespace_help(Errno::PERM, Some(true), &|_name| Some(0));
        assert!(off.contains("switched off"), "{off}");
        assert!(namespace_help(Errno::NOSPC, None, &|_name| None).contains("limit"));
    }

    #[test]
    fn the_own_id_is_zero_and_the_subordinate_ones_follow() {
        let range = |inside, outside, count| Range { inside, outside, count };
        assert_eq!(
            own_first(1000, vec![(100_000, 65_536), (300_000, 10)]),
            [range(0, 1000, 1), range(1, 100_000, 65_536), range(65_537, 300_000, 10)]
        );
    }
}
