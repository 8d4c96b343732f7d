//! The one way to write progress for people. No line that leaves here can control a terminal.

use std::io::{self, Write};

use crate::cli::display::text::shown;

/// A writer of lines. Ignores errors: a reader that went away must not fail the build.
pub(crate) struct Out<'a>(&'a mut dyn Write);

impl<'a> Out<'a> {
    /// Returns a writer of lines to `to`.
    pub(crate) fn new(to: &'a mut dyn Write) -> Self {
        Self(to)
    }

    /// Writes several lines, with their colours if `colours`.
    pub(crate) fn lines(&mut self, text: &str, colours: bool) {
        text.trim_end().split('\n').for_each(|line| self.exact(&shown(line, colours)));
    }

    /// Writes a line without colours.
    pub(crate) fn line(&mut self, text: &str) {
        self.exact(&shown(text, false));
    }

    /// Writes a line with its colours, which the caller has filtered.
    pub(crate) fn coloured(&mut self, text: &str) {
        self.exact(&shown(text, true));
    }

    /// Writes a line unchanged: JSON, or control sequences for a CI system.
    pub(crate) fn exact(&mut self, text: &str) {
        // One write, so that lines of other processes are not mixed in.
        let _ignored = self.0.write_all(format!("{text}\n").as_bytes());
    }
}

/// Calls `write` with standard error.
pub(crate) fn with_stderr(write: impl FnOnce(&mut Out<'_>)) {
    let mut stderr = io::stderr().lock();
    write(&mut Out::new(&mut stderr));
}
