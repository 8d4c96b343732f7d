//! The error of this module, and what turns kernel errors into it.

use std::ffi::OsString;
use std::io;

use rustix::io::Errno;

use super::isolation::{IsolationChoice, Refusal};

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
    /// The machine permits no isolation that the user asks for.
    #[error("{}", no_isolation(*choice, refusals))]
    NoIsolation {
        /// The isolation that was asked for.
        choice: IsolationChoice,
        /// The kinds that were tried, at least one, the strongest first.
        refusals: Vec<Refusal>,
    },
    /// A limit on resources cannot be enforced here.
    #[error("cannot enforce {option}: {reason}")]
    NoResourceLimit {
        /// The option of the limit.
        option: String,
        /// The control group or file that is missing, with the kernel's error.
        reason: String,
    },
    /// Steps cannot have a network of their own.
    #[error("cannot make a private network: {reason}; {help}")]
    NoPrivateNetwork {
        /// The cause: a missing program, the kernel's error, or a message of pasta.
        reason: String,
        /// The remedy.
        help: String,
    },
    /// The command was killed because its changes took more memory than [`AttachOptions::memory`]
    /// allows.
    ///
    /// [`AttachOptions::memory`]: super::AttachOptions::memory
    #[error("the changes of the command take more than {} MiB of memory", max_bytes >> 20)]
    MemoryLimit {
        /// The limit, bytes.
        max_bytes: u64,
    },
    /// The command was killed at its deadline.
    #[error("the command took too long")]
    TimedOut,
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

/// Returns the text of [`SandboxError::NoIsolation`]: one line for a single cause, else one each.
fn no_isolation(choice: IsolationChoice, refusals: &[Refusal]) -> String {
    let head = if choice == IsolationChoice::Auto {
        "no isolation of steps is permitted here".to_owned()
    } else {
        format!("isolation `{}` is not permitted here", choice.name())
    };
    match refusals {
        [only] => format!("{head}: {only}"),
        [many, one] if (&many.reason, &many.help) == (&one.reason, &one.help) => {
            format!("{head}: {many}")
        }
        several => {
            let lines = several.iter().map(|each| format!("\n  {}: {each}", each.isolation.name()));
            format!("{head}:{}", lines.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::isolation::Isolation;
    use super::*;

    fn refused(isolation: Isolation, tried: &str, help: &str) -> Refusal {
        let reason = "Operation not permitted (os error 1)".to_owned();
        Refusal { isolation, tried: tried.to_owned(), reason, help: help.to_owned() }
    }

    #[test]
    fn refused_isolation_names_attempts_errors_and_remedies() {
        let chroot = refused(Isolation::Chroot, "chroot(2)", "run rbuild as root");
        let text = |choice, refusals: &[&Refusal]| {
            let refusals = refusals.iter().copied().cloned().collect();
            SandboxError::NoIsolation { choice, refusals }.to_string()
        };
        assert_eq!(
            text(IsolationChoice::Chroot, &[&chroot]),
            "isolation `chroot` is not permitted here: chroot(2): Operation not permitted (os error 1); \
             run rbuild as root"
        );
        let many = refused(Isolation::Namespace, "a user namespace with many ids", "--privileged");
        let one = refused(Isolation::SingleId, "a user namespace with one id", "--privileged");
        assert_eq!(
            text(IsolationChoice::Namespace, &[&many, &one]),
            "isolation `namespace` is not permitted here: a user namespace with many ids: Operation not \
             permitted (os error 1); --privileged"
        );
        insta::assert_snapshot!(text(IsolationChoice::Auto, &[&many, &one, &chroot]), @r"
        no isolation of steps is permitted here:
          namespace: a user namespace with many ids: Operation not permitted (os error 1); --privileged
          namespace (one id): a user namespace with one id: Operation not permitted (os error 1); --privileged
          chroot: chroot(2): Operation not permitted (os error 1); run rbuild as root
        ");
    }
}
