//! The outlet of lines for people: none holds characters that have an effect, whoever wrote it.

use std::io::Write;

use crate::cli::display::text::shown;

/// Takes lines; that nobody reads them is no reason to fail.
pub(crate) struct Out<'a>(&'a mut dyn Write);

impl<'a> Out<'a> {
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

    /// Writes a line that has colours only if it may have them.
    pub(crate) fn coloured(&mut self, text: &str) {
        self.exact(&shown(text, true));
    }

    /// Writes a line as it is: JSON, and sequences of our own that a CI system asks for.
    pub(crate) fn exact(&mut self, text: &str) {
        // In one piece, so that other processes' lines do not come between.
        let _nobody_reads = self.0.write_all(format!("{text}\n").as_bytes());
    }
}
