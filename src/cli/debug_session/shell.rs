//! Shells and commands in the root file system of a step: after a failure (`--on-error=shell`), and for
//! `rbuild enter`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use crate::cli::args::build::{BuildArgs, OnError};
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::progress::Reporter;
use crate::executor::{CommandExit, DebugSession, SandboxError, Services, SessionIo, Shell};

use super::console;

/// Maximum length of a command that is shown.
const MAX_SHOWN: usize = 60;

/// The message if there is neither a shell nor a static busybox.
const NO_SHELL: &str = "the image has no shell, and this machine has no static busybox to use instead: \
    install one with `apt-get install busybox-static` (Debian, Ubuntu) or `apk add busybox-static` (Alpine)";

/// Refuses `--on-error=shell` without a terminal.
pub(crate) fn check(args: &BuildArgs, environment: &Environment) -> Result<(), CliError> {
    if args.on_error == OnError::Fail || environment.is_attended {
        return Ok(());
    }
    let text = "error: --on-error=shell needs a terminal as standard input and standard error: \
                leave it out here; on a terminal, `rbuild enter --step STAGE:N CONTEXT` enters the same step";
    Err(CliError::new(text, Exit::Usage))
}

/// Runs shells and commands in a debug session.
#[derive(Clone, Copy)]
pub(crate) struct SessionRunner<'a> {
    pub(crate) services: &'a Services<'a>,
    pub(crate) environment: &'a Environment,
    pub(crate) reporter: &'a Reporter<'a>,
}

impl SessionRunner<'_> {
    /// Opens a shell in the file system of a failed step, and waits for its end.
    pub(crate) fn after_failure(self, session: &DebugSession) {
        let banner = || self.reporter.aside(&banner(session, SessionKind::AfterFailure));
        let done = self.shell(session, banner, &|enter| {
            console::attach_terminal(self.environment, &mut io::stderr(), enter)
        });
        match done {
            Ok(_left) => self.reporter.aside("shell closed; the build has failed, see above"),
            Err(complaint) => self.reporter.aside(&complaint.to_string()),
        }
    }

    /// Runs a command, or a shell without one. Returns the exit status.
    pub(crate) fn run(self, session: &DebugSession, command: &[OsString]) -> Result<u8, CliError> {
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let attach: &AttachAndStart<'_> = &|enter| {
            if is_terminal {
                console::attach_terminal(self.environment, &mut io::stdout(), enter)
            } else {
                Ok(console::attach_streams(self.services.cancel, enter))
            }
        };
        if command.is_empty() {
            let greet = || {
                if is_terminal {
                    self.reporter.aside(&banner(session, SessionKind::Enter));
                }
            };
            return self.shell(session, greet, attach);
        }
        let argv = command.to_vec();
        let done = attach(&mut |visit| session.run(self.services, argv.clone(), visit));
        self.status(done.map_err(no_terminal)?)
    }

    /// Runs the first shell that can be started.
    fn shell(
        self,
        session: &DebugSession,
        greet: impl FnOnce(),
        attach: &AttachAndStart<'_>,
    ) -> Result<u8, CliError> {
        let shells = session.shells(self.services);
        if shells.is_empty() {
            return Err(CliError::new(format!("error: {NO_SHELL}"), Exit::Environment));
        }
        greet();
        let mut refused = CliError::reported(Exit::Environment);
        for shell in &shells {
            if let Shell::Fallback(busybox) = shell {
                let busybox = busybox.display();
                let text = format!("the image has no shell: using {busybox}, as /dev/rbuild");
                self.reporter.aside(&text);
            }
            let done = attach(&mut |mut visit| {
                visit.env.push(("PS1".to_owned(), prompt(session)));
                session.shell(self.services, shell, visit)
            });
            match self.status(done.map_err(no_terminal)?) {
                Ok(status) => return Ok(status),
                Err(complaint) => refused = complaint,
            }
            if shells.len() > 1 && matches!(shell, Shell::Image(_)) {
                self.reporter.aside(&refused.to_string());
            }
        }
        Err(refused)
    }

    /// Returns the exit status as shells define it: 127 and 126 for commands that cannot be started, 128
    /// plus the number of a signal (POSIX.1-2024, XCU 2.8.2).
    fn status(self, done: Result<CommandExit, SandboxError>) -> Result<u8, CliError> {
        match done {
            Ok(CommandExit::Code(code)) => Ok(code),
            Ok(CommandExit::Signal(_)) if self.services.cancel.is_interrupted() => {
                Ok(Exit::Interrupted.code())
            }
            Ok(CommandExit::Signal(signal)) => {
                Ok(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX))
            }
            Err(error) => {
                let exit = match &error {
                    SandboxError::NotFound { .. } | SandboxError::InterpreterNotFound { .. } => {
                        Exit::Command(127)
                    }
                    SandboxError::PermissionDenied { .. }
                    | SandboxError::MagicLink { .. }
                    | SandboxError::WrongFormat { .. } => Exit::Command(126),
                    SandboxError::TooLong { .. }
                    | SandboxError::NoUserNamespace { .. }
                    | SandboxError::NoIsolation { .. }
                    | SandboxError::Setup { .. }
                    | SandboxError::NotIsolated { .. }
                    | SandboxError::MemoryLimit { .. }
                    | SandboxError::TimedOut
                    | SandboxError::NoPrivateNetwork { .. }
                    | SandboxError::NoResourceLimit { .. }
                    | SandboxError::Overlay { .. } => Exit::Environment,
                };
                Err(CliError::from_error(&error, exit))
            }
        }
    }
}

/// Starts a command with an attached terminal or streams.
type StartCommand<'a> = dyn FnMut(SessionIo<'_>) -> Result<CommandExit, SandboxError> + 'a;
/// Attaches a terminal or streams, and starts a command with them.
type AttachAndStart<'a> =
    dyn Fn(&mut StartCommand<'_>) -> io::Result<Result<CommandExit, SandboxError>> + 'a;

fn no_terminal(error: io::Error) -> CliError {
    CliError::new(format!("error: cannot use the terminal: {error}"), Exit::Environment)
}

/// The reason for a shell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SessionKind {
    AfterFailure,
    Enter,
}

/// Returns the lines above the prompt: where the shell is, how to run the command, how to leave.
fn banner(session: &DebugSession, kind: SessionKind) -> String {
    let user = match session.user() {
        "" => "root",
        user => user,
    };
    let name = first_line(session.name());
    let command = session.command();
    let head = match (kind, &command) {
        (SessionKind::AfterFailure, _) => format!("a shell in {name}, as the step left it"),
        (SessionKind::Enter, Some(_)) => format!("a shell in {name}, before it runs"),
        (SessionKind::Enter, None) => format!("a shell in {name}"),
    };
    let mut text = format!("------\n{head}\n");
    let mut line = |name: &str, what: &str| {
        let _written = writeln!(text, "  {name:<8}{what}");
    };
    let with =
        if command.is_some() { ", with the step's mounts, variables and rights" } else { "" };
    line("where", &format!("{}, as {user}{with}", session.cwd()));
    if let Some(command) = command {
        let run = if kind == SessionKind::AfterFailure { "again" } else { "run" };
        line(run, &format!("eval \"$RBUILD_COMMAND\" runs {}", first_line(&command)));
    }
    let end = if kind == SessionKind::AfterFailure { ", and the build has failed" } else { "" };
    line("leave", &format!("`exit` or Ctrl-D; changes are discarded{end}"));
    text.push_str("------");
    text
}

/// Returns the first line of a text, truncated.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or(line)),
        None if line.len() < text.len() => format!("{line}…"),
        None => line.to_owned(),
    }
}

/// Returns a prompt (PS1) with the working directory.
fn prompt(session: &DebugSession) -> String {
    let user = session.user().split(':').next().unwrap_or_default();
    let sign = if matches!(user, "" | "0" | "root") { '#' } else { '$' };
    format!("(rbuild) $PWD {sign} ")
}
