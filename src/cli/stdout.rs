//! Standard output, where results go that were asked for.

use std::fmt::Arguments;
use std::io::{self, Write as _};
use std::sync::OnceLock;

use super::Exit;
use super::progress::shown;
use super::report::Complaint;

/// Why not all was printed.
static ERROR: OnceLock<io::Error> = OnceLock::new();

/// Prints a line, as `println!` does; but that nobody reads any more, as behind `| head`, is no reason to
/// fail, and other errors are told at the end.
macro_rules! say {
    () => { $crate::cli::stdout::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::cli::stdout::print(format_args!("{}\n", format_args!($($text)*))) };
}
pub(super) use say;

/// Prints a text as it is.
pub(super) fn print(text: Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    done(stdout.write_fmt(text).and_then(|()| stdout.flush()));
}

/// Prints lines of which some may be others' words: without control characters, but for colours
/// where they are shown.
pub(super) fn lines(text: &str, colours: bool) {
    text.lines().for_each(|line| say!("{}", shown(line, colours)));
}

/// Prints bytes as they are; says whether more could be printed. What is wrong is told at the end.
pub(super) fn bytes(bytes: &[u8]) -> bool {
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
pub(super) fn result() -> Result<(), Complaint> {
    ERROR.get().map_or(Ok(()), |error| {
        let text = format!("error: cannot write to standard output: {error}");
        Err(Complaint::new(text, Exit::Environment))
    })
}
