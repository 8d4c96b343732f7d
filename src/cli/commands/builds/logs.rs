//! `rbuild history logs`, and the lookup of a step of a recorded build by its name.

use std::io::{self, IsTerminal as _};

use super::{RecordedBuild, Result, end, records, selected};
use crate::cli::args::history::{BuildSelector, LogsArgs};
use crate::cli::args::step_name::StepName;
use crate::cli::display::stderr;
use crate::cli::display::stdout::{self, say};
use crate::cli::display::text::{Lines, shown};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::records::{Logs, RecordedStep, Requested};
use crate::plan::redacted;
use crate::store::Store;

/// Returns the stage and the place in it of step `number` of the last build of a context.
pub(in crate::cli::commands) fn instruction(
    store: &Store,
    context: &str,
    number: u32,
) -> Result<(String, usize)> {
    let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
    let directory = std::path::absolute(".").unwrap_or_default().to_string_lossy().into_owned();
    let context = redacted(context);
    let place = Requested { directory, context, ..Requested::default() }.location();
    for record in records(store)? {
        let Some(build) = RecordedBuild::read_if_there(&record, Logs::Skip)? else { continue };
        if build.recorded.requested.location() != place {
            continue;
        }
        let (_, step) = build.step(&format!("#{number}"))?;
        return step.place.clone().ok_or_else(|| {
            let (id, name) = (&build.id, &step.name);
            usage(format!("step #{number} of build {id} is not an instruction: {name}"))
        });
    }
    let text = format!(
        "the store has no recorded build of {place}, so #{number} is unknown: name the step by its \
         stage, such as build:3"
    );
    Err(usage(text))
}

/// Returns the words that name a build and a step of it. A first word with `:` or `#` names a step of
/// the latest build, because build ids contain neither.
pub(super) fn build_and_step<'a>(
    which: &'a BuildSelector,
    step: Option<&'a str>,
) -> (Option<&'a str>, Option<&'a str>) {
    match which.build.as_deref() {
        Some(word) if step.is_none() && word.contains([':', '#']) => (None, Some(word)),
        word => (word, step),
    }
}

impl RecordedBuild {
    /// Returns the number and the record of the step with this name.
    ///
    /// # Errors
    /// A usage error if the name cannot be parsed or the build has no such step.
    pub(super) fn step(&self, word: &str) -> Result<(u32, &RecordedStep)> {
        let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
        let name = StepName::read(word).map_err(usage)?;
        name.find(&self.recorded).ok_or_else(|| {
            let id = &self.id;
            usage(match self.recorded.steps.len() {
                0 => format!("build {id} ended before its first step"),
                _ => format!(
                    "build {id} has no step {name}; `rbuild history show {id}` lists its steps"
                ),
            })
        })
    }
}

/// Prints the log of one step, or of all steps with their names and times.
pub(super) fn logs(store: &Store, args: &LogsArgs, colours: bool) -> Result<()> {
    let (which, step) = build_and_step(&args.which, args.step.as_deref());
    let build = RecordedBuild::read(&selected(records(store)?, which)?, Logs::Read)?;
    let steps = &build.recorded.steps;
    if let Some(word) = step {
        let (id, step) = build.step(word)?;
        if step.output.chunks().is_empty() {
            stderr::remark(&format!("step {} has no output", StepName::of(id, step)));
        }
        print(step, colours);
        return Ok(());
    }
    for (id, step) in steps {
        say!("#{id} {}", shown(&step.name, false));
        let mut lines = Lines::default();
        let mut last = 0.0;
        for (at, bytes) in step.output.chunks() {
            last = *at;
            lines.push(bytes, |line| stdout::line(&format!("#{id} {at:.3} {line}"), colours));
        }
        lines.end(|line| stdout::line(&format!("#{id} {last:.3} {line}"), colours));
        say!("#{id} {}", end(step));
    }
    Ok(())
}

/// Prints the output of a step: with control sequences removed on a terminal, unchanged otherwise.
fn print(step: &RecordedStep, colours: bool) {
    let mut pieces = step.output.chunks().iter().map(|(_, bytes)| bytes);
    if !io::stdout().is_terminal() {
        pieces.all(|bytes| stdout::bytes(bytes));
        return;
    }
    let show = |line: &str| stdout::line(line, colours);
    let mut lines = Lines::default();
    pieces.for_each(|bytes| lines.push(bytes, show));
    lines.end(show);
}
