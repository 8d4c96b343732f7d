//! Exit codes. They are a stable interface: scripts depend on them.

use std::process::ExitCode;

/// Outcome of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: the command succeeded.
    Success,
    /// 1: the Dockerfile has an error, or a step failed.
    Build,
    /// 2: the command line is wrong.
    Usage,
    /// 3: the store, a registry, the disk or the kernel failed.
    Environment,
    /// 124: `--timeout` or `--step-timeout` has passed, the status of timeout(1).
    TimedOut,
    /// 130: interrupted, the status that shells give for SIGINT.
    Interrupted,
    /// The exit code of the command that `enter` ran.
    Command(u8),
}

impl Exit {
    /// Returns the exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Build => 1,
            Self::Usage => 2,
            Self::Environment => 3,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
            Self::Command(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn exit_codes_are_as_documented() {
        let all = [Exit::Success, Exit::Build, Exit::Usage, Exit::Environment];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3]);
        assert_eq!([Exit::TimedOut, Exit::Interrupted].map(Exit::code), [124, 130]);
    }
}
