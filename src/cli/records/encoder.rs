//! Turns what happens during a command into lines of JSON, one [`BuildEvent`] each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::cli::display::{reasons, redact, text};
use crate::cli::error::{CliError, Findings};
use crate::cli::progress::BuildResult;
use crate::cli::progress::out::Out;
use crate::cli::progress::totals::Totals;
use crate::diag::{Diagnostic, Severity, SourceFile};
use crate::executor::{Event, Outcome, StageOutline, StepId, Stream};
use crate::plan::masked;

use super::build_event::{
    BuildEvent, BuiltImageSummary, BuiltSummary, DockerfileText, FailureSummary, LocatedDiagnostic,
    NewLayerSummary, OutputStream, PlannedStage, Requested, StepOutcome, VERSION,
};

/// Minimum time between two `progress` lines of a step. The last one is always written.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// A longer Dockerfile is left out.
const MAX_DOCKERFILE_BYTES: usize = 1 << 20;

/// Writes lines of JSON.
#[derive(Debug)]
pub(crate) struct EventEncoder {
    started: Instant,
    /// The path of the Dockerfile, for diagnostics.
    pub(crate) file: Option<String>,
    /// First bytes of characters whose other bytes have not arrived yet.
    partial: BTreeMap<(StepId, Stream), Vec<u8>>,
    /// Time of each step's last `progress` line.
    reported: BTreeMap<StepId, Instant>,
}

impl EventEncoder {
    /// Counts seconds from `started`.
    pub(crate) const fn new(started: Instant) -> Self {
        Self { started, file: None, partial: BTreeMap::new(), reported: BTreeMap::new() }
    }

    /// Writes one line, without credentials.
    fn write(&self, event: &BuildEvent, out: &mut Out<'_>) {
        let mut line = serde_json::to_value(event).expect("events always serialize");
        redact::value(&mut line);
        if let Some(members) = line.as_object_mut() {
            members.insert("seconds".to_owned(), json!(seconds(self.started.elapsed())));
        }
        out.exact(&text::shown_json(&line.to_string()));
    }

    /// Writes the first line.
    pub(crate) fn started(&self, now_s: i64, out: &mut Out<'_>) {
        let now = Duration::from_secs(u64::try_from(now_s).unwrap_or(0));
        let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + now).to_string();
        let rbuild = env!("CARGO_PKG_VERSION").to_owned();
        self.write(&BuildEvent::Started { version: VERSION, rbuild, time }, out);
    }

    /// Writes the command line of a build.
    pub(crate) fn requested(&self, requested: &Requested, out: &mut Out<'_>) {
        self.write(&BuildEvent::Requested(requested.clone()), out);
    }

    /// Writes the Dockerfile, unless it is unusually long.
    pub(crate) fn dockerfile(&self, text: &str, out: &mut Out<'_>) {
        if text.len() <= MAX_DOCKERFILE_BYTES {
            let path = self.file.clone().unwrap_or_else(|| "Dockerfile".to_owned());
            let text = masked(text).into();
            self.write(&BuildEvent::Dockerfile(DockerfileText { path, text }), out);
        }
    }

    /// Writes an event of the executor; of `progress` not every one.
    pub(crate) fn event(&mut self, event: &Event, out: &mut Out<'_>) {
        let line = match event {
            Event::Output { step, stream, bytes } => {
                return self.output(*step, *stream, bytes, out);
            }
            Event::Planned { stages } => {
                BuildEvent::Planned { stages: stages.iter().map(planned_stage).collect() }
            }
            Event::Started { step, name, place } => {
                let place = place.as_ref();
                BuildEvent::StepStarted {
                    step: step.0,
                    name: name.clone(),
                    stage: place.map(|place| place.stage.clone()),
                    number: place.map(|place| place.number),
                    of: place.map(|place| place.of),
                    instruction: place.map(|place| place.instruction.clone()),
                }
            }
            Event::Explained { step, reason } => {
                BuildEvent::StepExplained { step: step.0, reason: reasons::text(reason) }
            }
            Event::Isolated { isolation, remarks } => BuildEvent::Isolation {
                isolation: isolation.name().to_owned(),
                remarks: remarks.clone(),
            },
            Event::Executing { step } => BuildEvent::StepExecuting { step: step.0 },
            Event::Progress { step, done_bytes, total_bytes } => {
                let reported = self.reported.get(step);
                let is_due = reported.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY);
                if !is_due && done_bytes != total_bytes {
                    return;
                }
                self.reported.insert(*step, Instant::now());
                let (done_bytes, total_bytes) = (*done_bytes, *total_bytes);
                BuildEvent::Progress { step: step.0, done_bytes, total_bytes }
            }
            Event::Made { step, layer, n_bytes } => {
                BuildEvent::StepLayer { step: step.0, layer: layer.to_string(), bytes: *n_bytes }
            }
            Event::Finished { step, outcome, took } => {
                self.end_output(*step, out);
                let (outcome, took_seconds) = (step_outcome(*outcome), seconds(*took));
                BuildEvent::StepFinished { step: step.0, outcome, took_seconds }
            }
            Event::Warning { text } => BuildEvent::Warning { text: text.clone() },
            Event::Note { text } => BuildEvent::Note { text: text.clone() },
            Event::Wrote { path } => {
                BuildEvent::Wrote { path: path.to_string_lossy().into_owned() }
            }
            Event::Pushed { name, digest } => {
                BuildEvent::Pushed { name: name.clone(), digest: digest.to_string() }
            }
        };
        self.write(&line, out);
    }

    /// Writes output, cut between characters: a chunk may end inside of one.
    fn output(&mut self, step: StepId, stream: Stream, bytes: &[u8], out: &mut Out<'_>) {
        let mut all = self.partial.remove(&(step, stream)).unwrap_or_default();
        all.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&all) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => all.len(),
        };
        let partial = all.split_off(whole);
        if !partial.is_empty() {
            self.partial.insert((step, stream), partial);
        }
        self.write_output(step, stream, all, out);
    }

    /// Writes incomplete characters, of which nothing more will arrive.
    fn end_output(&mut self, step: StepId, out: &mut Out<'_>) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(bytes) = self.partial.remove(&(step, stream)) {
                self.write_output(step, stream, bytes, out);
            }
        }
        self.reported.remove(&step);
    }

    fn write_output(&self, step: StepId, stream: Stream, bytes: Vec<u8>, out: &mut Out<'_>) {
        if bytes.is_empty() {
            return;
        }
        let stream = match stream {
            Stream::Stdout => OutputStream::Stdout,
            Stream::Stderr => OutputStream::Stderr,
        };
        let (text, base64) = match String::from_utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
        };
        self.write(&BuildEvent::Output { step: step.0, stream, text, base64 }, out);
    }

    /// Writes a line for each diagnostic.
    pub(crate) fn diagnostics(&self, found: &[Diagnostic], source: &SourceFile, out: &mut Out<'_>) {
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        for diagnostic in found {
            let severity = match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let from = source.line_column(diagnostic.span.start);
            let to = source.line_column(diagnostic.span.end);
            let located = LocatedDiagnostic {
                severity: severity.to_owned(),
                code: diagnostic.code.as_str().to_owned(),
                message: diagnostic.message.clone(),
                file: self.file.clone().unwrap_or_else(|| source.name().to_owned()),
                line: number(from.line),
                column: number(from.column),
                end_line: number(to.line),
                end_column: number(to.column),
                helps: diagnostic.helps.clone(),
            };
            self.write(&BuildEvent::Diagnostic(located), out);
        }
    }

    /// Writes the result of a build.
    pub(crate) fn built(
        &self,
        result: &BuildResult<'_>,
        totals: &Totals,
        took: Duration,
        out: &mut Out<'_>,
    ) {
        let images = result.images.iter().map(|image| BuiltImageSummary {
            platform: image.platform.to_string(),
            layers: image.layers.len(),
            bytes: image.tar_bytes(),
        });
        let new_layers = totals.new.iter().map(|layer| NewLayerSummary {
            step: layer.step.0,
            layer: layer.diff_id.to_string(),
            bytes: layer.n_bytes,
        });
        let summary = BuiltSummary {
            id: result.id.to_string(),
            digest: result.digest.to_string(),
            names: result.names.to_vec(),
            layer_bytes: result.tar_bytes(),
            took_seconds: seconds(took),
            steps: totals.n_steps,
            cached: totals.n_cached,
            images: images.collect(),
            new_layers: new_layers.collect(),
        };
        self.write(&BuildEvent::Built(summary), out);
    }

    /// Writes the error that ended the command, after its diagnostics.
    pub(crate) fn failed(&self, error: &CliError, took: Duration, out: &mut Out<'_>) {
        if let Some(Findings { diagnostics, source }) = error.findings() {
            self.diagnostics(diagnostics, source, out);
        }
        let summary = error.summary();
        // Text after a blank line is advice, such as the usage of a command.
        let message = summary.split("\n\n").next().unwrap_or_default().to_owned();
        let failure = FailureSummary {
            message,
            exit_status: error.exit().code(),
            took_seconds: seconds(took),
            last_lines: error.last_lines().to_vec(),
            text: text::shown_lines(&error.to_string()),
        };
        self.write(&BuildEvent::Failed(failure), out);
    }
}

fn planned_stage(stage: &StageOutline) -> PlannedStage {
    let StageOutline { name, base, parent, needs, instructions } = stage.clone();
    PlannedStage { name, base, parent, needs, instructions }
}

const fn step_outcome(outcome: Outcome) -> StepOutcome {
    match outcome {
        Outcome::Done => StepOutcome::Done,
        Outcome::Cached => StepOutcome::Cached,
        Outcome::Failed => StepOutcome::Failed,
        Outcome::Cancelled => StepOutcome::Cancelled,
    }
}

/// Returns seconds, rounded to milliseconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn output_is_cut_between_characters_and_base64_where_it_is_not_text() {
        let written = |chunks: &[&[u8]]| -> Vec<String> {
            let mut bytes = Vec::new();
            let mut out = Out::new(&mut bytes);
            let mut encoder = EventEncoder::new(Instant::now());
            for chunk in chunks {
                let (step, stream, bytes) = (StepId(1), Stream::Stdout, chunk.to_vec());
                encoder.event(&Event::Output { step, stream, bytes }, &mut out);
            }
            let (step, outcome, took) = (StepId(1), Outcome::Done, Duration::ZERO);
            encoder.event(&Event::Finished { step, outcome, took }, &mut out);
            let text = String::from_utf8(bytes).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let outputs = lines.filter(|line| line["event"] == "output");
            outputs
                .map(|line| match line["text"].as_str() {
                    Some(text) => text.to_owned(),
                    None => format!("base64 {}", line["base64"].as_str().unwrap()),
                })
                .collect()
        };
        assert_eq!(written(&[b"a\xc3", b"\xa4\x1b[1m\n"]), ["a", "ä\u{1b}[1m\n"]);
        assert_eq!(written(&[b"\xff", b"b"]), ["base64 /w==", "b"]);
        assert_eq!(written(&[b"\xe2\x82"]), ["base64 4oI="]);
    }
}
