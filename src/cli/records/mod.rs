//! Records of builds in the store: one [`BuildEvent`] a line, written by [`recorder`] and read here.

pub(super) mod build_event;
pub(super) mod encoder;
mod kept_output;
pub(super) mod recorder;
mod step_output;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use build_event::BuildEvent;

pub(super) use build_event::{
    BuiltSummary, DockerfileText, FailureSummary, LocatedDiagnostic, PlannedStage, Requested,
    StepOutcome,
};
pub(super) use step_output::{OutputChunk, StepOutput};

/// A build, read from its record.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Unix time in seconds.
    pub(super) started_s: i64,
    /// The version of the rbuild that ran.
    pub(super) rbuild: String,
    pub(super) requested: Requested,
    pub(super) dockerfile: Option<DockerfileText>,
    /// The stages that the target needed, each after those that it needs itself.
    pub(super) stages: Vec<PlannedStage>,
    /// Steps by number, in the order in which they started.
    pub(super) steps: BTreeMap<u32, RecordedStep>,
    /// Name of the isolation of steps, if one was executed.
    pub(super) isolation: Option<String>,
    pub(super) warnings: Vec<String>,
    pub(super) diagnostics: Vec<LocatedDiagnostic>,
    /// Files that were written and images that were pushed.
    pub(super) sent: Vec<String>,
    /// Missing while the build runs, and if rbuild was killed.
    pub(super) end: Option<BuildEnd>,
}

/// A step of a recorded build.
#[derive(Debug, Default)]
pub(super) struct RecordedStep {
    /// The step as logs show it: `[build 2/5] RUN make`.
    pub(super) name: String,
    /// The instruction on one line, if the step is one.
    pub(super) instruction: Option<String>,
    /// Stage of an instruction, and its position there, from 1.
    pub(super) place: Option<(String, usize)>,
    /// Seconds since the start of the build.
    pub(super) started: f64,
    /// True if a command ran.
    pub(super) executed: bool,
    /// The reason why the step was not cached.
    pub(super) reason: Option<String>,
    /// DiffId of its layer, and the length of the uncompressed tar.
    pub(super) layer: Option<(String, u64)>,
    /// Bytes that it transferred.
    pub(super) n_bytes: u64,
    /// Its outcome, and the seconds it took.
    pub(super) end: Option<(StepOutcome, f64)>,
    pub(super) output: StepOutput,
}

/// The end of a build.
#[derive(Debug)]
pub(super) enum BuildEnd {
    Built(BuiltSummary),
    Failed(FailureSummary),
}

/// State of a build in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuildStatus {
    Built,
    Failed,
    Interrupted,
    /// The record has no end, and its writer is alive.
    Running,
    /// The record has no end, and nobody writes it.
    Killed,
}

impl BuildStatus {
    /// Returns the word that lists and JSON show.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Running => "running",
            Self::Killed => "killed",
        }
    }
}

/// The amount of step output that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logs {
    Read,
    /// The beginning and the end of each step's output.
    Ends,
    Skip,
}

impl RecordedStep {
    /// Returns whether the step is a FROM, which makes no layer.
    pub(super) fn is_from(&self) -> bool {
        self.place.as_ref().is_some_and(|(_, number)| *number == 1)
    }

    /// Notes that the command starts: the step's time counts from here.
    const fn execute(&mut self, seconds: f64) {
        (self.executed, self.started) = (true, seconds);
    }
}

/// The time of a line, in seconds since the start of the build.
#[derive(Deserialize)]
struct LineTime {
    #[serde(default)]
    seconds: f64,
}

/// Returns the time of a line. Most lines are read without it.
fn seconds_of(line: &[u8]) -> f64 {
    serde_json::from_slice(line).map_or(0.0, |LineTime { seconds }| seconds)
}

impl Recorded {
    /// Reads a record. Skips lines that cannot be read, such as a truncated last one.
    ///
    /// # Errors
    /// If `from` cannot be read.
    pub(super) fn read(from: impl Read, logs: Logs) -> std::io::Result<Self> {
        let mut recorded = Self::default();
        let mut n_kept = 0;
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line)? > 0 {
            if let Ok(event) = serde_json::from_slice(&line) {
                recorded.add(event, &line, logs, &mut n_kept);
            }
            line.clear();
        }
        Ok(recorded)
    }

    fn add(&mut self, event: BuildEvent, line: &[u8], logs: Logs, n_kept: &mut usize) {
        match event {
            BuildEvent::Started { time, rbuild, .. } => {
                self.started_s = unix_s(&time);
                self.rbuild = rbuild;
            }
            BuildEvent::Requested(requested) => self.requested = requested,
            BuildEvent::Dockerfile(dockerfile) => self.dockerfile = Some(dockerfile),
            BuildEvent::Planned { stages } => self.stages = stages,
            BuildEvent::StepStarted { step, name, stage, number, instruction, .. } => {
                let (place, started) = (stage.zip(number), seconds_of(line));
                let this = RecordedStep { name, instruction, place, started, ..Default::default() };
                self.steps.insert(step, this);
            }
            BuildEvent::Isolation { isolation, .. } => self.isolation = Some(isolation),
            BuildEvent::StepExecuting { step } => self.step(step).execute(seconds_of(line)),
            BuildEvent::StepExplained { step, reason } => self.step(step).reason = Some(reason),
            BuildEvent::Output { step, text, base64, .. } if logs != Logs::Skip => {
                let bytes = || STANDARD.decode(base64.unwrap_or_default()).unwrap_or_default();
                let bytes = text.map_or_else(bytes, String::into_bytes);
                let step = self.step(step);
                let at = seconds_of(line) - step.started;
                match logs {
                    Logs::Ends => step.output.push_end(at, bytes, n_kept),
                    Logs::Read | Logs::Skip => step.output.push(at, bytes),
                }
            }
            BuildEvent::Progress { step, done_bytes, .. } => self.step(step).n_bytes = done_bytes,
            BuildEvent::StepLayer { step, layer, bytes } => {
                self.step(step).layer = Some((layer, bytes));
            }
            BuildEvent::StepFinished { step, outcome, took_seconds } => {
                self.step(step).end = Some((outcome, took_seconds));
            }
            BuildEvent::Warning { text } => self.warnings.push(text),
            BuildEvent::Wrote { path } => self.sent.push(path),
            BuildEvent::Pushed { name, digest } => self.sent.push(format!("{name}@{digest}")),
            BuildEvent::Diagnostic(found) => self.diagnostics.push(found),
            BuildEvent::Built(summary) => self.end = Some(BuildEnd::Built(summary)),
            BuildEvent::Failed(failure) => self.end = Some(BuildEnd::Failed(failure)),
            BuildEvent::Output { .. } | BuildEvent::Note { .. } | BuildEvent::Unknown => {}
        }
    }

    fn step(&mut self, number: u32) -> &mut RecordedStep {
        self.steps.entry(number).or_default()
    }

    /// Returns the instructions in the order in which they started.
    pub(super) fn instructions(&self) -> impl Iterator<Item = (u32, &RecordedStep)> + Clone {
        self.steps.iter().filter(|(_, step)| step.place.is_some()).map(|(id, step)| (*id, step))
    }

    /// Returns the state of the build; `is_running` if another process writes the record.
    pub(super) const fn status(&self, is_running: bool) -> BuildStatus {
        match &self.end {
            Some(BuildEnd::Built(_)) => BuildStatus::Built,
            // The status that shells give for SIGINT, as in [`crate::cli::Exit`].
            Some(BuildEnd::Failed(FailureSummary { exit_status: 130, .. })) => {
                BuildStatus::Interrupted
            }
            Some(BuildEnd::Failed(_)) => BuildStatus::Failed,
            None if is_running => BuildStatus::Running,
            None => BuildStatus::Killed,
        }
    }

    /// Returns the warnings about the Dockerfile.
    pub(super) fn found_warnings(&self) -> impl Iterator<Item = &LocatedDiagnostic> {
        self.diagnostics.iter().filter(|found| found.severity == "warning")
    }

    /// Returns the duration in seconds, if the build ended.
    pub(super) const fn took_s(&self) -> Option<f64> {
        match &self.end {
            Some(BuildEnd::Built(summary)) => Some(summary.took_seconds),
            Some(BuildEnd::Failed(failure)) => Some(failure.took_seconds),
            None => None,
        }
    }

    /// Returns the number of instructions without FROM, and how many of them were cached.
    pub(super) fn counts(&self) -> (usize, usize) {
        let is_cached = |step: &RecordedStep| matches!(step.end, Some((StepOutcome::Cached, _)));
        let made = self.instructions().filter(|(_, step)| !step.is_from());
        (made.clone().count(), made.filter(|(_, step)| is_cached(step)).count())
    }
}

/// Returns the Unix time in seconds, 0 if the text is not an RFC 3339 time.
fn unix_s(time: &str) -> i64 {
    let time = humantime::parse_rfc3339_weak(time).ok();
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"event":"started","seconds":0.0,"time":"2026-01-31T12:00:00Z","rbuild":"0.1.0","version":1}
{"event":"requested","seconds":0.0,"folder":"/w","context":".","platforms":[],"names":["app"]}
{"event":"step_started","seconds":0.5,"step":1,"name":"[a 2/2] RUN x","stage":"a","number":2,"of":2,"instruction":"RUN x"}
{"event":"of a later version","seconds":0.5}
{"event":"output","seconds":0.75,"step":1,"stream":"stdout","text":"out\n"}
{"event":"output","seconds":1.5,"step":1,"stream":"stderr","base64":"/w=="}
{"event":"step_finished","seconds":2.5,"step":1,"outcome":"done","took_seconds":2.0}
{"event":"built","seconds":3.0,"id":"sha256:1","layer_bytes":7,"took_seconds":3.0}
{"event":"cut"#;

    #[test]
    fn record_is_read_and_unknown_events_are_skipped() {
        let recorded = Recorded::read(LINES.as_bytes(), Logs::Read).unwrap();
        assert_eq!(recorded.started_s, 1_769_860_800);
        assert_eq!(recorded.requested.names, ["app"]);
        let step = &recorded.steps[&1];
        assert_eq!(step.output.chunks(), [(0.25, b"out\n".to_vec()), (1.0, b"\xff".to_vec())]);
        assert_eq!(step.end, Some((StepOutcome::Done, 2.0)));
        assert!(matches!(
            recorded.end,
            Some(BuildEnd::Built(BuiltSummary { layer_bytes: Some(7), .. }))
        ));
        assert_eq!(recorded.counts(), (1, 0));
        let without = Recorded::read(LINES.as_bytes(), Logs::Skip).unwrap();
        assert!(without.steps[&1].output.is_empty());
    }
}
