//! State of the live view: running steps, totals, and finished lines that were not drawn yet. Pure;
//! times count from the start of the command.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::super::event_text::event_text;
use super::super::rate::Speed;
use crate::cli::display::reasons;
use crate::cli::display::text::{Lines, shown};
use crate::diag::size;
use crate::executor::{Event, Outcome, StepId, StepPlace};

use super::line::{Paint, PaintedLine};
use super::look::{self, Look};

/// Maximum number of lines of a step's output that are kept.
pub(super) const MAX_TAIL: usize = 12;
/// Maximum length of a kept line. No screen is wider.
const MAX_LINE_CHARS: usize = 1000;

/// State of the live view.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) look: Look,
    pub(super) running: BTreeMap<StepId, RunningStep>,
    /// Outcome of each instruction that makes a layer, by stage and number.
    ended: BTreeMap<(String, usize), Outcome>,
    /// Number of such instructions in the plan.
    n_planned: usize,
    past: Vec<FinishedLine>,
}

/// A line that stays on the screen.
#[derive(Debug)]
pub(super) enum FinishedLine {
    /// A line that is clipped, and its end, which is not.
    Clipped(PaintedLine, PaintedLine),
    /// A line that wraps.
    Wrapped(PaintedLine),
    /// Unpainted text that wraps.
    Text(String),
}

/// A step that runs.
#[derive(Debug)]
pub(super) struct RunningStep {
    pub(super) name: String,
    pub(super) started: Duration,
    place: Option<StepPlace>,
    lines: Lines,
    tail: VecDeque<String>,
    reason: Option<String>,
    transfer: Option<Transfer>,
}

/// Bytes that a step transfers.
#[derive(Debug)]
struct Transfer {
    done_bytes: u64,
    /// 0 while the total is unknown.
    total_bytes: u64,
    speed: Speed,
}

impl Model {
    pub(super) fn new(look: Look) -> Self {
        Self {
            look,
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            n_planned: 0,
            past: Vec::new(),
        }
    }

    /// Applies an event to the state.
    pub(super) fn event(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Started { step, name, place } => {
                self.running.insert(*step, RunningStep::new(name, place.clone(), now));
            }
            Event::Planned { stages } => {
                self.n_planned = stages.iter().map(|stage| stage.instructions.len()).sum();
            }
            Event::Executing { step } => {
                if let Some(running) = self.running.get_mut(step) {
                    running.started = now;
                }
            }
            Event::Made { .. } => {}
            Event::Explained { step, reason } => match self.running.get_mut(step) {
                Some(running) => running.reason = Some(reasons::text(reason)),
                None => self.add_text(event_text(event)),
            },
            Event::Output { step, bytes, .. } => {
                if let Some(running) = self.running.get_mut(step) {
                    running.output(bytes);
                }
            }
            Event::Progress { step, done_bytes, total_bytes } => {
                if let Some(running) = self.running.get_mut(step) {
                    running.transferred(*done_bytes, *total_bytes, now);
                }
            }
            Event::Finished { step, outcome, took } => self.finish(*step, *outcome, *took),
            Event::Warning { .. }
            | Event::Isolated { .. }
            | Event::Note { .. }
            | Event::Wrote { .. }
            | Event::Pushed { .. } => {
                self.add_text(event_text(event));
            }
        }
    }

    /// Adds a line that stays.
    pub(super) fn add_text(&mut self, text: String) {
        self.past.push(FinishedLine::Text(text));
    }

    /// Ends the steps that still run, as canceled.
    pub(super) fn end(&mut self, now: Duration) {
        let running: Vec<(StepId, Duration)> =
            self.running.iter().map(|(step, running)| (*step, running.started)).collect();
        for (step, started) in running {
            self.finish(step, Outcome::Cancelled, now.saturating_sub(started));
        }
    }

    /// Removes and returns the lines that finished since the last call.
    pub(super) fn take_past(&mut self) -> Vec<FinishedLine> {
        std::mem::take(&mut self.past)
    }

    /// Returns the numbers of instructions that ended, that are planned, and that were cached.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let n_cached = self.ended.values().filter(|how| **how == Outcome::Cached).count();
        (self.ended.len(), self.n_planned, n_cached)
    }

    fn finish(&mut self, step: StepId, outcome: Outcome, took: Duration) {
        let Some(running) = self.running.remove(&step) else { return };
        // Number 1 is FROM, which makes no layer.
        if let Some(StepPlace { stage, number, .. }) = &running.place
            && *number > 1
        {
            self.ended.insert((stage.clone(), *number), outcome);
        }
        let line = self.look.step(self.look.end(outcome, took), step, &running.name);
        let after = running.transfer_summary(took).map_or_else(PaintedLine::default, |text| {
            PaintedLine::default().with(Paint::Dim, &format!("  {text}"))
        });
        self.past.push(FinishedLine::Clipped(line, after));
        if let Some(reason) = running.reason_text() {
            // A reason may name many files, and must be readable as a whole.
            self.past.push(FinishedLine::Wrapped(self.look.below(&reason)));
        }
    }
}

impl RunningStep {
    fn new(name: &str, place: Option<StepPlace>, now: Duration) -> Self {
        Self {
            name: shown(&name.replace('\n', " "), false).into_owned(),
            started: now,
            place,
            lines: Lines::default(),
            tail: VecDeque::new(),
            reason: None,
            transfer: None,
        }
    }

    fn output(&mut self, bytes: &[u8]) {
        let Self { lines, tail, .. } = self;
        lines.push(bytes, |line| {
            // Space is scarce: empty lines are left out.
            if !line.trim().is_empty() {
                tail.push_back(line.chars().take(MAX_LINE_CHARS).collect());
                if tail.len() > MAX_TAIL {
                    tail.pop_front();
                }
            }
        });
    }

    fn transferred(&mut self, done_bytes: u64, total_bytes: u64, now: Duration) {
        let transfer = self.transfer.get_or_insert_with(|| {
            let speed = Speed::new(self.started);
            Transfer { done_bytes, total_bytes, speed }
        });
        // Several threads report: numbers may arrive out of order.
        transfer.done_bytes = transfer.done_bytes.max(done_bytes);
        transfer.total_bytes = total_bytes;
        transfer.speed.at(now, transfer.done_bytes);
    }

    /// Returns the last lines of output, oldest first, with the unfinished one.
    pub(super) fn last_lines(&self) -> Vec<Cow<'_, str>> {
        let open = self.lines.open();
        let open = (!open.trim().is_empty()).then_some(open);
        self.tail.iter().map(|line| Cow::Borrowed(line.as_str())).chain(open).collect()
    }

    /// Returns why the step was not cached, if that is shown.
    pub(super) fn reason_text(&self) -> Option<String> {
        self.reason.as_ref().map(|reason| format!("not cached: {reason}"))
    }

    /// Returns texts about its transfer, longest first.
    pub(super) fn transfer_texts(&self, now: Duration) -> Vec<String> {
        let Some(Transfer { done_bytes, total_bytes, speed }) = &self.transfer else {
            return Vec::new();
        };
        let done = size(*done_bytes);
        let part = done_bytes.saturating_mul(100).checked_div(*total_bytes);
        let far = part.map_or_else(|| done.clone(), |_| format!("{done} / {}", size(*total_bytes)));
        let mut texts = Vec::new();
        if let Some(per_second) = speed.per_second(now, *done_bytes) {
            texts.push(format!("{far} {}/s", size(per_second)));
        }
        texts.push(far);
        texts.push(part.map_or(done, |part| format!("{}%", part.min(100))));
        texts
    }

    /// Returns how much was transferred, and the average speed.
    fn transfer_summary(&self, took: Duration) -> Option<String> {
        let done_bytes = self.transfer.as_ref()?.done_bytes;
        let per_second = u128::from(done_bytes) * 1000 / took.as_millis().max(1);
        let per_second = u64::try_from(per_second).ok()?;
        Some(format!("{} {}/s", size(done_bytes), size(per_second)))
    }
}

/// Returns the time since a step started.
pub(super) fn elapsed(running: &RunningStep, now: Duration) -> String {
    look::clock(now.saturating_sub(running.started))
}
