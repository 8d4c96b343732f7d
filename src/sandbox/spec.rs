//! What a caller says about a command, and what it learns.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;
pub use rustix::process::Resource;

/// One command and all that it may see.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The program and its arguments. A program without a slash is looked for along `PATH` of
    /// `env`, inside the rootfs.
    pub argv: Vec<OsString>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory: absolute, inside the rootfs, existing.
    pub cwd: PathBuf,
    /// Who the command is.
    pub user: User,
    /// The hostname that it sees.
    pub hostname: String,
    /// The network that it sees.
    pub network: Network,
    /// What is mounted into the rootfs besides `/proc`, `/sys` and `/dev`, in this order.
    pub mounts: Vec<Mount>,
    /// `RUN --security=insecure`: all capabilities, no system call filter, no masked paths, a
    /// writable `/sys`.
    pub insecure: bool,
    /// The size of `/dev/shm`.
    pub shm_bytes: u64,
    /// Limits that differ from rbuild's own.
    pub limits: Vec<Limit>,
    /// What its input and its outputs are.
    pub streams: Streams,
    /// Where it sees its mounts, and what becomes of them.
    pub view: View,
}

/// What the three streams of a command are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// There is no input; the outputs are pipes.
    Output,
    /// All three are pipes.
    Pipes,
    /// A terminal of its own, in its own `/dev/pts`.
    Terminal,
}

/// Where a command sees its mounts, and what becomes of them.
#[derive(Debug, Clone)]
pub enum View {
    /// In a mount namespace that goes when it ends.
    Own,
    /// In one that is [`Kept`] for others when it has ended.
    Kept,
    /// In that of a command that has ended: with all that it left in them, and its working directory,
    /// devices and `/sys`. `RunSpec::mounts` then are those that come to them.
    Of(Arc<Kept>),
}

/// The mount namespace of a command that has ended: the rootfs and all that was mounted into it, as
/// the command left it. All of it goes with this value, or with the process.
#[derive(Debug)]
pub struct Kept {
    pub(super) namespace: OwnedFd,
}

/// A limit on what a command may use (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// On what.
    pub resource: Resource,
    /// What holds until the command itself raises it; none when `None`.
    pub soft: Option<u64>,
    /// As far as it can be raised; without end when `None`.
    pub hard: Option<u64>,
}

/// Docker's size of `/dev/shm`.
pub const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// Who a command is, in numbers of the rootfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

impl User {
    /// The user with all rights that a step can have.
    #[must_use]
    pub const fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new() }
    }
}

/// Which network a command sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// That of rbuild.
    Host,
    /// A loopback interface of its own and nothing else.
    None,
}

/// Something that is mounted into the rootfs for the time of the command.
///
/// A target that does not exist is made, and stays: who wants it gone makes it before and removes
/// it after.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Where: absolute, resolved inside the rootfs and what is mounted there by then. What exists
    /// must be a directory for a directory and a file for a file.
    pub target: PathBuf,
    /// What.
    pub source: MountSource,
    /// Whether writing fails.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone)]
pub enum MountSource {
    /// A file or a directory with all that is mounted below it.
    Path {
        /// A descriptor of it; `O_PATH` is enough.
        directory: Arc<OwnedFd>,
    },
    /// A file or a directory in a mount that is in no mount table, such as that of a
    /// [`Rootfs`](super::Rootfs). The descriptor then leads to that mount only until the command
    /// has started.
    Inside {
        /// The mount.
        mount: Arc<OwnedFd>,
        /// Where in it: resolved inside it.
        path: PathBuf,
    },
    /// A whole mount that is in no mount table, and is moved to its place: it can be mounted once.
    Whole {
        /// The mount.
        mount: Arc<OwnedFd>,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Its limit; the kernel's own (half of the memory) when `None`.
        bytes: Option<u64>,
        /// The permissions of its root.
        mode: u32,
    },
}

/// Which of its two streams a command wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code; 0 is success.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

/// Why a command could not be run. That it ran and failed is no error but an [`Exit`].
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program is not in the rootfs.
    #[error("`{}` was not found in the image", argv0.display())]
    NotFound {
        /// The program as it was asked for.
        argv0: OsString,
    },
    /// The program is there, but what the kernel needs to start it is not.
    #[error(
        "`{}` is in the image, but the interpreter that it names is not (a `#!` line, or the \
         dynamic linker of another C library or architecture)",
        argv0.display()
    )]
    InterpreterNotFound {
        /// The program as it was asked for.
        argv0: OsString,
    },
    /// The program is not something that this machine can execute.
    #[error(
        "`{}` cannot be executed here: it is for another architecture, or a script without a \
         `#!` line",
        argv0.display()
    )]
    WrongFormat {
        /// The program as it was asked for.
        argv0: OsString,
    },
    /// The user may not execute the program.
    #[error("`{}` may not be executed by this user: permission denied", argv0.display())]
    PermissionDenied {
        /// The program as it was asked for.
        argv0: OsString,
    },
    /// The path of the program leads through a magic link, or links lead round in a circle.
    #[error(
        "`{}` cannot be executed: its path leads through a link of /proc to something that is not \
         part of the image, or its links lead round in a circle; name the program by its own path",
        argv0.display()
    )]
    MagicLink {
        /// The program as it was asked for.
        argv0: OsString,
    },
    /// The child's last check failed: the command was not executed.
    #[error(
        "the sandbox is not closed: {part} {} not as intended, so the command was not started; \
         please report this, with the kernel's version",
        if part.ends_with('s') { "are" } else { "is" }
    )]
    Open {
        /// The part that is not as intended.
        part: &'static str,
    },
    /// The arguments and the environment are larger than the kernel takes.
    #[error("the command `{}` with its environment is longer than the kernel allows", argv0.display())]
    TooLong {
        /// The program as it was asked for.
        argv0: OsString,
    },
    /// An ordinary user needs a user namespace, and there can be none.
    #[error("cannot make a user namespace: {reason}; {help}")]
    NoUserNamespace {
        /// What is missing.
        reason: String,
        /// What to install or to set.
        help: String,
    },
    /// A step of the preparations failed.
    #[error("cannot {op}")]
    Setup {
        /// What was attempted, as in "cannot *mount /proc*".
        op: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The rootfs could not be put together from its layers.
    #[error("cannot mount the layers as one root: {help}")]
    Overlay {
        /// The likely cause.
        help: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl SandboxError {
    pub(super) fn setup(op: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Setup { op: op.into(), source: source.into() }
    }

    /// A process could not be started.
    pub(super) fn start(op: &str, errno: Errno) -> Self {
        let source = io::Error::from(errno);
        if errno != Errno::AGAIN {
            return Self::setup(op, source);
        }
        let text = format!(
            "{source}; the limit on processes is reached: raise it (`ulimit -u`, or `pids.max` of \
             the cgroup), or end other processes"
        );
        Self::setup(op, io::Error::new(source.kind(), text))
    }
}
