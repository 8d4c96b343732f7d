//! The setup between clone and exec as a list of operations. A pure function makes the list, so a
//! snapshot test pins it and a reviewer reads it without the system calls.

use std::path::PathBuf;

use rustix::thread::CapabilitySet;

use crate::pathio::ids;

use super::devices::{DEV_DIRECTORIES, DEVICES, Device, LINKS};
use super::spec::{Limit, Mount, MountNamespace, MountSource, Network, RunSpec, Streams, User};
use super::{caps, supervisor};

/// One operation of a step's setup. Paths are absolute in the rootfs and resolved inside it, except
/// where noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupOp {
    /// Makes all mounts private: later mounts do not propagate to the host (mount_namespaces(7)).
    PrivatePropagation,
    /// Mounts the rootfs over the old root, where only its descriptor leads into it.
    AttachRoot,
    /// Enters the control group of the command (cgroups(7)).
    EnterCgroup,
    /// Joins the private network namespace (setns(2)). A new `/sys` shows the network of the process that
    /// mounts it.
    JoinNetwork,
    /// Joins the mount namespace of a command that has ended.
    JoinMounts,
    /// Mounts the step's own `/dev/pts`, in which rbuild has opened the terminal of the streams.
    Terminals,
    /// Mounts a new file system of `kind` on `target`, which is created if missing.
    Filesystem {
        /// The type, as in filesystems(5).
        kind: &'static str,
        /// Its mount options, in order.
        options: Vec<(&'static str, String)>,
        /// The restrictions of its mount.
        flags: MountFlags,
        /// The mount point.
        target: &'static str,
    },
    /// Mounts `/sys` (sysfs(5)): a new one, or else the host's, or else none.
    Sys {
        /// True if the mount is read-only.
        read_only: bool,
    },
    /// Creates a directory in the step's own `/dev`.
    DevDirectory(&'static str),
    /// Creates a device in the step's own `/dev`: a node of its own, or where the kernel forbids
    /// that (in a user namespace), the host's, read-only.
    DevNode(Device),
    /// Creates a symbolic link in the step's own `/dev`.
    DevLink {
        /// The name in `/dev`.
        name: &'static str,
        /// The target of the link.
        to: &'static str,
    },
    /// Makes an existing path read-only.
    ReadOnly(&'static str),
    /// Creates an empty file and an empty directory, read-only, for [`SetupOp::Mask`]. They are in
    /// a tmpfs below the `/proc` that is mounted next: before Linux 6.15 only a part of an attached
    /// mount can be cloned.
    Blanks,
    /// Hides an existing path behind an empty file or an empty directory.
    Mask(&'static str),
    /// Resolves the source of `RunSpec::mounts[index]` in its detached mount, before the old root
    /// is unmounted.
    Locate {
        /// The index in `RunSpec::mounts`.
        index: usize,
        /// The path in the detached mount.
        path: PathBuf,
        /// True if the mount is read-only.
        read_only: bool,
    },
    /// Mounts `RunSpec::mounts[index]`, a file or a directory.
    Bind {
        /// The index in `RunSpec::mounts`.
        index: usize,
        /// The mount point.
        target: PathBuf,
        /// True if the mount is read-only.
        read_only: bool,
    },
    /// Mounts a tmpfs that the caller asked for.
    Tmpfs {
        /// The mount point.
        target: PathBuf,
        /// The maximum size; the kernel's default when `None`.
        bytes: Option<u64>,
        /// The permissions of its root directory.
        mode: u32,
        /// True if the mount is read-only.
        read_only: bool,
    },
    /// Brings the loopback interface `lo` up.
    Loopback,
    /// Sets the hostname (sethostname(2)).
    Hostname(String),
    /// Makes the rootfs the root directory and unmounts the old one (pivot_root(2)).
    PivotRoot {
        /// True if the mount namespace is then sent to rbuild, for later commands to join.
        kept: bool,
    },
    /// Closes every descriptor but the streams, the status pipe and the launcher: no path that is
    /// resolved later can reach the host through `/proc/self/fd`.
    CloseDescriptors,
    /// Enters the working directory, without following magic links (symlink(7)).
    EnterDirectory(PathBuf),
    /// Connects the standard streams: pipes or a terminal, which the user may reopen. A stream
    /// without input is the step's `/dev/null`, so no mount of the caller may cover that yet.
    Streams {
        /// The owner of the pipes or the terminal.
        uid: u32,
        /// The group of the pipes or the terminal.
        gid: u32,
    },
    /// Resets all signals to their default action and unblocks them (signal(7)).
    Signals,
    /// Starts a session of its own, without a terminal (setsid(2)).
    Session,
    /// Makes the terminal of the streams the controlling terminal of the session (`TIOCSCTTY`,
    /// ioctl_tty(2)).
    ControllingTerminal,
    /// Sets the file mode creation mask (umask(2)).
    Umask(u32),
    /// Sets a resource limit that differs from rbuild's own (setrlimit(2)).
    Limit(Limit),
    /// Loads the seccomp filter with docker's rules (seccomp(2)).
    Seccomp,
    /// Limits the bounding set: the capabilities that no program of the step can gain, not even a
    /// set-user-ID one (capabilities(7)).
    BoundingSet(CapabilitySet),
    /// Switches to the user and its groups. A user other than 0 loses all capabilities.
    Become(User),
    /// Sets the effective and permitted capabilities; none is inheritable or ambient.
    Capabilities(CapabilitySet),
    /// Asks the kernel to kill the step when rbuild dies (prctl(2), `PR_SET_PDEATHSIG`).
    DieWithParent,
    /// Asks again after the changes of credentials, which clear the setting.
    RenewDieWithParent,
    /// Blocks the host's abstract sockets (landlock(7), Linux 6.12). They belong to the network
    /// namespace (unix(7)), which the step shares.
    ScopeSockets,
    /// Loads the filter of a supervisor (seccomp_unotify(2)), which emulates owners and identities.
    Supervise,
    /// Checks that all of the above took effect; otherwise the command is not executed.
    Verify,
}

/// The restrictions of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountFlags {
    /// `nosuid,nodev`: no set-user-ID programs, no devices.
    NoSuidDev,
    /// `nosuid,noexec`: no set-user-ID programs, no execution.
    NoSuidExec,
    /// `nosuid,noexec,nodev`: no set-user-ID programs, no execution, no devices.
    NoSuidExecDev,
}

/// The paths that docker masks: they reveal facts about the host, or change it (runtime-spec,
/// config-linux.md, "Masked Paths").
pub(super) const MASKED: [&str; 12] = [
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

/// The paths that docker makes read-only: root in a step must not change the host's settings
/// (runtime-spec, config-linux.md, "Readonly Paths").
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Returns the setup of `spec`, in the order in which it must be applied.
#[must_use]
pub fn rootfs_ops(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::DieWithParent];
    if !spec.cgroups.is_empty() {
        ops.push(SetupOp::EnterCgroup);
    }
    if matches!(spec.network, Network::Private(_)) {
        ops.push(SetupOp::JoinNetwork);
    }
    ops.extend(match spec.mount_namespace {
        MountNamespace::Own | MountNamespace::Kept => own_mounts(spec),
        MountNamespace::Join(_) => joined_mounts(spec),
    });
    ops.extend(process_ops(spec));
    ops
}

/// Returns the setup of `spec` where one user id stands for all: the command is that user, and a
/// supervisor emulates the others.
pub(super) fn single_id_ops(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = rootfs_ops(&as_single_id(spec));
    ops.retain(|op| !matches!(op, SetupOp::Become(_)));
    let at = ops.iter().position(|op| matches!(op, SetupOp::RenewDieWithParent));
    ops.insert(at.unwrap_or(ops.len()), SetupOp::Limit(supervisor::CARRIER_LIMIT));
    ops.push(SetupOp::Supervise);
    ops
}

/// Returns `spec` for the user that the kernel sees.
pub(super) fn as_single_id(spec: &RunSpec) -> RunSpec {
    let mount_namespace = MountNamespace::Own;
    RunSpec { user: User::root(), mount_namespace, ..spec.clone() }
}

/// Returns the operations that assemble a new mount tree.
fn own_mounts(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::PrivatePropagation];
    ops.extend(spec.mounts.iter().enumerate().filter_map(locate));
    ops.push(SetupOp::AttachRoot);
    ops.extend(proc_and_sys(spec.insecure));
    ops.extend(dev_ops(spec));
    ops.push(streams(spec));
    ops.extend(spec.mounts.iter().enumerate().map(bind));
    ops.push(SetupOp::PivotRoot { kept: matches!(spec.mount_namespace, MountNamespace::Kept) });
    ops
}

/// Returns the operations that join the mounts of a command that has ended. `/proc` is mounted
/// anew, because the old one showed the ended namespace's processes; so is `/dev/pts`, whose
/// terminals other commands may use by now.
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

/// Returns the operations that restrict the process, once its mounts are complete.
fn process_ops(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    if matches!(spec.network, Network::None) {
        ops.push(SetupOp::Loopback);
    }
    ops.push(SetupOp::Hostname(spec.hostname.clone()));
    if matches!(spec.network, Network::Host) && !spec.insecure {
        ops.push(SetupOp::ScopeSockets);
    }
    // Before the first path from an image or a Dockerfile is resolved at `/`.
    ops.push(SetupOp::CloseDescriptors);
    ops.push(SetupOp::EnterDirectory(spec.cwd.clone()));
    ops.extend([SetupOp::Signals, SetupOp::Session]);
    if spec.streams == Streams::Terminal {
        ops.push(SetupOp::ControllingTerminal);
    }
    ops.push(SetupOp::Umask(0o022));
    // Before the capabilities are dropped: raising a limit needs `CAP_SYS_RESOURCE`.
    ops.extend(spec.limits.iter().copied().map(SetupOp::Limit));
    ops.extend(drop_rights(spec));
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
        MountSource::Path { .. }
        | MountSource::Inside { .. }
        | MountSource::Whole { .. }
        | MountSource::Memory { .. } => SetupOp::Bind { index, target, read_only },
        MountSource::Tmpfs { bytes, mode } => SetupOp::Tmpfs { target, bytes, mode, read_only },
    }
}

fn locate((index, mount): (usize, &Mount)) -> Option<SetupOp> {
    match &mount.source {
        MountSource::Inside { path, .. } => {
            Some(SetupOp::Locate { index, path: path.clone(), read_only: mount.read_only })
        }
        MountSource::Path { .. }
        | MountSource::Whole { .. }
        | MountSource::Memory { .. }
        | MountSource::Tmpfs { .. } => None,
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

fn dev_ops(spec: &RunSpec) -> Vec<SetupOp> {
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

/// The mount point of devpts.
pub(super) const DEV_PTS: &str = "/dev/pts";

/// Returns the mount options of a step's own devpts (Documentation/filesystems/devpts.rst of
/// Linux).
pub(super) fn devpts_options() -> Vec<(&'static str, String)> {
    vec![
        ("newinstance", String::new()),
        ("ptmxmode", "0666".to_owned()),
        ("mode", "0620".to_owned()),
        ("gid", TTY_GROUP.to_string()),
    ]
}

/// Returns whether a mount option can be set here. A group that the user namespace does not map
/// cannot own a file system; the group of the process then does.
pub(super) fn can_be_given(key: &str, value: &str) -> bool {
    key != "gid" || value.parse().is_ok_and(ids::has_group)
}

/// The group `tty` of all distributions, which glibc expects to own terminals (grantpt(3)).
const TTY_GROUP: u32 = 5;

/// Returns the operations that drop rights. The seccomp filter comes first: loading it needs
/// `CAP_SYS_ADMIN` (seccomp(2)). The bounding set comes next: it needs `CAP_SETPCAP`.
fn drop_rights(spec: &RunSpec) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    if let Some(set) = bounding_set(spec) {
        ops.extend([SetupOp::Seccomp, SetupOp::BoundingSet(set)]);
    }
    ops.push(SetupOp::Become(spec.user.clone()));
    ops.extend(capabilities(spec).map(SetupOp::Capabilities));
    ops
}

/// Returns the bounding set of a step; `None` for `insecure` steps, which are not limited.
///
/// In rbuild's network namespace `CAP_NET_RAW` would let root in a step read all traffic of the
/// host by packet sockets (packet(7)). There ping(8) works where `net.ipv4.ping_group_range` allows
/// it (icmp(7)). In a private network it would let a step send any packet to pasta, whose checks of
/// addresses would then be all that protects the host.
pub(super) fn bounding_set(spec: &RunSpec) -> Option<CapabilitySet> {
    let usual = match (spec.insecure, &spec.network) {
        (true, _) => return None,
        (false, Network::None) => caps::DOCKER_DEFAULT,
        (false, Network::Host | Network::Private(_)) => {
            caps::DOCKER_DEFAULT.difference(CapabilitySet::NET_RAW)
        }
    };
    Some(spec.capabilities.applied_to(usual))
}

/// Returns the capabilities that a step starts with; `None` for all that rbuild has. Setting them
/// also empties the inheritable set, which rbuild may have been started with and which a change of
/// user keeps (CVE-2025-27612 in youki).
pub(super) fn capabilities(spec: &RunSpec) -> Option<CapabilitySet> {
    if spec.user.uid == 0 { bounding_set(spec) } else { Some(CapabilitySet::empty()) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "any descriptor will do")]

    use std::sync::Arc;

    use super::super::spec::KeptMounts;
    use super::*;

    fn spec(mount_namespace: MountNamespace) -> RunSpec {
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
            capabilities: crate::sandbox::CapabilityChanges::NONE,
            shm_bytes: 4096,
            limits: Vec::new(),
            cgroups: Vec::new(),
            streams: Streams::Terminal,
            mount_namespace,
        }
    }

    fn list(spec: &RunSpec) -> String {
        rootfs_ops(spec).iter().map(|op| format!("{op}\n")).collect()
    }

    #[test]
    fn mounts_are_kept_after_the_pivot_and_terminals_come_from_rbuild() {
        let own = SetupOp::Filesystem {
            kind: "devpts",
            options: devpts_options(),
            flags: MountFlags::NoSuidExec,
            target: DEV_PTS,
        };
        let ops = rootfs_ops(&spec(MountNamespace::Kept));
        assert!(!ops.contains(&own));
        let at = |op: &SetupOp| ops.iter().position(|one| one == op).expect("it is in the list");
        assert!(at(&SetupOp::AttachRoot) < at(&SetupOp::PivotRoot { kept: true }));
        assert!(at(&SetupOp::DevDirectory("pts")) < at(&SetupOp::Terminals));
        assert_eq!(at(&SetupOp::Session) + 1, at(&SetupOp::ControllingTerminal));
        assert!(at(&SetupOp::Streams { uid: 7, gid: 5 }) < at(&SetupOp::Session));
    }

    #[test]
    fn joining_command_has_its_own_proc_and_the_rights_of_the_step() {
        let namespace = std::fs::File::open("/dev/null").unwrap().into();
        let joined = spec(MountNamespace::Join(Arc::new(KeptMounts { namespace })));
        insta::assert_snapshot!(list(&joined), @"
        set the parent death signal
        join the mounts of the command that has ended
        create an empty file and an empty directory for masks
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
        mount the step's terminals on /dev/pts
        connect the standard streams for 7:5
        mount a tmpfs on /scratch (writable), mode 1777
        bring the loopback interface up
        set the hostname to `sandbox`
        close all other descriptors
        enter the working directory /work
        reset the signals
        start a session
        set the controlling terminal
        set the umask to 022
        load the seccomp filter
        limit the capability bounding set to a80425fb
        switch to user 7:8 with groups []
        set the capabilities to 0
        set the parent death signal again after switching the user
        verify the sandbox
        ");
    }
}
