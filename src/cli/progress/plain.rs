//! Lines such as `#3 [build 2/4] RUN make` and `#3 0.512 cc -c main.c`; nothing is clipped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cli::display::text::{Lines, shown};
use crate::executor::{Event, Outcome, StepId};

use super::rate::Rate;
use super::{Out, said};

/// Lines of all steps, as they come.
#[derive(Debug)]
pub(super) struct Plain {
    steps: BTreeMap<StepId, Running>,
    colours: bool,
}

/// A step that did not end yet.
#[derive(Debug)]
struct Running {
    started: Instant,
    lines: Lines,
    rate: Rate,
}

impl Plain {
    pub(super) const fn new(colours: bool) -> Self {
        Self { steps: BTreeMap::new(), colours }
    }

    pub(super) fn event(&mut self, event: &Event, out: &mut Out<'_>) {
        match event {
            Event::Started { step, name, .. } => {
                let started = Instant::now();
                let (lines, rate) = (Lines::default(), Rate::new(started));
                self.steps.insert(*step, Running { started, lines, rate });
                out.line(&format!("#{} {}", step.0, shown(name, false)));
            }
            Event::Executing { step } => {
                if let Some(running) = self.steps.get_mut(step) {
                    running.started = Instant::now();
                }
            }
            Event::Planned { .. } | Event::Made { .. } => {}
            Event::Output { step, bytes, .. } => {
                let Some(Running { started, lines, .. }) = self.steps.get_mut(step) else { return };
                lines
                    .push(bytes, |text| out.coloured(&output(*step, *started, text, self.colours)));
            }
            Event::Progress { step, done_bytes, total_bytes } => {
                let Some(running) = self.steps.get_mut(step) else { return };
                let line = running.rate.line(Instant::now(), *done_bytes, *total_bytes);
                line.iter().for_each(|line| out.line(&format!("#{} {line}", step.0)));
            }
            Event::Finished { step, outcome, took } => {
                if let Some(Running { started, mut lines, .. }) = self.steps.remove(step) {
                    lines.end(|text| out.coloured(&output(*step, started, text, self.colours)));
                }
                out.line(&format!("#{} {}", step.0, end(*outcome, *took)));
            }
            Event::Explained { .. }
            | Event::Warning { .. }
            | Event::Note { .. }
            | Event::Wrote { .. }
            | Event::Pushed { .. } => out.line(&said(event)),
        }
    }
}

/// A line of a step's output.
pub(super) fn output(step: StepId, started: Instant, text: &str, colours: bool) -> String {
    format!("#{} {:.3} {}", step.0, started.elapsed().as_secs_f64(), shown(text, colours))
}

/// How a step ended.
pub(super) fn end(outcome: Outcome, took: Duration) -> String {
    match outcome {
        Outcome::Done => format!("DONE {:.1}s", took.as_secs_f64()),
        Outcome::Cached => "CACHED".to_owned(),
        Outcome::Failed => "ERROR".to_owned(),
        Outcome::Cancelled => "CANCELED".to_owned(),
    }
}
