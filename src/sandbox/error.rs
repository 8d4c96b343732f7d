//! The error of this module, and what turns kernel errors into it.

use std::ffi::OsString;
use std::io;

use rustix::io::Errno;

/// The reason why a command could not be run. A command that ran and failed is not an error but an
/// [`Exit`](super::Exit).
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program does not exist in the rootfs.
    #[error("`{}` was not found in the image", argv0.display())]
    NotFound {
        /// The program as given in `RunSpec::argv`.
        argv0: OsString,
    },
    /// The program exists, but its `#!` interpreter or dynamic linker does not (execve(2),
    /// `ENOENT`).
    #[error(
        "`{}` is in the image, but the interpreter that it names is not (a `#!` line, or the \
         dynamic linker of another C library or architecture)",
        argv0.display()
    )]
    InterpreterNotFound {
        /// The program as given in `RunSpec::argv`.
        argv0: OsString,
    },
    /// This machine cannot execute the program (execve(2), `ENOEXEC`).
    #[error(
        "this machine cannot execute `{}`: it is for another architecture, or a script without a \
         `#!` line",
        argv0.display()
    )]
    WrongFormat {
        /// The program as given in `RunSpec::argv`.
        argv0: OsString,
    },
    /// The user has no permission to execute the program.
    #[error("this user has no permission to execute `{}`", argv0.display())]
    PermissionDenied {
        /// The program as given in `RunSpec::argv`.
        argv0: OsString,
    },
    /// The path of the program goes through a magic link (symlink(7)), or its symbolic links form a
    /// loop.
    #[error(
        "`{}` cannot be executed: its path goes through a magic link of /proc that leaves the image, \
         or its symbolic links form a loop; name the program by its own path",
        argv0.display()
    )]
    MagicLink {
        /// The program as given in `RunSpec::argv`.
        argv0: OsString,
    },
    /// The child's final check failed, so the command was not executed.
    #[error(
        "the sandbox is incomplete: {part} {} not as intended, so the command was not started; \
         please report this with the kernel version",
        if part.ends_with('s') { "are" } else { "is" }
    )]
    NotIsolated {
        /// The part of the sandbox that differs from what was set up.
        part: &'static str,
    },
    /// The arguments and the environment exceed the kernel's limit (execve(2), `E2BIG`).
    #[error("the command `{}` with its environment is longer than the kernel allows", argv0.display())]
    TooLong {
        /// The program as given in `RunSpec::argv`.
        argv0: OsString,
    },
    /// An ordinary user needs a user namespace, and none can be created.
    #[error("cannot create a user namespace: {reason}; {help}")]
    NoUserNamespace {
        /// The cause, such as a missing program or a kernel setting.
        reason: String,
        /// The remedy: what to install or to change.
        help: String,
    },
    /// An operation of the setup failed.
    #[error("cannot {op}")]
    Setup {
        /// The operation, worded to follow "cannot": *mount proc on /proc*.
        op: String,
        /// The error that the kernel returned.
        source: io::Error,
    },
    /// The layers could not be mounted as one rootfs.
    #[error("cannot mount the layers as one root file system: {help}")]
    Overlay {
        /// The likely cause and its remedy.
        help: String,
        /// The error that the kernel returned.
        source: io::Error,
    },
}

impl SandboxError {
    pub(super) fn setup(op: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Setup { op: op.into(), source: source.into() }
    }

    /// Returns the error of a process that could not be started. `EAGAIN` is the limit on processes
    /// (fork(2)), which the text then names.
    pub(super) fn start(op: &str, errno: Errno) -> Self {
        let source = io::Error::from(errno);
        if errno != Errno::AGAIN {
            return Self::setup(op, source);
        }
        let text = format!(
            "{source}; the limit on processes is reached: raise it (`ulimit -u`, or `pids.max` of \
             the cgroup), or stop other processes"
        );
        Self::setup(op, io::Error::new(source.kind(), text))
    }
}
