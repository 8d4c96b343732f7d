//! Standard error outside of the progress display: errors, usage and remarks.

use std::io::Write as _;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;

use super::text::shown;

/// Shows a complaint, in colours where it has some and the terminal too; gives its exit code.
pub(crate) fn complaint(complaint: &CliError, colours: bool) -> Exit {
    let text = complaint.to_string();
    let text = text.trim_end();
    if !text.is_empty() {
        lines(text, colours);
    }
    complaint.exit()
}

/// Shows what clap has to say: help and version go to standard output and are no error.
pub(crate) fn usage(error: &clap::Error, colours: bool) -> Exit {
    if !error.use_stderr() {
        // That nobody reads is no reason to fail.
        let _shown = error.print();
        return Exit::Success;
    }
    // It repeats arguments, which in a script may be others' words.
    let text = error.render();
    let text = if colours { text.ansi().to_string() } else { text.to_string() };
    lines(text.trim_end_matches('\n'), colours);
    Exit::Usage
}

/// Shows a remark.
pub(crate) fn remark(text: &str) {
    lines(text, false);
}

/// Names and excerpts in it may be anybody's: a terminal is to obey none of them.
fn lines(text: &str, colours: bool) {
    let lines: Vec<_> = text.split('\n').map(|line| shown(line, colours)).collect();
    // That nobody reads is no reason to fail.
    let _nobody_reads = writeln!(std::io::stderr().lock(), "{}", lines.join("\n"));
}
