//! A build as its events tell it: what the store keeps of it, read again.

mod kept_output;
mod printed;
pub(super) mod recorder;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

pub(super) use printed::{Piece, Printed};

/// What happened in a build.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Seconds since 1970.
    pub(super) started_s: i64,
    /// The version of the rbuild that ran.
    pub(super) rbuild: String,
    pub(super) requested: Requested,
    pub(super) dockerfile: Option<Dockerfile>,
    /// The stages that it needed, each after those that it needs itself.
    pub(super) stages: Vec<Stage>,
    /// By number.
    pub(super) steps: BTreeMap<u32, Step>,
    pub(super) warnings: Vec<String>,
    pub(super) diagnostics: Vec<Found>,
    /// Where the image went.
    pub(super) sent: Vec<String>,
    /// Nothing if it did not come to an end.
    pub(super) end: Option<End>,
}

/// What the command line asked for.
#[derive(Debug, Default, Clone, Deserialize)]
pub(super) struct Requested {
    #[serde(rename = "folder")]
    pub(super) directory: String,
    pub(super) context: String,
    pub(super) dockerfile: Option<String>,
    pub(super) target: Option<String>,
    #[serde(default)]
    pub(super) platforms: Vec<String>,
    #[serde(default)]
    pub(super) names: Vec<String>,
}

impl Requested {
    /// Where the context is.
    pub(super) fn place(&self) -> String {
        let is_elsewhere = self.context == "-" || self.context.contains("://");
        match self.context.as_str() {
            context if is_elsewhere || context.starts_with('/') => context.to_owned(),
            "." => self.directory.clone(),
            context => format!("{}/{}", self.directory.trim_end_matches('/'), context),
        }
    }
}

/// The Dockerfile, as it was read.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Dockerfile {
    pub(super) path: String,
    pub(super) text: String,
}

/// A stage that the result needs.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Stage {
    pub(super) name: String,
    /// The image that it starts from, if it does.
    pub(super) base: Option<String>,
    /// Places of the stages that it starts from, copies from or mounts.
    pub(super) parent: Option<usize>,
    pub(super) needs: Vec<usize>,
    /// Those that make layers, FROM not among them.
    pub(super) instructions: Vec<String>,
}

/// One step.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// As logs show it.
    pub(super) name: String,
    /// In one line, if it is one.
    pub(super) instruction: Option<String>,
    /// Of an instruction: its stage, and its place among those of it, from 1.
    pub(super) place: Option<(String, usize)>,
    /// Since the start of the build.
    pub(super) started: f64,
    /// Whether its command ran.
    pub(super) executed: bool,
    /// Why it was not found in the cache.
    pub(super) reason: Option<String>,
    /// The digest of its layer, and the bytes of that.
    pub(super) layer: Option<(String, u64)>,
    /// Bytes that it moved.
    pub(super) n_bytes: u64,
    /// How it ended, and how many seconds it took.
    pub(super) end: Option<(Outcome, f64)>,
    pub(super) printed: Printed,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Done,
    Cached,
    Failed,
    Cancelled,
}

/// A mistake in the Dockerfile, or something odd.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Found {
    pub(super) severity: String,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) file: String,
    pub(super) line: u32,
    #[serde(default)]
    pub(super) end_line: u32,
    #[serde(default)]
    pub(super) helps: Vec<String>,
}

/// How a build ended.
#[derive(Debug)]
pub(super) enum End {
    Built { id: String, digest: String, layer_bytes: Option<u64>, took: f64 },
    Failed { message: String, text: String, last_lines: Vec<String>, exit_status: u8, took: f64 },
}

/// What became of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Built,
    Failed,
    Interrupted,
    /// It has no end yet.
    Running,
    /// It never came to its end.
    Killed,
}

impl Status {
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

/// Whether what steps printed is read, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logs {
    Read,
    /// Of each step the beginning and the end, if it is much.
    Ends,
    Skip,
}

/// One line of the file; what is not told apart here is `Other`.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Started {
        time: String,
        #[serde(default)]
        rbuild: String,
    },
    Requested(Requested),
    Dockerfile(Dockerfile),
    Planned {
        stages: Vec<Stage>,
    },
    StepStarted {
        step: u32,
        seconds: f64,
        name: String,
        stage: Option<String>,
        number: Option<usize>,
        instruction: Option<String>,
    },
    StepExecuting {
        step: u32,
        seconds: f64,
    },
    StepExplained {
        step: u32,
        reason: String,
    },
    Output {
        step: u32,
        seconds: f64,
        text: Option<String>,
        base64: Option<String>,
    },
    Progress {
        step: u32,
        done_bytes: u64,
    },
    StepLayer {
        step: u32,
        layer: String,
        bytes: u64,
    },
    StepFinished {
        step: u32,
        outcome: Outcome,
        took_seconds: f64,
    },
    Warning {
        text: String,
    },
    Wrote {
        path: String,
    },
    Pushed {
        name: String,
        digest: String,
    },
    Diagnostic(Found),
    Built {
        id: String,
        #[serde(default)]
        digest: String,
        layer_bytes: Option<u64>,
        took_seconds: f64,
    },
    Failed {
        message: String,
        #[serde(default)]
        text: String,
        #[serde(default)]
        last_lines: Vec<String>,
        exit_status: u8,
        took_seconds: f64,
    },
    #[serde(other)]
    Other,
}

impl Step {
    /// Whether it is a FROM, which makes nothing.
    pub(super) fn is_from(&self) -> bool {
        self.place.as_ref().is_some_and(|(_, number)| *number == 1)
    }
}

impl Recorded {
    /// Reads what a build left; lines that cannot be read, such as one that was cut short, tell nothing.
    ///
    /// # Errors
    /// If `from` cannot be read.
    pub(super) fn read(from: impl Read, logs: Logs) -> std::io::Result<Self> {
        let mut recorded = Self::default();
        let mut n_kept = 0;
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line)? > 0 {
            if let Ok(line) = serde_json::from_slice(&line) {
                recorded.take(line, logs, &mut n_kept);
            }
            line.clear();
        }
        Ok(recorded)
    }

    fn take(&mut self, line: Line, logs: Logs, n_kept: &mut usize) {
        match line {
            Line::Started { time, rbuild } => {
                self.started_s = unix_s(&time);
                self.rbuild = rbuild;
            }
            Line::Requested(requested) => self.requested = requested,
            Line::Dockerfile(dockerfile) => self.dockerfile = Some(dockerfile),
            Line::Planned { stages } => self.stages = stages,
            Line::StepStarted { step, seconds, name, stage, number, instruction } => {
                let (place, started) = (stage.zip(number), seconds);
                let this = Step { name, instruction, place, started, ..Step::default() };
                self.steps.insert(step, this);
            }
            Line::StepExecuting { step, seconds } => self.step(step).execute(seconds),
            Line::StepExplained { step, reason } => self.step(step).reason = Some(reason),
            Line::Output { step, seconds, text, base64 } if logs != Logs::Skip => {
                let bytes = || STANDARD.decode(base64.unwrap_or_default()).unwrap_or_default();
                let bytes = text.map_or_else(bytes, String::into_bytes);
                let step = self.step(step);
                let at = seconds - step.started;
                match logs {
                    Logs::Ends => step.printed.push_end(at, bytes, n_kept),
                    Logs::Read | Logs::Skip => step.printed.push(at, bytes),
                }
            }
            Line::Progress { step, done_bytes } => self.step(step).n_bytes = done_bytes,
            Line::StepLayer { step, layer, bytes } => self.step(step).layer = Some((layer, bytes)),
            Line::StepFinished { step, outcome, took_seconds } => {
                self.step(step).end = Some((outcome, took_seconds));
            }
            Line::Warning { text } => self.warnings.push(text),
            Line::Wrote { path } => self.sent.push(path),
            Line::Pushed { name, digest } => self.sent.push(format!("{name}@{digest}")),
            Line::Diagnostic(found) => self.diagnostics.push(found),
            Line::Built { id, digest, layer_bytes, took_seconds } => {
                let took = took_seconds;
                self.end = Some(End::Built { id, digest, layer_bytes, took });
            }
            Line::Failed { message, text, last_lines, exit_status, took_seconds } => {
                let took = took_seconds;
                self.end = Some(End::Failed { message, text, last_lines, exit_status, took });
            }
            Line::Output { .. } | Line::Other => {}
        }
    }

    fn step(&mut self, number: u32) -> &mut Step {
        self.steps.entry(number).or_default()
    }

    /// The instructions, in the order in which they started.
    pub(super) fn instructions(&self) -> impl Iterator<Item = (u32, &Step)> + Clone {
        self.steps.iter().filter(|(_, step)| step.place.is_some()).map(|(id, step)| (*id, step))
    }

    /// What became of it, in a word.
    pub(super) const fn status(&self, is_running: bool) -> Status {
        match &self.end {
            Some(End::Built { .. }) => Status::Built,
            Some(End::Failed { exit_status: 130, .. }) => Status::Interrupted,
            Some(End::Failed { .. }) => Status::Failed,
            None if is_running => Status::Running,
            None => Status::Killed,
        }
    }

    /// The complaints about the Dockerfile that stop nothing.
    pub(super) fn found_warnings(&self) -> impl Iterator<Item = &Found> {
        self.diagnostics.iter().filter(|found| found.severity == "warning")
    }

    /// How many seconds it took, if it came to an end.
    pub(super) const fn took_s(&self) -> Option<f64> {
        match self.end {
            Some(End::Built { took, .. } | End::Failed { took, .. }) => Some(took),
            None => None,
        }
    }

    /// How many instructions were met, FROM not among them, and how many of them were in the cache.
    pub(super) fn counts(&self) -> (usize, usize) {
        let is_cached = |step: &Step| matches!(step.end, Some((Outcome::Cached, _)));
        let made = self.instructions().filter(|(_, step)| !step.is_from());
        (made.clone().count(), made.filter(|(_, step)| is_cached(step)).count())
    }
}

/// Seconds since 1970; 0 for what is no time.
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
    fn events_are_read_again_and_what_is_unknown_tells_nothing() {
        let recorded = Recorded::read(LINES.as_bytes(), Logs::Read).unwrap();
        assert_eq!(recorded.started_s, 1_769_860_800);
        assert_eq!(recorded.requested.names, ["app"]);
        let step = &recorded.steps[&1];
        assert_eq!(step.printed.pieces(), [(0.25, b"out\n".to_vec()), (1.0, b"\xff".to_vec())]);
        assert_eq!(step.end, Some((Outcome::Done, 2.0)));
        assert!(matches!(recorded.end, Some(End::Built { layer_bytes: Some(7), .. })));
        assert_eq!(recorded.counts(), (1, 0));
        let without = Recorded::read(LINES.as_bytes(), Logs::Skip).unwrap();
        assert!(without.steps[&1].printed.is_empty());
    }
}
