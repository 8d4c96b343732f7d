//! Exit codes. They are part of the interface: scripts depend on them.

use std::process::ExitCode;

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: all was done.
    Success,
    /// 1: the Dockerfile has a mistake, or a step failed.
    Build,
    /// 2: the command line makes no sense.
    Usage,
    /// 3: something around the build failed: the store, a registry, the disk, the kernel.
    Environment,
    /// 130: interrupted, as shells say it for SIGINT.
    Interrupted,
    /// As a command ended that `enter` ran.
    Command(u8),
}

impl Exit {
    /// The number that the caller sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Build => 1,
            Self::Usage => 2,
            Self::Environment => 3,
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
    fn exit_codes_are_those_that_the_readme_gives() {
        let all = [Exit::Success, Exit::Build, Exit::Usage, Exit::Environment, Exit::Interrupted];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 130]);
    }
}
