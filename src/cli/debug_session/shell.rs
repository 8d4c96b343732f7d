//! Shells and commands in a step's rootfs: where it has failed (`--on-error=shell`), or where somebody
//! wants to look (`rbuild enter`).

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

/// So much of a command is shown.
const MAX_SHOWN: usize = 60;

/// What to do where nothing can be lent.
const NO_SHELL: &str = "the image has no shell, and this machine no busybox to lend: \
`apt-get install busybox-static` (Debian, Ubuntu) or `apk add busybox-static` (Alpine) has one";

/// Refuses a shell that nobody could type at.
pub(crate) fn check(args: &BuildArgs, environment: &Environment) -> Result<(), CliError> {
    if args.on_error == OnError::Fail || environment.is_attended {
        return Ok(());
    }
    let text = "error: --on-error=shell needs a terminal, and standard input or standard error is \
                none: leave it out here; on a terminal, `rbuild enter --step STAGE:N CONTEXT` gets to the same step";
    Err(CliError::new(text, Exit::Usage))
}

/// Who lets others in: to look around, or to run a command.
#[derive(Clone, Copy)]
pub(crate) struct Host<'a> {
    pub(crate) services: &'a Services<'a>,
    pub(crate) environment: &'a Environment,
    pub(crate) reporter: &'a Reporter<'a>,
}

impl Host<'_> {
    /// Opens a shell in what a failed step left, and waits until it is left.
    pub(crate) fn after_failure(self, entrance: &DebugSession) {
        let banner = || self.reporter.aside(&banner(entrance, Why::Failed));
        let done = self.shell(entrance, banner, &|enter| {
            console::lend(self.environment, &mut io::stderr(), enter)
        });
        match done {
            Ok(_left) => self.reporter.aside("left the shell; the build has failed, see above"),
            Err(complaint) => self.reporter.aside(&complaint.to_string()),
        }
    }

    /// Runs a command, or a shell where there is none; gives its exit status.
    pub(crate) fn visit(
        self,
        entrance: &DebugSession,
        command: &[OsString],
    ) -> Result<u8, CliError> {
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let through: &Through<'_> = &|enter| {
            if is_terminal {
                console::lend(self.environment, &mut io::stdout(), enter)
            } else {
                Ok(console::pipe(self.services.cancel, enter))
            }
        };
        if command.is_empty() {
            let greet = || {
                if is_terminal {
                    self.reporter.aside(&banner(entrance, Why::Asked));
                }
            };
            return self.shell(entrance, greet, through);
        }
        let argv = command.to_vec();
        let done = through(&mut |visit| entrance.run(self.services, argv.clone(), visit));
        self.status(done.map_err(no_terminal)?)
    }

    /// Opens the first shell that can be started.
    fn shell(
        self,
        entrance: &DebugSession,
        greet: impl FnOnce(),
        through: &Through<'_>,
    ) -> Result<u8, CliError> {
        let shells = entrance.shells(self.services);
        if shells.is_empty() {
            return Err(CliError::new(format!("error: {NO_SHELL}"), Exit::Environment));
        }
        greet();
        let mut refused = CliError::said(Exit::Environment);
        for shell in &shells {
            if let Shell::Fallback(busybox) = shell {
                let busybox = busybox.display();
                let text = format!("no shell of the image: {busybox} is lent, in /dev/rbuild");
                self.reporter.aside(&text);
            }
            let done = through(&mut |mut visit| {
                visit.env.push(("PS1".to_owned(), prompt(entrance)));
                entrance.shell(self.services, shell, visit)
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

    /// The exit status that a shell would give; and what it would say of what cannot be started.
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
                    | SandboxError::Setup { .. }
                    | SandboxError::NotIsolated { .. }
                    | SandboxError::Overlay { .. } => Exit::Environment,
                };
                Err(CliError::from_error(&error, exit))
            }
        }
    }
}

/// What a command is let in with.
type Enter<'a> = dyn FnMut(SessionIo<'_>) -> Result<CommandExit, SandboxError> + 'a;
/// Connects a command with the caller.
type Through<'a> = dyn Fn(&mut Enter<'_>) -> io::Result<Result<CommandExit, SandboxError>> + 'a;

fn no_terminal(error: io::Error) -> CliError {
    CliError::new(format!("error: cannot use the terminal: {error}"), Exit::Environment)
}

/// Why somebody is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Failed,
    Asked,
}

/// Where it is, how to go on, and how to leave.
fn banner(entrance: &DebugSession, why: Why) -> String {
    let user = match entrance.user() {
        "" => "root",
        user => user,
    };
    let name = first_line(entrance.name());
    let command = entrance.command();
    let head = match (why, &command) {
        (Why::Failed, _) => format!("a shell in {name}, as the step left it"),
        (Why::Asked, Some(_)) => format!("a shell in {name}, before it runs"),
        (Why::Asked, None) => format!("a shell in {name}"),
    };
    let mut text = format!("------\n{head}\n");
    let mut line = |name: &str, what: &str| {
        let _written = writeln!(text, "  {name:<8}{what}");
    };
    let with =
        if command.is_some() { ", with the step's mounts, variables and rights" } else { "" };
    line("where", &format!("{}, as {user}{with}", entrance.cwd()));
    if let Some(command) = command {
        let run = if why == Why::Failed { "again" } else { "run" };
        line(run, &format!("eval \"$RBUILD_COMMAND\" runs {}", first_line(&command)));
    }
    let end = if why == Why::Failed { ", and the build has failed" } else { "" };
    line("leave", &format!("`exit` or Ctrl-D; what is changed here is thrown away{end}"));
    text.push_str("------");
    text
}

/// The beginning of a text, in one line.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or(line)),
        None if line.len() < text.len() => format!("{line}…"),
        None => line.to_owned(),
    }
}

/// A prompt that says where one is, in shells that read it from their environment.
fn prompt(entrance: &DebugSession) -> String {
    let user = entrance.user().split(':').next().unwrap_or_default();
    let sign = if matches!(user, "" | "0" | "root") { '#' } else { '$' };
    format!("(rbuild) $PWD {sign} ")
}
