//! `rbuild history logs`, and the steps of a build by their names.

use std::io::{self, IsTerminal as _};

use super::{Build, Result, chosen, end, records};
use crate::cli::args::history::{LogsArgs, WhichBuild};
use crate::cli::args::step_name::StepName;
use crate::cli::display::stderr;
use crate::cli::display::stdout::{self, say};
use crate::cli::display::text::{Lines, shown};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::records::{Logs, Requested, Step};
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
    let place = Requested { directory, context, ..Requested::default() }.place();
    for record in records(store)? {
        let Some(build) = Build::read_if_there(&record, Logs::Skip)? else { continue };
        if build.recorded.requested.place() != place {
            continue;
        }
        let (_, step) = build.step(&format!("#{number}"))?;
        return step.place.clone().ok_or_else(|| {
            let (id, name) = (&build.id, &step.name);
            usage(format!("#{number} of build {id} is not an instruction: {name}"))
        });
    }
    let text = format!(
        "the store remembers no build of {place}, in which #{number} would be a step: name it by \
         its stage, such as build:3"
    );
    Err(usage(text))
}

/// Returns the words for a build and a step of it. The name of a step may stand in the place of the
/// build's, which has neither `:` nor `#`, if it is one of the last build.
pub(super) fn build_and_step<'a>(
    which: &'a WhichBuild,
    step: Option<&'a str>,
) -> (Option<&'a str>, Option<&'a str>) {
    match which.build.as_deref() {
        Some(word) if step.is_none() && word.contains([':', '#']) => (None, Some(word)),
        word => (word, step),
    }
}

impl Build {
    /// Returns the step with this name, and its number.
    pub(super) fn step(&self, word: &str) -> Result<(u32, &Step)> {
        let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
        let name = StepName::read(word).map_err(usage)?;
        name.find(&self.recorded).ok_or_else(|| {
            let id = &self.id;
            usage(match self.recorded.steps.len() {
                0 => format!("build {id} ended before its first step"),
                n_steps => format!(
                    "build {id} has no step {name}, only #1 to #{n_steps}; `rbuild history show {id}` \
                     lists them"
                ),
            })
        })
    }
}

pub(super) fn logs(store: &Store, args: &LogsArgs, colours: bool) -> Result<()> {
    let (which, step) = build_and_step(&args.which, args.step.as_deref());
    let build = Build::read(&chosen(records(store)?, which)?, Logs::Read)?;
    let steps = &build.recorded.steps;
    if let Some(word) = step {
        let (id, step) = build.step(word)?;
        if step.printed.pieces().is_empty() {
            stderr::remark(&format!("step {} printed nothing", StepName::of(id, step)));
        }
        print(step, colours);
        return Ok(());
    }
    for (id, step) in steps {
        say!("#{id} {}", shown(&step.name, false));
        let mut lines = Lines::default();
        let mut last = 0.0;
        for (at, bytes) in step.printed.pieces() {
            last = *at;
            lines.push(bytes, |line| stdout::line(&format!("#{id} {at:.3} {line}"), colours));
        }
        lines.end(|line| stdout::line(&format!("#{id} {last:.3} {line}"), colours));
        say!("#{id} {}", end(step));
    }
    Ok(())
}

/// Prints what a step printed: for people on a terminal, byte by byte for programs.
fn print(step: &Step, colours: bool) {
    let mut pieces = step.printed.pieces().iter().map(|(_, bytes)| bytes);
    if !io::stdout().is_terminal() {
        pieces.all(|bytes| stdout::bytes(bytes));
        return;
    }
    let show = |line: &str| stdout::line(line, colours);
    let mut lines = Lines::default();
    pieces.for_each(|bytes| lines.push(bytes, show));
    lines.end(show);
}
