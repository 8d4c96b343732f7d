//! The interface of all that consume progress: the displays, the step summary, the build record.

use std::fmt;
use std::time::Duration;

use crate::cli::error::CliError;
use crate::cli::records::Requested;
use crate::diag::{Diagnostic, SourceFile};
use crate::executor::Event;

use super::live::TerminalHandle;
use super::out::Out;
use super::result::BuildResult;
use super::totals::Totals;

/// The end of a build that succeeded.
#[derive(Debug)]
pub(crate) struct Success<'a> {
    pub(crate) result: &'a BuildResult<'a>,
    pub(crate) totals: Totals,
    pub(crate) took: Duration,
}

impl Success<'_> {
    /// Returns the lines that people read.
    pub(super) fn lines(&self) -> Vec<String> {
        let named = match self.result.names {
            [] => String::new(),
            names => format!(" as {}", names.join(", ")),
        };
        let mut lines = self.totals.lines(self.result.images, self.took);
        lines.push(match self.result.n_targets {
            1 => format!("built {}{named}", self.result.id),
            n => format!("built {n} targets{named}"),
        });
        lines
    }
}

/// The end of a command that failed.
#[derive(Debug)]
pub(crate) struct Failure<'a> {
    pub(crate) error: &'a CliError,
    /// The error as people read it.
    pub(crate) text: String,
    pub(crate) took: Duration,
}

/// A consumer of progress.
///
/// The reporter calls one method at a time. `out` is standard error; sinks that go elsewhere ignore
/// it. Most sinks need only some of the methods.
pub(crate) trait Sink: fmt::Debug + Send {
    /// Called once, before all others.
    fn begin(&mut self, _out: &mut Out<'_>) {}

    /// A build starts; these are its arguments.
    fn requested(&mut self, _requested: &Requested, _out: &mut Out<'_>) {}

    /// The Dockerfile was read. Diagnostics call it `name`.
    fn dockerfile(&mut self, _name: &str, _text: &str, _out: &mut Out<'_>) {}

    /// Something happened in the executor.
    fn event(&mut self, event: &Event, out: &mut Out<'_>);

    /// Warnings about the Dockerfile were found, at least one.
    fn warnings(&mut self, _found: &[Diagnostic], _source: &SourceFile, _out: &mut Out<'_>) {}

    /// The build succeeded, with this result.
    fn built(&mut self, _success: &Success<'_>, _out: &mut Out<'_>) {}

    /// The command failed with this error.
    fn failed(&mut self, _failure: &Failure<'_>, _out: &mut Out<'_>) {}

    /// Another program takes the terminal: nothing is shown from here on.
    fn hand_over(&mut self, _out: &mut Out<'_>) {}

    /// Called once, after all others.
    fn finish(&mut self, _out: &mut Out<'_>) {}

    /// Returns whether reasons for cache misses are wanted although `--explain` is not given.
    fn wants_reasons(&self) -> bool {
        false
    }

    /// Returns whether only errors are shown.
    fn is_quiet(&self) -> bool {
        false
    }

    /// Returns access to the terminal, for a display that draws on it.
    fn terminal(&self) -> Option<TerminalHandle> {
        None
    }
}
