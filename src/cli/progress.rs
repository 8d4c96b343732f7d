//! Events as lines of text.
#![expect(clippy::print_stderr, reason = "progress goes to standard error")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::build::{Event, Outcome, StepId};

use super::rate::Rate;
use super::reasons;

/// Lines such as `#3 [build 2/4] RUN make` and `#3 0.512 cc -c main.c`; nothing is clipped.
#[derive(Debug, Default)]
pub(super) struct Plain {
    steps: Mutex<BTreeMap<StepId, Running>>,
}

#[derive(Debug)]
struct Running {
    started: Instant,
    /// Output that does not end its line yet.
    open: Vec<u8>,
    rate: Rate,
}

impl Plain {
    /// Shows what happened.
    pub(super) fn event(&self, event: &Event) {
        // Each event changes one entry: a panic elsewhere leaves the map whole.
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { step, name } => {
                let started = Instant::now();
                let running = Running { started, open: Vec::new(), rate: Rate::new(started) };
                steps.insert(*step, running);
                eprintln!("#{} {name}", step.0);
            }
            Event::Explained { step, reason } => {
                eprintln!("#{} not cached: {}", step.0, reasons::text(reason));
            }
            Event::Output { step, bytes, .. } => {
                if let Some(running) = steps.get_mut(step) {
                    running.output(*step, bytes);
                }
            }
            Event::Progress { step, done_bytes, total_bytes } => {
                if let Some(running) = steps.get_mut(step) {
                    running.progress(*step, *done_bytes, *total_bytes);
                }
            }
            Event::Finished { step, outcome, took } => {
                if let Some(mut running) = steps.remove(step) {
                    running.flush(*step);
                }
                eprintln!("#{} {}", step.0, end(*outcome, *took));
            }
            Event::Warning { text } => eprintln!("warning: {text}"),
        }
    }
}

fn end(outcome: Outcome, took: Duration) -> String {
    match outcome {
        Outcome::Done => format!("DONE {:.1}s", took.as_secs_f64()),
        Outcome::Cached => "CACHED".to_owned(),
        Outcome::Failed => "ERROR".to_owned(),
        Outcome::Cancelled => "CANCELED".to_owned(),
    }
}

impl Running {
    fn output(&mut self, step: StepId, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.open.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.flush(step);
            }
        }
    }

    fn flush(&mut self, step: StepId) {
        if self.open.is_empty() {
            return;
        }
        let line = String::from_utf8_lossy(&self.open);
        // A progress bar rewrites its line: what it says last counts.
        let line = line.trim_end_matches(['\n', '\r']);
        let line = line.rsplit('\r').next().unwrap_or(line);
        eprintln!("#{} {:.3} {line}", step.0, self.started.elapsed().as_secs_f64());
        self.open.clear();
    }

    fn progress(&mut self, step: StepId, done_bytes: u64, total_bytes: u64) {
        if let Some(line) = self.rate.line(Instant::now(), done_bytes, total_bytes) {
            eprintln!("#{} {line}", step.0);
        }
    }
}

/// Bytes for people: `12.3MB`, in powers of ten as docker shows them.
pub(super) fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    for (unit, factor) in units {
        if bytes >= factor {
            let tenths = bytes / (factor / 10);
            return format!("{}.{}{unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_short() {
        for (bytes, want) in [(0, "0B"), (999, "999B"), (1_250, "1.2kB"), (57_300_000, "57.3MB")] {
            assert_eq!(size(bytes), want);
        }
    }
}
