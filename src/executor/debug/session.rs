//! A way into a step's rootfs: a shell, or another command, where the step's own would run or has
//! failed.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use crate::plan::RunOperation;
use crate::sandbox::{Attending, Exit, Mount, Output, SandboxError, Streams};

use crate::executor::mounts::mount_point::IN_ROOT;
use crate::executor::steps::step_root::{StepRoot, Visitor};
use crate::executor::{Services, Stream};

use super::fallback_shell;

/// The variable that holds the step's command, quoted for a shell.
const COMMAND_VARIABLE: &str = "RBUILD_COMMAND";
/// A variable is no longer than the kernel takes (`MAX_ARG_STRLEN`), with space for its name.
const MAX_VARIABLE_BYTES: usize = 120 << 10;
/// Shells that are nicer to type at, nicest first.
const SHELLS: [&str; 6] =
    ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh", "/bin/ash", "/busybox/sh"];
/// Shells of a SHELL instruction that are as nice.
const OF_SHELL: [&str; 5] = ["zsh", "fish", "ksh", "mksh", "bash"];

/// A rootfs that can be entered. Whatever is done in it is gone with this value.
#[derive(Debug)]
pub struct Entrance {
    name: String,
    argv: Vec<String>,
    /// Whether it is the step's command, which somebody may want to run.
    is_own: bool,
    cwd: String,
    user: String,
    root: StepRoot,
}

/// A shell for a rootfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shell {
    /// One of the image's.
    Own(String),
    /// The busybox of this machine, a program without libraries: its copy in memory is mounted
    /// outside of the image's directories.
    Lent(PathBuf),
}

/// Who enters.
pub struct Visit<'a> {
    /// What is read: a terminal that passes on every key as it is typed, if `resized` is given.
    pub input: BorrowedFd<'a>,
    /// Given if the command gets a terminal: becomes readable when `input` has another size; it never
    /// blocks.
    pub resized: Option<BorrowedFd<'a>>,
    /// Variables beside those of the step.
    pub env: Vec<(String, String)>,
    /// Gets what is written. What a terminal shows is standard output.
    pub show: &'a mut dyn FnMut(Stream, &[u8]),
}

impl std::fmt::Debug for Visit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit").field("resized", &self.resized).finish_non_exhaustive()
    }
}

impl Entrance {
    pub(in crate::executor) fn new(
        name: String,
        operation: &RunOperation,
        root: StepRoot,
    ) -> Box<Self> {
        Box::new(Self {
            name,
            argv: operation.argv.clone(),
            is_own: true,
            cwd: operation.cwd.clone(),
            user: operation.user.clone(),
            root,
        })
    }

    /// The same, where no step has a command.
    pub(in crate::executor) fn without_command(self: Box<Self>) -> Box<Self> {
        Box::new(Self { is_own: false, ..*self })
    }

    /// Which image or step it is, as in `[build 2/5] RUN make`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The working directory.
    #[must_use]
    pub fn cwd(&self) -> &str {
        &self.cwd
    }

    /// USER as it is written; empty for root.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The step's command, as a shell reads it; nothing if there is none, or it is too long for a
    /// variable.
    #[must_use]
    pub fn command(&self) -> Option<String> {
        let words: Vec<String> = self.argv.iter().map(|word| quoted(word)).collect();
        let command = words.join(" ");
        (self.is_own && command.len() <= MAX_VARIABLE_BYTES).then_some(command)
    }

    /// The shells that there are, the nicest first: one of the image's own, and one that is lent.
    #[must_use]
    pub fn shells(&self, services: &Services<'_>) -> Vec<Shell> {
        let own = self.own_shell();
        let lent = fallback_shell::find(services.environment.get("PATH").map(String::as_str));
        own.into_iter().chain(lent.map(Shell::Lent)).collect()
    }

    fn own_shell(&self) -> Option<Shell> {
        if let Some(first) = self.argv.first()
            && Path::new(first).file_name().is_some_and(|name| OF_SHELL.iter().any(|s| name == *s))
            && first.starts_with('/')
            && self.has(first)
        {
            return Some(Shell::Own(first.clone()));
        }
        SHELLS.into_iter().find(|shell| self.has(shell)).map(|shell| Shell::Own(shell.to_owned()))
    }

    /// Whether there is such a file in the rootfs.
    fn has(&self, path: &str) -> bool {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), IN_ROOT);
        let about = file.and_then(rustix::fs::fstat);
        about.is_ok_and(|about| {
            let is_file = rustix::fs::FileType::from_raw_mode(about.st_mode).is_file();
            is_file && about.st_mode & 0o111 != 0
        })
    }

    /// Opens a shell, and waits until it is left.
    ///
    /// # Errors
    /// Those of [`sandbox::run`](crate::sandbox::run()).
    pub fn shell(
        &self,
        services: &Services<'_>,
        shell: &Shell,
        mut visit: Visit<'_>,
    ) -> Result<Exit, SandboxError> {
        let mut mounts = Vec::new();
        let program = match shell {
            Shell::Own(path) => path,
            Shell::Lent(busybox) => {
                mounts.push(fallback_shell::mount(busybox)?);
                let path = self.root.variable("PATH").unwrap_or_default();
                visit.env.push(("PATH".to_owned(), fallback_shell::path_with(&path)));
                fallback_shell::PROGRAM
            }
        };
        if let Some(command) = self.command() {
            visit.env.push((COMMAND_VARIABLE.to_owned(), command));
        }
        self.enter(services, vec![program.into()], mounts, visit)
    }

    /// Runs a command, and waits for its end.
    ///
    /// # Errors
    /// Those of [`sandbox::run`](crate::sandbox::run()).
    pub fn run(
        &self,
        services: &Services<'_>,
        argv: Vec<OsString>,
        visit: Visit<'_>,
    ) -> Result<Exit, SandboxError> {
        self.enter(services, argv, Vec::new(), visit)
    }

    fn enter(
        &self,
        services: &Services<'_>,
        argv: Vec<OsString>,
        mounts: Vec<Mount>,
        visit: Visit<'_>,
    ) -> Result<Exit, SandboxError> {
        // That a step failed is no reason to leave; that the caller wants the end is.
        if !services.stop.take_back() {
            return Ok(Exit::Signal(Signal::KILL.as_raw()));
        }
        let Visit { input, resized, env, show } = visit;
        let env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let streams = if resized.is_some() { Streams::Terminal } else { Streams::Pipes };
        let attending =
            Attending { cancel: Some(services.stop.as_fd()), input: Some(input), resized };
        let visitor = Visitor { argv, env, mounts, streams };
        self.root.visit(visitor, attending, &mut |output, bytes| match output {
            Output::Stdout => show(Stream::Stdout, bytes),
            Output::Stderr => show(Stream::Stderr, bytes),
        })
    }
}

/// A word that a shell reads as it is.
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
