//! Steps that are running, and their events: every operation that a user sees as a step starts and
//! finishes here.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::pool;
use crate::sandbox;

use super::{BuildError, Event, Outcome, Services, StepId, StepPlace};

impl Services<'_> {
    /// Passes an event on to the caller.
    pub(in crate::executor) fn event(&self, event: Event) {
        (self.events)(event);
    }

    /// Starts a step that is not an instruction, such as a pull.
    pub(in crate::executor) fn start(&self, name: String) -> ActiveStep {
        self.started(name, None)
    }

    /// Starts an instruction of the Dockerfile.
    pub(in crate::executor) fn start_at(&self, place: StepPlace) -> ActiveStep {
        self.started(place.to_string(), Some(place))
    }

    /// Returns a step without an event that announces it.
    pub(in crate::executor) fn unshown(&self, name: String) -> ActiveStep {
        ActiveStep::new(self.numbers.next(), name, None)
    }

    fn started(&self, name: String, place: Option<StepPlace>) -> ActiveStep {
        let id = self.numbers.next();
        self.event(Event::Started { step: id, name: name.clone(), place: place.clone() });
        ActiveStep::new(id, name, place)
    }

    /// Reports that a step's command starts. Everything it needs is there, so its time counts from
    /// here. Before the first one it reports the isolation, with a remark about the roots of steps.
    pub(in crate::executor) fn execute(&self, step: &ActiveStep, roots: Option<String>) {
        if self.numbers.note_execution()
            && let Some(isolation) = sandbox::isolation()
        {
            let remarks = sandbox::remarks().into_iter().map(str::to_owned).chain(roots).collect();
            self.event(Event::Isolated { isolation, remarks });
        }
        step.leave_out(step.started.elapsed());
        self.event(Event::Executing { step: step.id });
    }

    /// Reports the end of a step and the time it took.
    pub(in crate::executor) fn finish(&self, step: ActiveStep, outcome: Outcome) {
        let took = step.started.elapsed().saturating_sub(*step.left_out());
        self.event(Event::Finished { step: step.id, outcome, took });
    }

    /// Returns the error of a step that ends because the build was cancelled.
    pub(in crate::executor) fn stopped(&self) -> BuildError {
        match self.cancel.deadline() {
            _ if self.cancel.is_interrupted() => BuildError::Interrupted,
            Some((_, limit)) if self.cancel.is_timed_out() => BuildError::TimedOut { limit },
            Some(_) | None => BuildError::Stopped,
        }
    }
}

/// A step from its start event to its end event.
#[derive(Debug)]
pub(in crate::executor) struct ActiveStep {
    /// Number in the events of this command.
    pub(in crate::executor) id: StepId,
    /// Name in logs, as in `[build 2/5] RUN make`.
    pub(in crate::executor) name: String,
    place: Option<StepPlace>,
    /// True if its cache mounts begin empty, as with `--no-cache`.
    pub(in crate::executor) is_uncached: bool,
    started: Instant,
    /// Time that other steps account for: those that pull and unpack base images.
    left_out: Mutex<Duration>,
}

impl ActiveStep {
    fn new(id: StepId, name: String, place: Option<StepPlace>) -> Self {
        let (started, left_out) = (Instant::now(), Mutex::default());
        Self { id, name, place, is_uncached: false, started, left_out }
    }

    /// Returns the step of a stage that may be uncached.
    pub(in crate::executor) const fn of_stage(mut self, is_uncached: bool) -> Self {
        self.is_uncached = is_uncached;
        self
    }

    /// Returns `build:2` for `[build 2/5] RUN make`, or `#7` for a step that is not an instruction.
    pub(in crate::executor) fn short_name(&self) -> String {
        match &self.place {
            Some(place) => format!("{}:{}", place.stage, place.number),
            None => format!("#{}", self.id.0),
        }
    }

    fn left_out(&self) -> MutexGuard<'_, Duration> {
        // A duration is whole at any time.
        pool::lock(&self.left_out)
    }

    fn leave_out(&self, time: Duration) {
        *self.left_out() += time;
    }

    /// Does work whose time counts for other steps and not for this one.
    pub(in crate::executor) fn beside<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        self.leave_out(started.elapsed());
        done
    }
}
