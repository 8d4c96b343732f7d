//! Debug sessions: a shell or another command in a step's rootfs, before the step runs or after it
//! failed.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use crate::plan::RunOperation;
use crate::sandbox::{AttachOptions, Exit, Mount, Output, SandboxError, Streams};

use crate::executor::mounts::mount_point::IN_ROOT;
use crate::executor::steps::step_root::{SessionCommand, StepRoot};
use crate::executor::{Services, Stream};

use super::fallback_shell;

/// Variable that holds the step's command, quoted for a shell.
const COMMAND_VARIABLE: &str = "RBUILD_COMMAND";
/// Maximum length of a variable: 128 KiB in the kernel (`MAX_ARG_STRLEN`, execve(2)), with space
/// for its name.
const MAX_VARIABLE_BYTES: usize = 120 << 10;
/// Shells in order of preference for interactive use.
const SHELLS: [&str; 6] =
    ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh", "/bin/ash", "/busybox/sh"];
/// Shells of a SHELL instruction that are as good for interactive use.
const INTERACTIVE_SHELLS: [&str; 5] = ["zsh", "fish", "ksh", "mksh", "bash"];

/// A rootfs that commands can be run in. All changes in it are discarded when this value is
/// dropped.
#[derive(Debug)]
pub struct DebugSession {
    name: String,
    argv: Vec<String>,
    /// True if `argv` is the step's command, which the user may want to run.
    has_command: bool,
    cwd: String,
    user: String,
    root: StepRoot,
}

/// A shell for a debug session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shell {
    /// Path of a shell of the image.
    Image(String),
    /// The busybox of this machine, a static program. Its copy in memory is mounted outside the
    /// image's directories.
    Fallback(PathBuf),
}

/// Input and output of a command in a debug session.
pub struct SessionIo<'a> {
    /// Standard input; a terminal in raw mode if `resized` is given.
    pub input: BorrowedFd<'a>,
    /// Given if the command gets a terminal. Becomes readable when the size of `input` changes, and
    /// never blocks.
    pub resized: Option<BorrowedFd<'a>>,
    /// Variables in addition to those of the step.
    pub env: Vec<(String, String)>,
    /// Receives output. The output of a terminal is standard output.
    pub show: &'a mut dyn FnMut(Stream, &[u8]),
}

impl std::fmt::Debug for SessionIo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionIo").field("resized", &self.resized).finish_non_exhaustive()
    }
}

impl DebugSession {
    pub(in crate::executor) fn new(
        name: String,
        operation: &RunOperation,
        root: StepRoot,
    ) -> Box<Self> {
        Box::new(Self {
            name,
            argv: operation.argv.clone(),
            has_command: true,
            cwd: operation.cwd.clone(),
            user: operation.user.clone(),
            root,
        })
    }

    /// Returns the session of an inserted RUN, which has no command of its own.
    pub(in crate::executor) fn without_command(self: Box<Self>) -> Box<Self> {
        Box::new(Self { has_command: false, ..*self })
    }

    /// Returns the image or the step, as in `[build 2/5] RUN make`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the working directory.
    #[must_use]
    pub fn cwd(&self) -> &str {
        &self.cwd
    }

    /// Returns USER as written in the Dockerfile; empty for root.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the step's command, quoted for a shell; `None` without one, or if it is too long for
    /// a variable.
    #[must_use]
    pub fn command(&self) -> Option<String> {
        let words: Vec<String> = self.argv.iter().map(|word| quoted(word)).collect();
        let command = words.join(" ");
        (self.has_command && command.len() <= MAX_VARIABLE_BYTES).then_some(command)
    }

    /// Returns the available shells, best first: one of the image, and the fallback shell.
    #[must_use]
    pub fn shells(&self, services: &Services<'_>) -> Vec<Shell> {
        let own = self.image_shell();
        let fallback = fallback_shell::find(services.environment.get("PATH").map(String::as_str));
        own.into_iter().chain(fallback.map(Shell::Fallback)).collect()
    }

    fn image_shell(&self) -> Option<Shell> {
        if let Some(first) = self.argv.first()
            && Path::new(first)
                .file_name()
                .is_some_and(|name| INTERACTIVE_SHELLS.iter().any(|s| name == *s))
            && first.starts_with('/')
            && self.has(first)
        {
            return Some(Shell::Image(first.clone()));
        }
        SHELLS.into_iter().find(|shell| self.has(shell)).map(|shell| Shell::Image(shell.to_owned()))
    }

    /// Returns whether the rootfs has such an executable file.
    fn has(&self, path: &str) -> bool {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), IN_ROOT);
        let about = file.and_then(rustix::fs::fstat);
        about.is_ok_and(|about| {
            let is_file = rustix::fs::FileType::from_raw_mode(about.st_mode).is_file();
            is_file && about.st_mode & 0o111 != 0
        })
    }

    /// Runs a shell and waits for its end.
    ///
    /// # Errors
    /// Those of [`sandbox::run`](crate::sandbox::run()).
    pub fn shell(
        &self,
        services: &Services<'_>,
        shell: &Shell,
        mut io: SessionIo<'_>,
    ) -> Result<Exit, SandboxError> {
        let mut mounts = Vec::new();
        let program = match shell {
            Shell::Image(path) => path,
            Shell::Fallback(busybox) => {
                mounts.push(fallback_shell::mount(busybox)?);
                let path = self.root.variable("PATH").unwrap_or_default();
                io.env.push(("PATH".to_owned(), fallback_shell::path_with(&path)));
                fallback_shell::PROGRAM
            }
        };
        if let Some(command) = self.command() {
            io.env.push((COMMAND_VARIABLE.to_owned(), command));
        }
        self.run_command(services, vec![program.into()], mounts, io)
    }

    /// Runs a command and waits for its end.
    ///
    /// # Errors
    /// Those of [`sandbox::run`](crate::sandbox::run()).
    pub fn run(
        &self,
        services: &Services<'_>,
        argv: Vec<OsString>,
        io: SessionIo<'_>,
    ) -> Result<Exit, SandboxError> {
        self.run_command(services, argv, Vec::new(), io)
    }

    fn run_command(
        &self,
        services: &Services<'_>,
        argv: Vec<OsString>,
        mounts: Vec<Mount>,
        io: SessionIo<'_>,
    ) -> Result<Exit, SandboxError> {
        // A failed step does not prevent a session. An interrupt by the caller does.
        if !services.cancel.undo_failure() {
            return Ok(Exit::Signal(Signal::KILL.as_raw()));
        }
        let SessionIo { input, resized, env, show } = io;
        let env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let streams = if resized.is_some() { Streams::Terminal } else { Streams::Pipes };
        let attending = AttachOptions {
            cancel: Some(services.cancel.as_fd()),
            input: Some(input),
            resized,
            ..AttachOptions::default()
        };
        let command = SessionCommand { argv, env, mounts, streams };
        self.root.run_in_session(command, attending, &mut |output, bytes| match output {
            Output::Stdout => show(Stream::Stdout, bytes),
            Output::Stderr => show(Stream::Stderr, bytes),
        })
    }
}

/// Returns a word quoted so that a shell leaves it unchanged.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        for (word, want) in [
            ("/bin/sh", "/bin/sh"),
            ("make test", "'make test'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$HOME", "'$HOME'"),
            ("~", "'~'"),
        ] {
            assert_eq!(quoted(word), want);
        }
    }
}
