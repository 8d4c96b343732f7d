//! What happens during a build, as it happens. Only `cli` turns it into text.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Reason;

/// Numbers what is shown as one step, in the order in which they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// Gives each step of one command its number.
#[derive(Debug, Default)]
pub struct StepNumbers(AtomicU32);

impl StepNumbers {
    /// The next number, from 1.
    pub(super) fn next(&self) -> StepId {
        StepId(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Which of a command's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was made.
    Done,
    /// Its result was in the store.
    Cached,
    /// It failed; the build's error says why.
    Failed,
    /// It was stopped because another one failed, or by the caller.
    Cancelled,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Work starts.
    Started {
        /// Which.
        step: StepId,
        /// As in `[build 2/5] RUN make`.
        name: String,
    },
    /// Why a step is made and not found, where that was asked for.
    Explained {
        /// Which step.
        step: StepId,
        /// Why.
        reason: Reason,
    },
    /// A command wrote something: any bytes, not cut at line ends.
    Output {
        /// Whose.
        step: StepId,
        /// Where to.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// Bytes were moved over the network or into a file.
    Progress {
        /// By which step.
        step: StepId,
        /// How many so far.
        done_bytes: u64,
        /// Of how many; 0 when nobody knows yet.
        total_bytes: u64,
    },
    /// Work ended.
    Finished {
        /// Which.
        step: StepId,
        /// How.
        outcome: Outcome,
        /// How long it took.
        took: Duration,
    },
    /// Something odd that stops nothing.
    Warning {
        /// What.
        text: String,
    },
}
