//! Commands, directories and Dockerfiles that are not there: what may have been meant, and what was
//! found instead.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue};

use crate::cli::args;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::images::config_text::one_line;
use crate::diag::nearest;

use super::default_command::{command_at, default_command_at};
use super::{docker_commands, foreign_options};

/// A first word that is neither a command nor a directory, but nearly a command.
pub(crate) fn command(typed: &[OsString]) -> Option<CliError> {
    let at = default_command_at(typed)?;
    let word = typed.get(at)?.to_str()?;
    if word.contains(['-', '/', '.', ':', '@']) || Path::new(word).exists() {
        return None;
    }
    let rest: Vec<&str> = typed.iter().skip(at).filter_map(|word| word.to_str()).collect();
    if let Some(tip) = docker_commands::tip(&rest) {
        let shown = one_line(word);
        let text = format!(
            "error: there is no command `{shown}`, and no directory of that name\nhelp: {tip}"
        );
        return Some(CliError::new(text, Exit::Usage));
    }
    let commands = args::command();
    let names = commands.get_subcommands().map(clap::Command::get_name);
    let near = nearest(word, names)?;
    let words = typed.iter().enumerate().skip(1).map(|(number, other)| {
        if number == at { near.to_owned() } else { other.to_string_lossy().into_owned() }
    });
    let meant = words.collect::<Vec<_>>().join(" ");
    Some(CliError::new(
        format!(
            "error: there is no command `{word}`, and no directory of that name\n\
             help: did you mean `rbuild {meant}`?"
        ),
        Exit::Usage,
    ))
}

/// An error of the command line: without a context, it says what the dot is; with an option of another
/// tool, what rbuild has in its place.
pub(crate) fn context(mut error: clap::Error, typed: &[OsString]) -> clap::Error {
    let is_build = command_at(typed).and_then(|at| typed.get(at)).is_some_and(|it| it == "build");
    if error.kind() == clap::error::ErrorKind::MissingRequiredArgument && is_build {
        let words = typed.iter().skip(1).filter(|word| *word != "build");
        let words: String = words.map(|word| format!("{} ", word.to_string_lossy())).collect();
        let tip = format!(
            "the context is the directory that COPY takes files from, mostly `.`: `rbuild {words}.`"
        );
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tips);
    }
    foreign_options::explained(error)
}
