//! What a live view knows: the steps that run, how far all is, and what is over and was not shown yet.
//! Pure; times count from the start.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::cli::display::reasons;
use crate::cli::display::text::{Lines, shown};
use crate::cli::progress::rate::Speed;
use crate::cli::progress::said;
use crate::diag::size;
use crate::executor::{Event, Outcome, StepId, StepPlace};

use super::line::{Line, Paint};
use super::look::{self, Look};

/// Lines of a step's output that are kept.
pub(super) const MAX_TAIL: usize = 12;
/// The columns of a screen that is wider than any: more of a line is never seen.
const MAX_LINE_CHARS: usize = 1000;

/// The state of a view.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) look: Look,
    pub(super) running: BTreeMap<StepId, Running>,
    /// How each instruction that makes a layer ended.
    ended: BTreeMap<(String, usize), Outcome>,
    /// How many there are.
    n_planned: usize,
    past: Vec<Past>,
}

/// What stays when the view is gone.
#[derive(Debug)]
pub(super) enum Past {
    /// One line, which is clipped, and what is to be seen at its end.
    Line(Line, Line),
    /// A line that wraps.
    Whole(Line),
    /// Text that wraps.
    Text(String),
}

/// A step that did not end yet.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) name: String,
    pub(super) started: Duration,
    place: Option<StepPlace>,
    lines: Lines,
    tail: VecDeque<String>,
    reason: Option<String>,
    transfer: Option<Transfer>,
}

/// Bytes that a step moves.
#[derive(Debug)]
struct Transfer {
    done_bytes: u64,
    /// 0 when nobody knows.
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

    /// Takes what happened.
    pub(super) fn event(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Started { step, name, place } => {
                self.running.insert(*step, Running::new(name, place.clone(), now));
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
                None => self.say(said(event)),
            },
            Event::Output { step, bytes, .. } => {
                if let Some(running) = self.running.get_mut(step) {
                    running.output(bytes);
                }
            }
            Event::Progress { step, done_bytes, total_bytes } => {
                if let Some(running) = self.running.get_mut(step) {
                    running.moved(*done_bytes, *total_bytes, now);
                }
            }
            Event::Finished { step, outcome, took } => self.finish(*step, *outcome, *took),
            Event::Warning { .. }
            | Event::Note { .. }
            | Event::Wrote { .. }
            | Event::Pushed { .. } => {
                self.say(said(event));
            }
        }
    }

    /// Adds text that stays.
    pub(super) fn say(&mut self, text: String) {
        self.past.push(Past::Text(text));
    }

    /// Ends what did not end by itself.
    pub(super) fn end(&mut self, now: Duration) {
        let running: Vec<(StepId, Duration)> =
            self.running.iter().map(|(step, running)| (*step, running.started)).collect();
        for (step, started) in running {
            self.finish(step, Outcome::Cancelled, now.saturating_sub(started));
        }
    }

    /// What is over since this was last asked.
    pub(super) fn take_past(&mut self) -> Vec<Past> {
        std::mem::take(&mut self.past)
    }

    /// Instructions that ended, all that are known, and those that were found made.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let n_cached = self.ended.values().filter(|how| **how == Outcome::Cached).count();
        (self.ended.len(), self.n_planned, n_cached)
    }

    fn finish(&mut self, step: StepId, outcome: Outcome, took: Duration) {
        let Some(running) = self.running.remove(&step) else { return };
        // FROM is none that is made.
        if let Some(StepPlace { stage, number, .. }) = &running.place
            && *number > 1
        {
            self.ended.insert((stage.clone(), *number), outcome);
        }
        let line = self.look.step(self.look.end(outcome, took), step, &running.name);
        let after = running.moved_in_all(took).map_or_else(Line::default, |text| {
            Line::default().with(Paint::Dim, &format!("  {text}"))
        });
        self.past.push(Past::Line(line, after));
        if let Some(reason) = running.reason_text() {
            // It may name many files: nothing of it is left out.
            self.past.push(Past::Whole(self.look.below(&reason)));
        }
    }
}

impl Running {
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
            // There is little space: what is empty takes none.
            if !line.trim().is_empty() {
                tail.push_back(line.chars().take(MAX_LINE_CHARS).collect());
                if tail.len() > MAX_TAIL {
                    tail.pop_front();
                }
            }
        });
    }

    fn moved(&mut self, done_bytes: u64, total_bytes: u64, now: Duration) {
        let transfer = self.transfer.get_or_insert_with(|| {
            let speed = Speed::new(self.started);
            Transfer { done_bytes, total_bytes, speed }
        });
        // Several threads tell: a later number may be overtaken by an earlier one.
        transfer.done_bytes = transfer.done_bytes.max(done_bytes);
        transfer.total_bytes = total_bytes;
        transfer.speed.at(now, transfer.done_bytes);
    }

    /// The last lines of its output, oldest first; what stands in an open line is one.
    pub(super) fn last_lines(&self) -> Vec<Cow<'_, str>> {
        let open = self.lines.open();
        let open = (!open.trim().is_empty()).then_some(open);
        self.tail.iter().map(|line| Cow::Borrowed(line.as_str())).chain(open).collect()
    }

    /// Why it is made.
    pub(super) fn reason_text(&self) -> Option<String> {
        self.reason.as_ref().map(|reason| format!("not cached: {reason}"))
    }

    /// How far its transfer is, from the longest way to say it to the shortest.
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

    /// What a transfer moved, and how fast on the whole.
    fn moved_in_all(&self, took: Duration) -> Option<String> {
        let done_bytes = self.transfer.as_ref()?.done_bytes;
        let per_second = u128::from(done_bytes) * 1000 / took.as_millis().max(1);
        let per_second = u64::try_from(per_second).ok()?;
        Some(format!("{} {}/s", size(done_bytes), size(per_second)))
    }
}

/// For the frame: the time since a step started.
pub(super) fn elapsed(running: &Running, now: Duration) -> String {
    look::clock(now.saturating_sub(running.started))
}
