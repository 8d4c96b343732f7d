//! `--progress=plain`: lines such as `#3 [build 2/4] RUN make` and `#3 0.512 cc -c main.c`. Nothing is
//! clipped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cli::display::text::{Lines, shown};
use crate::diag::{self, Diagnostic, SourceFile, Style};
use crate::executor::{Event, Outcome, StepId};

use super::event_text::event_text;
use super::out::Out;
use super::rate::Rate;
use super::sink::{Failure, Sink, Success};

/// Shows lines of all steps as they arrive.
#[derive(Debug)]
pub(super) struct Plain {
    steps: BTreeMap<StepId, PlainStep>,
    /// Style of our own messages.
    style: Style,
    /// True if output of steps may have colours.
    colours: bool,
}

/// A step that runs.
#[derive(Debug)]
struct PlainStep {
    started: Instant,
    lines: Lines,
    rate: Rate,
}

impl Plain {
    pub(super) const fn new(style: Style, colours: bool) -> Self {
        Self { steps: BTreeMap::new(), style, colours }
    }
}

impl Sink for Plain {
    fn event(&mut self, event: &Event, out: &mut Out<'_>) {
        match event {
            Event::Started { step, name, .. } => {
                let started = Instant::now();
                let (lines, rate) = (Lines::default(), Rate::new(started));
                self.steps.insert(*step, PlainStep { started, lines, rate });
                out.line(&format!("#{} {}", step.0, shown(name, false)));
            }
            Event::Executing { step } => {
                if let Some(running) = self.steps.get_mut(step) {
                    running.started = Instant::now();
                }
            }
            Event::Planned { .. } | Event::Made { .. } => {}
            Event::Output { step, bytes, .. } => {
                let Some(PlainStep { started, lines, .. }) = self.steps.get_mut(step) else {
                    return;
                };
                lines.push(bytes, |text| {
                    out.coloured(&output_line(*step, *started, text, self.colours));
                });
            }
            Event::Progress { step, done_bytes, total_bytes } => {
                let Some(running) = self.steps.get_mut(step) else { return };
                let line = running.rate.line(Instant::now(), *done_bytes, *total_bytes);
                line.iter().for_each(|line| out.line(&format!("#{} {line}", step.0)));
            }
            Event::Finished { step, outcome, took } => {
                if let Some(PlainStep { started, mut lines, .. }) = self.steps.remove(step) {
                    lines.end(|text| {
                        out.coloured(&output_line(*step, started, text, self.colours));
                    });
                }
                out.line(&format!("#{} {}", step.0, outcome_text(*outcome, *took)));
            }
            Event::Explained { .. }
            | Event::Isolated { .. }
            | Event::Warning { .. }
            | Event::Note { .. }
            | Event::Wrote { .. }
            | Event::Pushed { .. } => out.line(&event_text(event)),
        }
    }

    fn warnings(&mut self, found: &[Diagnostic], source: &SourceFile, out: &mut Out<'_>) {
        out.lines(&diag::render(found, source, self.style), self.style == Style::Colour);
    }

    fn built(&mut self, success: &Success<'_>, out: &mut Out<'_>) {
        success.lines().iter().for_each(|line| out.line(line));
    }

    fn failed(&mut self, failure: &Failure<'_>, out: &mut Out<'_>) {
        out.lines(&failure.text, self.style == Style::Colour);
    }
}

/// Returns a line of a step's output, with its number and its time.
pub(super) fn output_line(step: StepId, started: Instant, text: &str, colours: bool) -> String {
    format!("#{} {:.3} {}", step.0, started.elapsed().as_secs_f64(), shown(text, colours))
}

/// Returns how a step ended, as BuildKit's plain progress does.
pub(super) fn outcome_text(outcome: Outcome, took: Duration) -> String {
    match outcome {
        Outcome::Done => format!("DONE {:.1}s", took.as_secs_f64()),
        Outcome::Cached => "CACHED".to_owned(),
        Outcome::Failed => "ERROR".to_owned(),
        Outcome::Cancelled => "CANCELED".to_owned(),
    }
}
