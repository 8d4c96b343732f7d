//! Suggestions for command lines that cannot be parsed.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue};

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::images::config_text::one_line;
use crate::diag::nearest;

use super::default_command::{COMMANDS, command_at, default_command_at};
use super::{docker_commands, foreign_options};

/// Returns an error if the first word is neither a command nor a path, but similar to a command.
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
            "error: unknown command `{shown}`, and no directory has that name\nhelp: {tip}"
        );
        return Some(CliError::new(text, Exit::Usage));
    }
    let near = nearest(word, COMMANDS.iter().copied())?;
    let words = typed.iter().enumerate().skip(1).map(|(number, other)| {
        if number == at { near.to_owned() } else { other.to_string_lossy().into_owned() }
    });
    let meant = words.collect::<Vec<_>>().join(" ");
    Some(CliError::new(
        format!(
            "error: unknown command `{word}`, and no directory has that name\n\
             help: did you mean `rbuild {meant}`?"
        ),
        Exit::Usage,
    ))
}

/// Adds suggestions to an error of clap: for a missing context, and for options of other tools.
pub(crate) fn context(mut error: clap::Error, typed: &[OsString]) -> clap::Error {
    let is_build = command_at(typed).and_then(|at| typed.get(at)).is_some_and(|it| it == "build");
    if error.kind() == clap::error::ErrorKind::MissingRequiredArgument && is_build {
        let words = typed.iter().skip(1).filter(|word| *word != "build");
        let words: String = words.map(|word| format!("{} ", word.to_string_lossy())).collect();
        let tip = format!(
            "the context is the directory that COPY reads from, usually `.`: `rbuild {words}.`"
        );
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tips);
    }
    foreign_options::explained(error)
}
