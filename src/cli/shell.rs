//! `--on-error=shell`: who sits at a terminal looks around where a step has failed.

use std::fmt::Write as _;
use std::io;

use crate::build::{Entrance, SandboxError, Services, Shell, chain};

use super::args::{BuildArgs, OnError};
use super::console;
use super::environment::Environment;
use super::exit::Exit;
use super::progress::Reporter;
use super::report::Complaint;

/// So much of a command is shown.
const MAX_SHOWN: usize = 60;

/// What to do where nothing can be lent.
const NO_SHELL: &str = "the image has no shell, and this machine no busybox to lend: \
`apt-get install busybox-static` (Debian, Ubuntu) or `apk add busybox-static` (Alpine) has one";

/// Refuses a shell that nobody could type at.
pub(super) fn check(args: &BuildArgs, environment: &Environment) -> Result<(), Complaint> {
    if args.on_error == OnError::Fail || environment.is_attended {
        return Ok(());
    }
    let text = "error: --on-error=shell needs a terminal, and standard input or standard error is \
                none: leave it out here; on a terminal, the same build gets to the same step";
    Err(Complaint::new(text, Exit::Usage))
}

/// Opens a shell in what a failed step left, and waits until it is left.
pub(super) fn open(
    entrance: &Entrance,
    services: &Services<'_>,
    environment: &Environment,
    reporter: &Reporter<'_>,
) {
    let shells = entrance.shells(services);
    if shells.is_empty() {
        return reporter.aside(&format!("no shell is opened: {NO_SHELL}"));
    }
    reporter.aside(&banner(entrance));
    for shell in &shells {
        if let Shell::Lent(busybox) = shell {
            let busybox = busybox.display();
            reporter.aside(&format!("  no shell of the image: {busybox} is lent, in /dev/rbuild"));
        }
        let mut stderr = io::stderr();
        let left = console::lend(environment, &mut stderr, |mut visit| {
            visit.env.push(("PS1".to_owned(), prompt(entrance)));
            entrance.shell(services, shell, visit)
        });
        match left {
            Ok(Ok(_left)) => {
                return reporter.aside("left the shell; the build has failed, see above");
            }
            Ok(Err(error)) => reporter.aside(&refused(&error)),
            Err(error) => return reporter.aside(&format!("cannot use the terminal: {error}")),
        }
    }
}

/// Where it is, how to go on, and how to leave.
fn banner(entrance: &Entrance) -> String {
    let user = match entrance.user() {
        "" => "root",
        user => user,
    };
    let mut text =
        format!("------\na shell in {}, as the step left it\n", first_line(entrance.name()));
    let mut line = |name: &str, what: &str| {
        let _written = writeln!(text, "  {name:<8}{what}");
    };
    line(
        "where",
        &format!("{}, as {user}, with the step's mounts, variables and rights", entrance.cwd()),
    );
    if let Some(command) = entrance.command() {
        line("again", &format!("eval \"$RBUILD_COMMAND\" runs {}", first_line(&command)));
    }
    line(
        "leave",
        "`exit` or Ctrl-D; what is changed here is thrown away, and the build has failed",
    );
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
fn prompt(entrance: &Entrance) -> String {
    let user = entrance.user().split(':').next().unwrap_or_default();
    let sign = if matches!(user, "" | "0" | "root") { '#' } else { '$' };
    format!("(rbuild) $PWD {sign} ")
}

fn refused(error: &SandboxError) -> String {
    format!("the shell cannot be started: {}", chain(error))
}
