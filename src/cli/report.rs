//! Errors as people read them.
#![expect(clippy::print_stderr, reason = "messages go to standard error")]

use std::error::Error;
use std::fmt;

use super::Exit;

/// What ends the program early: a text for the reader, and how to exit.
#[derive(Debug)]
pub(super) struct Complaint {
    text: String,
    exit: Exit,
}

impl Complaint {
    pub(super) fn new(text: impl Into<String>, exit: Exit) -> Self {
        Self { text: text.into(), exit }
    }

    /// How the program will exit.
    pub(super) const fn exit(&self) -> Exit {
        self.exit
    }

    /// Both, with the exit of the first.
    pub(super) fn and(self, other: Self) -> Self {
        Self::new(format!("{}\n{}", self.text.trim_end(), other.text), self.exit)
    }

    /// An error with all that caused it.
    pub(super) fn from_error(error: &dyn Error, exit: Exit) -> Self {
        Self::new(format!("error: {}", crate::build::chain(error)), exit)
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Shows a complaint; gives its exit code.
pub(super) fn complaint(complaint: &Complaint) -> Exit {
    eprintln!("{}", complaint.text.trim_end());
    complaint.exit
}

/// Shows what clap has to say: help and version go to standard output and are no error.
pub(super) fn usage(error: &clap::Error) -> Exit {
    // That nobody reads is no reason to fail.
    let _shown = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Success }
}

/// Shows a remark.
pub(super) fn remark(text: &str) {
    eprintln!("{text}");
}
