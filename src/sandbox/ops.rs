//! The list of what happens between clone and exec, as data: decided first, then done.

use std::path::PathBuf;

use rustix::thread::CapabilitySet;

use crate::pathio::ids;

use super::caps;
use super::devices::{DEV_DIRECTORIES, DEVICES, Device, LINKS};
use super::spec::{Limit, Mount, MountSource, Network, RunSpec, Streams, User, View};

/// One operation of a step's setup. Paths are absolute in the rootfs and resolved inside it,
/// except where said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupOp {
    /// Nothing that is mounted from here on shows up outside.
    PrivatePropagation,
    /// Puts the rootfs over the old root, where only its descriptor leads.
    AttachRoot,
    /// Goes to the mounts of a command that has ended.
    JoinMounts,
    /// The step's own `/dev/pts`, in which rbuild has opened the terminal of the streams.
    Terminals,
    /// A new file system of `kind` at `target`, which is made when missing.
    Filesystem {
        /// As in `/proc/filesystems`.
        kind: &'static str,
        /// Its options, in order.
        options: Vec<(&'static str, String)>,
        /// What its mount does not allow.
        flags: MountFlags,
        /// Where.
        target: &'static str,
    },
    /// The kernel's view of the machine at `/sys`: a new one, or else the host's, or else none.
    Sys {
        /// Whether writing fails.
        read_only: bool,
    },
    /// A directory in the step's own `/dev`.
    DevDirectory(&'static str),
    /// A device in the step's own `/dev`: a node of its own, or where the kernel forbids that
    /// (in a user namespace), the host's, read-only.
    DevNode(Device),
    /// A symbolic link in the step's own `/dev`.
    DevLink {
        /// Its name.
        name: &'static str,
        /// Where it points.
        to: &'static str,
    },
    /// Makes what is there, if anything, read-only.
    ReadOnly(&'static str),
    /// Makes an empty file and an empty directory, read-only, for [`SetupOp::Mask`]. They lie in a
    /// tmpfs below the `/proc` that is mounted next: a part of a mount can only be cloned where
    /// the mount has a place (before Linux 6.15).
    Blanks,
    /// Hides what is there, if anything, behind an empty file or an empty directory.
    Mask(&'static str),
    /// Finds `RunSpec::mounts[index]` in a mount that has no place yet, before the old root goes.
    Locate {
        /// Which.
        index: usize,
        /// Where in its mount.
        path: PathBuf,
        /// Whether writing fails.
        read_only: bool,
    },
    /// Mounts `RunSpec::mounts[index]`, a file or a directory.
    Bind {
        /// Which.
        index: usize,
        /// Where.
        target: PathBuf,
        /// Whether writing fails.
        read_only: bool,
    },
    /// Mounts an empty directory in memory that the caller asked for.
    Tmpfs {
        /// Where.
        target: PathBuf,
        /// The limit.
        bytes: Option<u64>,
        /// The permissions of its root.
        mode: u32,
        /// Whether writing fails.
        read_only: bool,
    },
    /// Brings `lo` up.
    Loopback,
    /// Sets the hostname.
    Hostname(String),
    /// Makes the rootfs the root and lets the old one go.
    PivotRoot {
        /// Whether the mounts then are handed to rbuild, for others to see what the command left.
        kept: bool,
    },
    /// Closes every descriptor but the streams, the status pipe and the launcher: whatever is
    /// resolved from here on cannot lead to the host through `/proc/self/fd`.
    CloseDescriptors,
    /// Enters the working directory, without following magic links.
    EnterDirectory(PathBuf),
    /// The three streams: pipes or a terminal, which the user may reopen. Without an input it is
    /// the step's `/dev/null`, so that nothing of the caller may be mounted there yet.
    Streams {
        /// Who owns them.
        uid: u32,
        /// And the group.
        gid: u32,
    },
    /// Default actions for all signals, none blocked.
    Signals,
    /// A session of its own, without a terminal.
    Session,
    /// The terminal of the streams becomes that of the session.
    ControllingTerminal,
    /// The mask of file permissions.
    Umask(u32),
    /// A limit that differs from rbuild's own.
    Limit(Limit),
    /// Puts docker's rules for system calls in force.
    Seccomp,
    /// What can never be had again, not even by a setuid program.
    BoundingSet(CapabilitySet),
    /// Becomes the user. That of a user other than 0 loses all capabilities.
    Become(User),
    /// What the command is permitted; nothing is inheritable or ambient.
    Capabilities(CapabilitySet),
    /// The kernel ends the step when rbuild dies.
    DieWithParent,
    /// The same once more, after the changes of credentials, which take it back (prctl(2),
    /// `PR_SET_PDEATHSIG`).
    RenewDieWithParent,
    /// Keeps abstract sockets of the host out of reach (Landlock, Linux 6.12); they belong to the
    /// network namespace, which the step shares.
    ScopeSockets,
    /// Checks that all of the above took effect; otherwise the command is not executed.
    Verify,
}

/// What a mount does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountFlags {
    /// Setuid programs and devices.
    NoSuidDev,
    /// Setuid programs and executing.
    NoSuidExec,
    /// Setuid programs, executing and devices.
    NoSuidExecDev,
}

/// What docker hides: it tells of, or changes, the host.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What docker makes read-only: root in a step must not change the host's settings.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The setup of `spec`, in the order in which it must be done.
#[must_use]
pub fn rootfs_ops(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::DieWithParent];
    ops.extend(match spec.view {
        View::Own | View::Kept => own_mounts(spec),
        View::Of(_) => joined_mounts(spec),
    });
    ops.extend(process(spec));
    ops
}

/// Puts the rootfs together.
fn own_mounts(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::PrivatePropagation];
    ops.extend(spec.mounts.iter().enumerate().filter_map(locate));
    ops.push(SetupOp::AttachRoot);
    ops.extend(proc_and_sys(spec.insecure));
    ops.extend(dev(spec));
    ops.push(streams(spec));
    ops.extend(spec.mounts.iter().enumerate().map(bind));
    ops.push(SetupOp::PivotRoot { kept: matches!(spec.view, View::Kept) });
    ops
}

/// Takes the rootfs over from a command that has ended. Its processes are gone, and with them what
/// its `/proc` showed; its terminals may be others' by now.
fn joined_mounts(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::JoinMounts];
    if !spec.insecure {
        ops.push(SetupOp::Blanks);
    }
    ops.push(proc());
    if !spec.insecure {
        let in_proc = |path: &&str| path.starts_with("/proc/");
        ops.extend(READ_ONLY.into_iter().filter(in_proc).map(SetupOp::ReadOnly));
        ops.extend(MASKED.into_iter().filter(in_proc).map(SetupOp::Mask));
    }
    if spec.streams == Streams::Terminal {
        ops.push(SetupOp::Terminals);
    }
    ops.push(streams(spec));
    ops.extend(spec.mounts.iter().enumerate().map(bind));
    ops
}

/// What the command is and may do, in a rootfs that is complete.
fn process(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    if spec.network == Network::None {
        ops.push(SetupOp::Loopback);
    }
    ops.push(SetupOp::Hostname(spec.hostname.clone()));
    if spec.network == Network::Host && !spec.insecure {
        ops.push(SetupOp::ScopeSockets);
    }
    // Before any path that an image or a Dockerfile has a say in is resolved from `/`.
    ops.push(SetupOp::CloseDescriptors);
    ops.push(SetupOp::EnterDirectory(spec.cwd.clone()));
    ops.extend([SetupOp::Signals, SetupOp::Session]);
    if spec.streams == Streams::Terminal {
        ops.push(SetupOp::ControllingTerminal);
    }
    ops.push(SetupOp::Umask(0o022));
    // Before the capabilities go: raising a limit needs one.
    ops.extend(spec.limits.iter().copied().map(SetupOp::Limit));
    ops.extend(rights(spec));
    ops.extend([SetupOp::RenewDieWithParent, SetupOp::Verify]);
    ops
}

fn streams(spec: &RunSpec) -> SetupOp {
    let gid = if spec.streams == Streams::Terminal { TTY_GROUP } else { spec.user.gid };
    SetupOp::Streams { uid: spec.user.uid, gid }
}

fn bind((index, mount): (usize, &Mount)) -> SetupOp {
    let (target, read_only) = (mount.target.clone(), mount.read_only);
    match mount.source {
        MountSource::Path { .. } | MountSource::Inside { .. } | MountSource::Whole { .. } => {
            SetupOp::Bind { index, target, read_only }
        }
        MountSource::Tmpfs { bytes, mode } => SetupOp::Tmpfs { target, bytes, mode, read_only },
    }
}

fn locate((index, mount): (usize, &Mount)) -> Option<SetupOp> {
    match &mount.source {
        MountSource::Inside { path, .. } => {
            Some(SetupOp::Locate { index, path: path.clone(), read_only: mount.read_only })
        }
        MountSource::Path { .. } | MountSource::Whole { .. } | MountSource::Tmpfs { .. } => None,
    }
}

fn proc() -> SetupOp {
    SetupOp::Filesystem {
        kind: "proc",
        options: Vec::new(),
        flags: MountFlags::NoSuidExecDev,
        target: "/proc",
    }
}

fn proc_and_sys(insecure: bool) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    if !insecure {
        ops.push(SetupOp::Blanks);
    }
    ops.extend([proc(), SetupOp::Sys { read_only: !insecure }]);
    if !insecure {
        ops.extend(READ_ONLY.map(SetupOp::ReadOnly));
        ops.extend(MASKED.map(SetupOp::Mask));
    }
    ops
}

fn dev(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::Filesystem {
        kind: "tmpfs",
        options: vec![("mode", "755".to_owned()), ("size", "65536k".to_owned())],
        flags: MountFlags::NoSuidDev,
        target: "/dev",
    }];
    ops.extend(DEVICES.map(SetupOp::DevNode));
    ops.extend(LINKS.map(|(name, to)| SetupOp::DevLink { name, to }));
    ops.extend(DEV_DIRECTORIES.map(SetupOp::DevDirectory));
    ops.push(match spec.streams {
        Streams::Terminal => SetupOp::Terminals,
        Streams::Output | Streams::Pipes => SetupOp::Filesystem {
            kind: "devpts",
            options: devpts_options(),
            flags: MountFlags::NoSuidExec,
            target: DEV_PTS,
        },
    });
    ops.push(SetupOp::Filesystem {
        kind: "tmpfs",
        options: vec![("mode", "1777".to_owned()), ("size", spec.shm_bytes.to_string())],
        flags: MountFlags::NoSuidExecDev,
        target: "/dev/shm",
    });
    ops.push(SetupOp::Filesystem {
        kind: "mqueue",
        options: Vec::new(),
        flags: MountFlags::NoSuidExecDev,
        target: "/dev/mqueue",
    });
    ops
}

/// Where terminals are.
pub(super) const DEV_PTS: &str = "/dev/pts";

/// The options of a step's own terminals.
pub(super) fn devpts_options() -> Vec<(&'static str, String)> {
    vec![
        ("newinstance", String::new()),
        ("ptmxmode", "0666".to_owned()),
        ("mode", "0620".to_owned()),
        ("gid", TTY_GROUP.to_string()),
    ]
}

/// Returns whether an option can be given to a new file system here: a group that the user namespace
/// lacks cannot own it, and in its place that of the process does.
pub(super) fn can_be_given(key: &str, value: &str) -> bool {
    key != "gid" || value.parse().is_ok_and(ids::has_group)
}

/// The group `tty` of every distribution, which the C library wants terminals to have.
const TTY_GROUP: u32 = 5;

/// The filter goes first, since loading it needs a capability; of the credentials the bounding
/// set, since that needs another.
fn rights(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    if let Some(set) = bounding_set(spec) {
        ops.extend([SetupOp::Seccomp, SetupOp::BoundingSet(set)]);
    }
    ops.push(SetupOp::Become(spec.user.clone()));
    ops.extend(capabilities(spec).map(SetupOp::Capabilities));
    ops
}

/// Returns the bounding set of a step; `None` for `insecure` ones, which have no limit.
///
/// In rbuild's network namespace `CAP_NET_RAW` would let a step of root read all of the host's
/// traffic, by packet sockets. There ping(8) works where `net.ipv4.ping_group_range` allows it.
pub(super) fn bounding_set(spec: &RunSpec) -> Option<CapabilitySet> {
    match (spec.insecure, spec.network) {
        (true, _) => None,
        (false, Network::None) => Some(caps::DOCKER_DEFAULT),
        (false, Network::Host) => Some(caps::DOCKER_DEFAULT.difference(CapabilitySet::NET_RAW)),
    }
}

/// Returns the capabilities that a step starts with; `None` for all that rbuild has. It also empties the inheritable set,
/// which rbuild may have been started with and which a change of user keeps (CVE-2025-27612).
pub(super) fn capabilities(spec: &RunSpec) -> Option<CapabilitySet> {
    if spec.user.uid == 0 { bounding_set(spec) } else { Some(CapabilitySet::empty()) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "any descriptor will do")]

    use std::sync::Arc;

    use super::super::spec::Kept;
    use super::*;

    fn spec(view: View) -> RunSpec {
        RunSpec {
            argv: vec!["sh".into()],
            env: Vec::new(),
            cwd: "/work".into(),
            user: User { uid: 7, gid: 8, groups: Vec::new() },
            hostname: "sandbox".to_owned(),
            network: Network::None,
            mounts: vec![Mount {
                target: "/scratch".into(),
                source: MountSource::Tmpfs { bytes: None, mode: 0o1777 },
                read_only: false,
            }],
            insecure: false,
            shm_bytes: 4096,
            limits: Vec::new(),
            streams: Streams::Terminal,
            view,
        }
    }

    fn list(spec: &RunSpec) -> String {
        rootfs_ops(spec).iter().map(|op| format!("{op}\n")).collect()
    }

    #[test]
    fn mounts_are_kept_without_the_old_root_and_terminals_are_those_of_rbuild() {
        let own = SetupOp::Filesystem {
            kind: "devpts",
            options: devpts_options(),
            flags: MountFlags::NoSuidExec,
            target: DEV_PTS,
        };
        let ops = rootfs_ops(&spec(View::Kept));
        assert!(!ops.contains(&own));
        let at = |op: &SetupOp| ops.iter().position(|one| one == op).expect("it is in the list");
        assert!(at(&SetupOp::AttachRoot) < at(&SetupOp::PivotRoot { kept: true }));
        assert!(at(&SetupOp::DevDirectory("pts")) < at(&SetupOp::Terminals));
        assert_eq!(at(&SetupOp::Session) + 1, at(&SetupOp::ControllingTerminal));
        assert!(at(&SetupOp::Streams { uid: 7, gid: 5 }) < at(&SetupOp::Session));
    }

    #[test]
    fn who_joins_mounts_has_a_proc_of_its_own_and_the_rights_of_the_step() {
        let namespace = std::fs::File::open("/dev/null").unwrap().into();
        let joined = spec(View::Of(Arc::new(Kept { namespace })));
        insta::assert_snapshot!(list(&joined), @"
        tie the step's life to rbuild's
        enter the mounts of the command that has ended
        make an empty file and an empty directory to mask with
        mount proc on /proc (nosuid,noexec,nodev)
        make /proc/bus read-only
        make /proc/fs read-only
        make /proc/irq read-only
        make /proc/sys read-only
        make /proc/sysrq-trigger read-only
        mask /proc/acpi
        mask /proc/asound
        mask /proc/interrupts
        mask /proc/kcore
        mask /proc/keys
        mask /proc/latency_stats
        mask /proc/sched_debug
        mask /proc/scsi
        mask /proc/timer_list
        mask /proc/timer_stats
        mount the terminals on /dev/pts
        connect the streams for 7:5
        mount a tmpfs on /scratch (writable), mode 1777
        bring the loopback interface up
        set the hostname to `sandbox`
        close the descriptors
        enter the working directory /work
        reset the signals
        start a session
        make the terminal that of the session
        set the umask to 022
        load the system call filter
        limit the capabilities to a80425fb
        become the user 7:8 with groups []
        set the capabilities to 0
        tie the step's life to rbuild's, as the user that it is now
        verify the sandbox
        ");
    }
}
