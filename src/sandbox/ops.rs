//! The list of what happens between clone and exec, as data: decided first, then done.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use super::caps;
use super::spec::{Limit, Mount, MountSource, Network, RunSpec, User};

/// One operation of a step's setup. Paths are absolute in the rootfs and resolved inside it,
/// except where said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupOp {
    /// Nothing that is mounted from here on shows up outside.
    PrivatePropagation,
    /// Puts the rootfs over the old root, where only its descriptor leads.
    AttachRoot,
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
    /// A folder in the step's own `/dev`.
    DevFolder(&'static str),
    /// A device of the host in the step's own `/dev`.
    DevNode(&'static str),
    /// A symbolic link in the step's own `/dev`.
    DevLink {
        /// Its name.
        name: &'static str,
        /// Where it points.
        to: &'static str,
    },
    /// Makes what is there, if anything, read-only.
    ReadOnly(&'static str),
    /// Hides what is there, if anything: an empty file or an empty folder lies over it.
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
    /// Mounts `RunSpec::mounts[index]`, a file or a folder.
    Bind {
        /// Which.
        index: usize,
        /// Where.
        target: PathBuf,
        /// Whether writing fails.
        read_only: bool,
    },
    /// Mounts an empty folder in memory that the caller asked for.
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
    PivotRoot,
    /// Enters the working directory.
    EnterFolder(PathBuf),
    /// Standard input is empty, the outputs are pipes that the user may reopen.
    Streams {
        /// Who owns the pipes.
        uid: u32,
        /// And the group.
        gid: u32,
    },
    /// Default actions for all signals, none blocked.
    Signals,
    /// A session of its own, without a terminal.
    Session,
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
    /// No descriptor but the three streams survives exec.
    CloseDescriptors,
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

/// Devices that a container has; the host's own are bound, since a user namespace cannot make
/// any.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links in `/dev`, as docker makes them.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Folders in `/dev`, for file systems of their own.
const DEV_FOLDERS: [&str; 3] = ["pts", "shm", "mqueue"];

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
    let mut ops = vec![SetupOp::PrivatePropagation];
    ops.extend(spec.mounts.iter().enumerate().filter_map(locate));
    ops.push(SetupOp::AttachRoot);
    ops.extend(proc_and_sys(spec.insecure));
    ops.extend(dev(spec.shm_bytes));
    for (index, mount) in spec.mounts.iter().enumerate() {
        let (target, read_only) = (mount.target.clone(), mount.read_only);
        ops.push(match mount.source {
            MountSource::Path { .. } | MountSource::Inside { .. } => {
                SetupOp::Bind { index, target, read_only }
            }
            MountSource::Tmpfs { bytes, mode } => SetupOp::Tmpfs { target, bytes, mode, read_only },
        });
    }
    if spec.network == Network::None {
        ops.push(SetupOp::Loopback);
    }
    ops.push(SetupOp::Hostname(spec.hostname.clone()));
    ops.push(SetupOp::PivotRoot);
    ops.push(SetupOp::Streams { uid: spec.user.uid, gid: spec.user.gid });
    ops.push(SetupOp::EnterFolder(spec.cwd.clone()));
    ops.extend([SetupOp::Signals, SetupOp::Session, SetupOp::Umask(0o022)]);
    // Before the capabilities go: raising a limit needs one.
    ops.extend(spec.limits.iter().copied().map(SetupOp::Limit));
    ops.extend(rights(spec));
    // After the last change of credentials, which would take it back.
    ops.push(SetupOp::DieWithParent);
    ops.push(SetupOp::CloseDescriptors);
    ops
}

fn locate((index, mount): (usize, &Mount)) -> Option<SetupOp> {
    match &mount.source {
        MountSource::Inside { path, .. } => {
            Some(SetupOp::Locate { index, path: path.clone(), read_only: mount.read_only })
        }
        MountSource::Path { .. } | MountSource::Tmpfs { .. } => None,
    }
}

fn proc_and_sys(insecure: bool) -> Vec<SetupOp> {
    let mut ops = vec![
        SetupOp::Filesystem {
            kind: "proc",
            options: Vec::new(),
            flags: MountFlags::NoSuidExecDev,
            target: "/proc",
        },
        SetupOp::Sys { read_only: !insecure },
    ];
    if !insecure {
        ops.extend(READ_ONLY.map(SetupOp::ReadOnly));
        ops.extend(MASKED.map(SetupOp::Mask));
    }
    ops
}

fn dev(shm_bytes: u64) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::Filesystem {
        kind: "tmpfs",
        options: vec![("mode", "755".to_owned()), ("size", "65536k".to_owned())],
        flags: MountFlags::NoSuidDev,
        target: "/dev",
    }];
    ops.extend(DEVICES.map(SetupOp::DevNode));
    ops.extend(LINKS.map(|(name, to)| SetupOp::DevLink { name, to }));
    ops.extend(DEV_FOLDERS.map(SetupOp::DevFolder));
    ops.push(SetupOp::Filesystem {
        kind: "devpts",
        options: vec![
            ("newinstance", String::new()),
            ("ptmxmode", "0666".to_owned()),
            ("mode", "0620".to_owned()),
            // The group `tty` of every distribution, which the C library wants terminals to have.
            ("gid", "5".to_owned()),
        ],
        flags: MountFlags::NoSuidExec,
        target: "/dev/pts",
    });
    ops.push(SetupOp::Filesystem {
        kind: "tmpfs",
        options: vec![("mode", "1777".to_owned()), ("size", shm_bytes.to_string())],
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

/// The filter goes first, since loading it needs a capability; of the credentials the bounding
/// set, since that needs another.
fn rights(spec: &RunSpec) -> Vec<SetupOp> {
    if spec.insecure {
        return vec![SetupOp::Become(spec.user.clone())];
    }
    let mut ops = vec![
        SetupOp::Seccomp,
        SetupOp::BoundingSet(caps::DOCKER_DEFAULT),
        SetupOp::Become(spec.user.clone()),
    ];
    if spec.user.uid == 0 {
        ops.push(SetupOp::Capabilities(caps::DOCKER_DEFAULT));
    }
    ops
}

/// What is attempted, as an error has it after "cannot".
impl fmt::Display for SetupOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrivatePropagation => f.write_str("make the mounts private"),
            Self::AttachRoot => f.write_str("attach the root"),
            Self::Filesystem { kind, options, flags, target } => {
                write!(f, "mount {kind} on {target} (")?;
                options.iter().try_for_each(|(key, value)| match value.as_str() {
                    "" => write!(f, "{key},"),
                    value => write!(f, "{key}={value},"),
                })?;
                write!(f, "{flags})")
            }
            Self::Sys { read_only } => write!(f, "mount /sys ({})", access(*read_only)),
            Self::DevFolder(name) => write!(f, "make the folder /dev/{name}"),
            Self::DevNode(name) => write!(f, "bind the device /dev/{name}"),
            Self::DevLink { name, to } => write!(f, "link /dev/{name} to {to}"),
            Self::ReadOnly(path) => write!(f, "make {path} read-only"),
            Self::Mask(path) => write!(f, "mask {path}"),
            Self::Locate { path, read_only, .. } => {
                write!(f, "find {} of a mount ({})", path.display(), access(*read_only))
            }
            Self::Bind { target, read_only, .. } => write_mount(f, "", target, *read_only),
            Self::Tmpfs { target, bytes, mode, read_only } => {
                write_mount(f, "a tmpfs", target, *read_only)?;
                write!(f, ", mode {mode:o}")?;
                bytes.map_or(Ok(()), |bytes| write!(f, ", at most {bytes} bytes"))
            }
            Self::Loopback => f.write_str("bring the loopback interface up"),
            Self::Hostname(name) => write!(f, "set the hostname to `{name}`"),
            Self::PivotRoot => f.write_str("change the root"),
            Self::EnterFolder(folder) => {
                write!(f, "enter the working directory {}", folder.display())
            }
            Self::Streams { uid, gid } => write!(f, "connect the streams for {uid}:{gid}"),
            Self::Signals => f.write_str("reset the signals"),
            Self::Session => f.write_str("start a session"),
            Self::Umask(mask) => write!(f, "set the umask to {mask:03o}"),
            Self::Limit(Limit { resource, soft, hard }) => {
                let shown = |limit: &Option<u64>| {
                    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
                };
                let name = format!("{resource:?}").to_ascii_lowercase();
                write!(f, "set the limit {name} to {}:{}", shown(soft), shown(hard))
            }
            Self::Seccomp => f.write_str("load the system call filter"),
            Self::BoundingSet(set) => write!(f, "limit the capabilities to {:x}", set.bits()),
            Self::Become(User { uid, gid, groups }) => {
                write!(f, "become the user {uid}:{gid} with groups {groups:?}")
            }
            Self::Capabilities(set) => write!(f, "set the capabilities to {:x}", set.bits()),
            Self::DieWithParent => f.write_str("tie the step's life to rbuild's"),
            Self::CloseDescriptors => f.write_str("close the descriptors"),
        }
    }
}

impl fmt::Display for MountFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuidDev => "nosuid,nodev",
            Self::NoSuidExec => "nosuid,noexec",
            Self::NoSuidExecDev => "nosuid,noexec,nodev",
        })
    }
}

fn write_mount(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    target: &Path,
    read_only: bool,
) -> fmt::Result {
    let space = if what.is_empty() { "" } else { " " };
    write!(f, "mount{space}{what} on {} ({})", target.display(), access(read_only))
}

const fn access(read_only: bool) -> &'static str {
    if read_only { "read-only" } else { "writable" }
}
