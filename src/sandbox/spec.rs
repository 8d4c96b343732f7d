//! The command to run, its isolation and its streams, as the caller describes them; and how it
//! ended.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

pub use rustix::process::Resource;
use rustix::thread::CapabilitySet;

/// One command, and everything that it can see and use.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The program and its arguments. A program without a slash is searched for along `PATH` of
    /// `env`, inside the rootfs (execvp(3)).
    pub argv: Vec<OsString>,
    /// The complete environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory: absolute, inside the rootfs, existing.
    pub cwd: PathBuf,
    /// The user and groups that the command runs as.
    pub user: User,
    /// The hostname in its UTS namespace (uts_namespaces(7)).
    pub hostname: String,
    /// The network that the command can use.
    pub network: Network,
    /// Additional mounts besides `/proc`, `/sys` and `/dev`, made in this order.
    pub mounts: Vec<Mount>,
    /// Runs without isolation of rights (`RUN --security=insecure`): all capabilities, no seccomp
    /// filter, no masked paths, a writable `/sys`.
    pub insecure: bool,
    /// Differences from docker's default capabilities.
    pub capabilities: CapabilityChanges,
    /// The size of the tmpfs at `/dev/shm`, in bytes.
    pub shm_bytes: u64,
    /// The files by which the command enters its control groups, those of `StepCgroup::entries`.
    pub cgroups: Vec<Arc<OwnedFd>>,
    /// Resource limits that differ from rbuild's own.
    pub limits: Vec<Limit>,
    /// The kind of standard input, output and error.
    pub streams: Streams,
    /// The mount namespace to run in, and whether it outlives the command.
    pub mount_namespace: MountNamespace,
}

/// Capabilities that a command has besides docker's default ones, or lacks of them (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilityChanges {
    add: CapabilitySet,
    drop: CapabilitySet,
}

impl CapabilityChanges {
    /// No changes.
    pub const NONE: Self = Self { add: CapabilitySet::empty(), drop: CapabilitySet::empty() };

    /// Returns changes by name, such as `CAP_CHOWN`; `ALL` drops all. What is added and dropped is added, as
    /// by docker. `Err` is an unknown name, or `ALL` to be added.
    ///
    /// # Errors
    /// The first name that is not one of a capability.
    pub fn of_names(add: &[String], drop: &[String]) -> Result<Self, String> {
        let set = |names: &[String], all: Option<CapabilitySet>| {
            names.iter().try_fold(CapabilitySet::empty(), |set, name| {
                let short = name.strip_prefix("CAP_").unwrap_or(name);
                let one = CapabilitySet::from_name(short);
                let one = one.or_else(|| all.filter(|_| short == "ALL"));
                one.map(|one| set.union(one)).ok_or_else(|| name.clone())
            })
        };
        Ok(Self { add: set(add, None)?, drop: set(drop, Some(CapabilitySet::all()))? })
    }

    /// Returns `usual` with the changes.
    pub(super) fn applied_to(self, usual: CapabilitySet) -> CapabilitySet {
        usual.difference(self.drop).union(self.add)
    }
}

/// The kind of a command's standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// No input: `/dev/null`. The outputs are pipes.
    Output,
    /// Pipes for all three streams.
    Pipes,
    /// A pseudoterminal in the command's own `/dev/pts` (pty(7)).
    Terminal,
}

/// The mount namespace of a command (mount_namespaces(7)), and its lifetime.
#[derive(Debug, Clone)]
pub enum MountNamespace {
    /// A new namespace that ends with the command.
    Own,
    /// A new namespace that outlives the command, as [`KeptMounts`].
    Kept,
    /// The namespace of a command that has ended, with everything that it left there: files,
    /// mounts, the working directory, devices and `/sys`. `RunSpec::mounts` are then added to its
    /// mounts.
    Join(Arc<KeptMounts>),
}

/// The mount namespace of a command that has ended: the rootfs and its mounts, as the command left
/// them. They are unmounted when this value is dropped, or when the process ends.
#[derive(Debug)]
pub struct KeptMounts {
    pub(super) namespace: OwnedFd,
}

/// A resource limit of a command (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The limited resource, one of `RLIMIT_*`.
    pub resource: Resource,
    /// The limit in force, which the command may raise up to `hard`; `None` means unlimited.
    pub soft: Option<u64>,
    /// The ceiling of `soft`; `None` means unlimited.
    pub hard: Option<u64>,
}

/// Docker's default size of `/dev/shm`: 64 MiB.
pub const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// The user and groups of a command, as numeric ids inside the rootfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user id: real, effective and saved.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// The supplementary group ids (setgroups(2)).
    pub groups: Vec<u32>,
}

impl User {
    /// Returns user 0 and group 0, without supplementary groups.
    #[must_use]
    pub const fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new() }
    }
}

/// The network of a command.
#[derive(Debug, Clone)]
pub enum Network {
    /// The network namespace of rbuild.
    Host,
    /// A new network namespace, which has only a loopback interface.
    None,
    /// A network namespace that commands share, that of a `PrivateNetwork`.
    Private(Arc<OwnedFd>),
}

/// A file system object that is mounted into the rootfs while the command runs.
///
/// A target that does not exist is created and stays. A caller that wants it removed must create it
/// beforehand and remove it afterwards.
#[derive(Debug, Clone)]
pub struct Mount {
    /// The mount point: absolute, resolved inside the rootfs and the mounts made before. An
    /// existing one must be a directory for a directory and a file for a file.
    pub target: PathBuf,
    /// The object to mount.
    pub source: MountSource,
    /// True if the mount is read-only.
    pub read_only: bool,
}

/// The source of a [`Mount`].
#[derive(Debug, Clone)]
pub enum MountSource {
    /// A file or directory, with all mounts below it.
    Path {
        /// A descriptor of the file or directory; `O_PATH` is enough.
        directory: Arc<OwnedFd>,
    },
    /// A file or directory inside a detached mount, such as that of a [`Rootfs`](super::Rootfs).
    /// The descriptor refers to the whole mount only until the command has started.
    Inside {
        /// A descriptor of the detached mount.
        mount: Arc<OwnedFd>,
        /// The path in the mount, resolved inside it.
        path: PathBuf,
    },
    /// A complete detached mount, which is moved to its mount point: it can be used once.
    Whole {
        /// A descriptor of the detached mount.
        mount: Arc<OwnedFd>,
    },
    /// A file in memory (memfd_create(2)): used for secrets where nothing can be mounted.
    Memory {
        /// The file, open for reading and writing.
        file: Arc<OwnedFd>,
        /// The owner that the step sees.
        uid: u32,
        /// The group that the step sees.
        gid: u32,
        /// The permissions that the step sees.
        mode: u32,
    },
    /// A new, empty tmpfs (tmpfs(5)).
    Tmpfs {
        /// The maximum size; the kernel's default, half of the memory, when `None`.
        bytes: Option<u64>,
        /// The permissions of its root directory.
        mode: u32,
    },
}

/// The output stream that a command wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output, descriptor 1.
    Stdout,
    /// Standard error, descriptor 2.
    Stderr,
}

/// The way in which a command ended (wait(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code; 0 is success.
    Code(u8),
    /// It was killed by this signal.
    Signal(i32),
}
