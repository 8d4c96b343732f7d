//! Standard error outside of the progress display: errors, usage and remarks.

use std::io::Write as _;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;

use super::stdout;
use super::text::shown;

/// Shows an error. Returns its exit code.
pub(crate) fn show(error: &CliError, colours: bool) -> Exit {
    let text = error.to_string();
    let text = text.trim_end();
    if !text.is_empty() {
        lines(text, colours);
    }
    error.exit()
}

/// Shows a result of clap. Help and version go to standard output, and are a success.
pub(crate) fn usage(error: &clap::Error, colours: bool) -> Exit {
    if !error.use_stderr() {
        stdout::help(error);
        return stdout::result().map_or_else(|error| show(&error, colours), |()| Exit::Success);
    }
    // The text repeats arguments, which in a script may be untrusted.
    let text = error.render();
    let text = if colours { text.ansi().to_string() } else { text.to_string() };
    lines(text.trim_end_matches('\n'), colours);
    Exit::Usage
}

/// Shows a remark, which is not an error.
pub(crate) fn remark(text: &str) {
    lines(text, false);
}

/// Shows rendered diagnostics, which are not an error.
pub(crate) fn text(text: &str, colours: bool) {
    lines(text.trim_end_matches('\n'), colours);
}

/// Writes lines. They may quote untrusted text, so control characters are removed.
fn lines(text: &str, colours: bool) {
    let lines: Vec<_> = text.split('\n').map(|line| shown(line, colours)).collect();
    // An error of standard error cannot be reported anywhere.
    let _ignored = writeln!(std::io::stderr().lock(), "{}", lines.join("\n"));
}
