//! Events as JSON, one a line. The form is described by `docs/schemas/progress.schema.json`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cli::display::{reasons, redact, text};
use crate::cli::error::{CliError, Findings};
use crate::diag::{Diagnostic, Severity, SourceFile};
use crate::executor::{Event, Outcome, StageOutline, StepId, Stream};
use crate::plan::masked;

use super::totals::Totals;
use super::{Out, Requested, Result};

/// The version of the form; members may be added without a new one.
const VERSION: u32 = 1;
/// Bytes moved are told no more often than this, but for the last ones.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// A Dockerfile that is longer is not told.
const MAX_DOCKERFILE_BYTES: usize = 1 << 20;

/// The view.
#[derive(Debug)]
pub(crate) struct Json {
    started: Instant,
    /// The Dockerfile as it was typed.
    pub(crate) file: Option<String>,
    /// Beginnings of characters of which the rest did not come yet.
    open: BTreeMap<(StepId, Stream), Vec<u8>>,
    told: BTreeMap<StepId, Instant>,
}

impl Json {
    pub(crate) const fn new(started: Instant) -> Self {
        Self { started, file: None, open: BTreeMap::new(), told: BTreeMap::new() }
    }

    fn tell(&self, event: &str, mut members: Value, out: &mut Out<'_>) {
        redact::value(&mut members);
        let mut all = json!({ "event": event, "seconds": seconds(self.started.elapsed()) });
        if let (Some(all), Value::Object(members)) = (all.as_object_mut(), members) {
            all.extend(members.into_iter().filter(|(_, value)| !value.is_null()));
        }
        out.exact(&text::shown_json(&all.to_string()));
    }

    pub(crate) fn started(&self, now_s: i64, out: &mut Out<'_>) {
        let now = Duration::from_secs(u64::try_from(now_s).unwrap_or(0));
        let time = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + now).to_string();
        let rbuild = env!("CARGO_PKG_VERSION");
        self.tell("started", json!({ "version": VERSION, "rbuild": rbuild, "time": time }), out);
    }

    /// What the command line asked for.
    pub(crate) fn requested(&self, requested: &Requested, out: &mut Out<'_>) {
        let Requested { directory, context, dockerfile, target, platforms, names } = requested;
        let members = json!({
            "folder": directory,
            "context": context,
            "dockerfile": dockerfile,
            "target": target,
            "platforms": platforms,
            "names": names,
        });
        self.tell("requested", members, out);
    }

    /// The Dockerfile, if it is no longer than most are.
    pub(crate) fn dockerfile(&self, text: &str, out: &mut Out<'_>) {
        if text.len() <= MAX_DOCKERFILE_BYTES {
            let path = self.file.as_deref().unwrap_or("Dockerfile");
            let text = masked(text);
            self.tell("dockerfile", json!({ "path": path, "text": text }), out);
        }
    }

    pub(crate) fn event(&mut self, event: &Event, out: &mut Out<'_>) {
        match event {
            Event::Planned { stages } => {
                let stages: Vec<Value> = stages.iter().map(outline).collect();
                self.tell("planned", json!({ "stages": stages }), out);
            }
            Event::Started { step, name, place } => {
                let mut members = json!({ "step": step.0, "name": name });
                if let (Some(place), Some(members)) = (place, members.as_object_mut()) {
                    members.insert("stage".to_owned(), json!(place.stage));
                    members.insert("number".to_owned(), json!(place.number));
                    members.insert("of".to_owned(), json!(place.of));
                    members.insert("instruction".to_owned(), json!(place.instruction));
                }
                self.tell("step_started", members, out);
            }
            Event::Explained { step, reason } => {
                let members = json!({ "step": step.0, "reason": reasons::text(reason) });
                self.tell("step_explained", members, out);
            }
            Event::Executing { step } => {
                self.tell("step_executing", json!({ "step": step.0 }), out);
            }
            Event::Output { step, stream, bytes } => self.output(*step, *stream, bytes, out),
            Event::Progress { step, done_bytes, total_bytes } => {
                let told = self.told.get(step);
                let is_due = told.is_none_or(|told| told.elapsed() >= PROGRESS_EVERY);
                if is_due || done_bytes == total_bytes {
                    self.told.insert(*step, Instant::now());
                    let members = json!({
                        "step": step.0, "done_bytes": done_bytes, "total_bytes": total_bytes,
                    });
                    self.tell("progress", members, out);
                }
            }
            Event::Made { step, layer, n_bytes } => {
                let members = json!({ "step": step.0, "layer": layer, "bytes": n_bytes });
                self.tell("step_layer", members, out);
            }
            Event::Finished { step, outcome, took } => {
                for stream in [Stream::Stdout, Stream::Stderr] {
                    // What is left will never be a character.
                    if let Some(bytes) = self.open.remove(&(*step, stream)) {
                        self.tell_bytes(*step, stream, &bytes, out);
                    }
                }
                self.told.remove(step);
                let (outcome, took) = (outcome_name(*outcome), seconds(*took));
                let members = json!({ "step": step.0, "outcome": outcome, "took_seconds": took });
                self.tell("step_finished", members, out);
            }
            Event::Warning { text } => self.tell("warning", json!({ "text": text }), out),
            Event::Note { text } => self.tell("note", json!({ "text": text }), out),
            Event::Wrote { path } => {
                self.tell("wrote", json!({ "path": path.to_string_lossy() }), out);
            }
            Event::Pushed { name, digest } => {
                self.tell("pushed", json!({ "name": name, "digest": digest }), out);
            }
        }
    }

    /// As text where it is text, characters whole; else as it is.
    fn output(&mut self, step: StepId, stream: Stream, bytes: &[u8], out: &mut Out<'_>) {
        let mut all = self.open.remove(&(step, stream)).unwrap_or_default();
        all.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&all) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => all.len(),
        };
        let open = all.split_off(whole);
        if !open.is_empty() {
            self.open.insert((step, stream), open);
        }
        self.tell_bytes(step, stream, &all, out);
    }

    fn tell_bytes(&self, step: StepId, stream: Stream, bytes: &[u8], out: &mut Out<'_>) {
        if bytes.is_empty() {
            return;
        }
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let (text, base64) = match std::str::from_utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(_not_text) => (None, Some(STANDARD.encode(bytes))),
        };
        let members = json!({ "step": step.0, "stream": stream, "text": text, "base64": base64 });
        self.tell("output", members, out);
    }

    pub(crate) fn diagnostics(&self, found: &[Diagnostic], source: &SourceFile, out: &mut Out<'_>) {
        for diagnostic in found {
            let severity = match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let from = source.line_column(diagnostic.span.start);
            let to = source.line_column(diagnostic.span.end);
            let members = json!({
                "severity": severity,
                "code": diagnostic.code.as_str(),
                "message": diagnostic.message,
                "file": self.file.as_deref().unwrap_or(source.name()),
                "line": from.line,
                "column": from.column,
                "end_line": to.line,
                "end_column": to.column,
                "helps": diagnostic.helps,
            });
            self.tell("diagnostic", members, out);
        }
    }

    pub(crate) fn built(
        &self,
        result: &Result<'_>,
        totals: &Totals,
        took: Duration,
        out: &mut Out<'_>,
    ) {
        let images = result.images.iter().map(|image| {
            let mut shown = json!({
                "platform": image.platform.to_string(),
                "layers": image.layers.len(),
            });
            if let (Some(n_bytes), Some(shown)) = (image.tar_bytes(), shown.as_object_mut()) {
                shown.insert("bytes".to_owned(), json!(n_bytes));
            }
            shown
        });
        let new = totals.new.iter().map(
            |layer| json!({ "step": layer.step.0, "layer": layer.diff_id, "bytes": layer.n_bytes }),
        );
        let members = json!({
            "id": result.id,
            "digest": result.digest,
            "names": result.names,
            "layer_bytes": result.tar_bytes(),
            "took_seconds": seconds(took),
            "steps": totals.n_steps,
            "cached": totals.n_cached,
            "images": images.collect::<Vec<Value>>(),
            "new_layers": new.collect::<Vec<Value>>(),
        });
        self.tell("built", members, out);
    }

    pub(crate) fn failed(&self, complaint: &CliError, took: Duration, out: &mut Out<'_>) {
        if let Some(Findings { diagnostics, source }) = complaint.findings() {
            self.diagnostics(diagnostics, source, out);
        }
        let summary = complaint.summary();
        // Text after a blank line is advice, such as the usage of a command.
        let message = summary.split("\n\n").next();
        let members = json!({
            "message": message,
            "exit_status": complaint.exit().code(),
            "took_seconds": seconds(took),
            "last_lines": complaint.last_lines(),
            "text": text::shown_lines(&complaint.to_string()),
        });
        self.tell("failed", members, out);
    }
}

/// The members that are not there are nothing.
fn outline(stage: &StageOutline) -> Value {
    let StageOutline { name, base, parent, needs, instructions } = stage;
    let mut members = json!({ "name": name, "needs": needs, "instructions": instructions });
    if let Some(members) = members.as_object_mut() {
        members.extend(base.as_ref().map(|base| ("base".to_owned(), json!(base))));
        members.extend(parent.map(|parent| ("parent".to_owned(), json!(parent))));
    }
    members
}

const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Cached => "cached",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "cancelled",
    }
}

/// To the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_told_in_whole_characters_and_as_it_is_if_it_is_none() {
        let told = |chunks: &[&[u8]]| -> Vec<String> {
            let mut bytes = Vec::new();
            let mut out = Out::new(&mut bytes);
            let mut view = Json::new(Instant::now());
            for chunk in chunks {
                let (step, stream, bytes) = (StepId(1), Stream::Stdout, chunk.to_vec());
                view.event(&Event::Output { step, stream, bytes }, &mut out);
            }
            let (step, outcome, took) = (StepId(1), Outcome::Done, Duration::ZERO);
            view.event(&Event::Finished { step, outcome, took }, &mut out);
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
        assert_eq!(told(&[b"a\xc3", b"\xa4\x1b[1m\n"]), ["a", "ä\u{1b}[1m\n"]);
        assert_eq!(told(&[b"\xff", b"b"]), ["base64 /w==", "b"]);
        assert_eq!(told(&[b"\xe2\x82"]), ["base64 4oI="]);
    }
}
