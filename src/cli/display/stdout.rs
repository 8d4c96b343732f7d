//! Standard output, where results go that were asked for.

use std::fmt::Arguments;
use std::io::{self, Write as _};
use std::sync::OnceLock;

use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;

use super::text::{shown, shown_json};

/// Why not all was printed.
static ERROR: OnceLock<io::Error> = OnceLock::new();

/// Prints lines for people, as `println!` does; but without what has an effect on a terminal, whoever's
/// words they are. That nobody reads any more, as behind `| head`, is no reason to fail, and other
/// errors are told at the end.
macro_rules! say {
    () => { $crate::cli::display::stdout::print(format_args!("")) };
    ($($text:tt)*) => { $crate::cli::display::stdout::print(format_args!($($text)*)) };
}
pub(crate) use say;

/// Prints lines without colours.
pub(crate) fn print(text: Arguments<'_>) {
    text.to_string().split('\n').for_each(|text| line(text, false));
}

/// Prints a line, with its colours if `colours`.
pub(crate) fn line(text: &str, colours: bool) {
    exact(&shown(text, colours));
}

/// Prints lines, with their colours if `colours`.
pub(crate) fn lines(text: &str, colours: bool) {
    text.lines().for_each(|text| line(text, colours));
}

/// Prints a document over several lines.
pub(crate) fn json(document: &Value) {
    exact(&shown_json(&format!("{document:#}")));
}

/// Prints a document in one line.
pub(crate) fn json_line(document: &Value) {
    exact(&shown_json(&document.to_string()));
}

/// Prints a line as it is.
fn exact(line: &str) {
    bytes(format!("{line}\n").as_bytes());
}

/// Prints bytes as they are; says whether more could be printed. What is wrong is told at the end.
pub(crate) fn bytes(bytes: &[u8]) -> bool {
    let mut stdout = io::stdout().lock();
    done(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Keeps an error for the end.
fn done(result: io::Result<()>) -> bool {
    let is_done = result.is_ok();
    if let Err(error) = result
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        drop(ERROR.set(error));
    }
    is_done
}

/// Whether all was printed that somebody wanted to read.
pub(crate) fn result() -> Result<(), CliError> {
    ERROR.get().map_or(Ok(()), |error| {
        let text = format!("error: cannot write to standard output: {error}");
        Err(CliError::new(text, Exit::Environment))
    })
}
