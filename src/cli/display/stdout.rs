//! Standard output: the results of commands.

use std::fmt::Arguments;
use std::io::{self, Write as _};
use std::sync::OnceLock;

use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;

use super::text::{shown, shown_json};

/// The first error of a write.
static ERROR: OnceLock<io::Error> = OnceLock::new();

/// Prints lines for people, as `println!` does, without control characters. Ignores a closed pipe, as
/// behind `| head`; other errors are reported by [`result`].
macro_rules! say {
    () => { $crate::cli::display::stdout::print(format_args!("")) };
    ($($text:tt)*) => { $crate::cli::display::stdout::print(format_args!($($text)*)) };
}
pub(crate) use say;

/// Prints lines, without colours.
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

/// Prints JSON with indentation.
pub(crate) fn json(document: &Value) {
    exact(&shown_json(&format!("{document:#}")));
}

/// Prints JSON on one line.
pub(crate) fn json_line(document: &Value) {
    exact(&shown_json(&document.to_string()));
}

/// Prints a line unchanged.
fn exact(line: &str) {
    bytes(format!("{line}\n").as_bytes());
}

/// Prints bytes unchanged. Returns whether more can be printed.
pub(crate) fn bytes(bytes: &[u8]) -> bool {
    let mut stdout = io::stdout().lock();
    note_error(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Prints a help text or the version.
pub(crate) fn help(text: &clap::Error) {
    note_error(text.print());
}

/// Keeps an error for [`result`]. Returns whether there was none.
fn note_error(result: io::Result<()>) -> bool {
    let is_done = result.is_ok();
    if let Err(error) = result
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        drop(ERROR.set(error));
    }
    is_done
}

/// Returns the first error of a write.
///
/// # Errors
/// A [`CliError`] with [`Exit::Environment`].
pub(crate) fn result() -> Result<(), CliError> {
    ERROR.get().map_or(Ok(()), |error| {
        let text = format!("error: cannot write to standard output: {error}");
        Err(CliError::new(text, Exit::Environment))
    })
}
