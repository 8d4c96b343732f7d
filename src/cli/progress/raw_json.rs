//! `--progress=rawjson`: BuildKit's `SolveStatus`, one object a line, which clients of Buildx read.
//! Errors are text, as Buildx writes them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::cli::display::text;
use crate::diag::{Diagnostic, SourceFile};
use crate::executor::{Event, Outcome, StageOutline, StepId, StepPlace, Stream};
use crate::oci::Digest;

use super::out::Out;
use super::sink::{Failure, Sink};
use super::solve_status::{
    SolveStatus, Vertex, VertexLog, VertexStatus, VertexWarning, base64, definition_vertex,
    vertex_warnings,
};

/// Minimum time between two statuses of a step. The last one is always written.
const STATUS_EVERY: Duration = Duration::from_millis(200);

/// Writes solve statuses to standard error.
#[derive(Debug)]
pub(super) struct RawJsonSink {
    started: Instant,
    now_s: i64,
    /// The step before each instruction that makes a layer.
    inputs: BTreeMap<Digest, Vec<Digest>>,
    /// Steps that have started and not ended.
    running: BTreeMap<StepId, Vertex>,
    /// Steps that failed, until the error is known.
    failed: Vec<Vertex>,
    /// Time of each step's last status.
    reported: BTreeMap<StepId, Instant>,
}

impl RawJsonSink {
    /// Tells time from `started`, which was `now_s` in Unix time.
    pub(super) const fn new(started: Instant, now_s: i64) -> Self {
        Self {
            started,
            now_s,
            inputs: BTreeMap::new(),
            running: BTreeMap::new(),
            failed: Vec::new(),
            reported: BTreeMap::new(),
        }
    }

    fn now(&self) -> String {
        let start = Duration::from_secs(u64::try_from(self.now_s).unwrap_or(0));
        let now = UNIX_EPOCH + start + self.started.elapsed();
        humantime::format_rfc3339_nanos(now).to_string()
    }

    fn vertexes(vertexes: Vec<Vertex>, out: &mut Out<'_>) {
        write(&SolveStatus { vertexes, ..SolveStatus::default() }, out);
    }

    /// Announces all instructions that make layers, as BuildKit does once it has its graph.
    fn planned(&mut self, stages: &[StageOutline], out: &mut Out<'_>) {
        let mut vertexes = Vec::new();
        for stage in stages {
            let parent = stage.parent.and_then(|parent| stages.get(parent));
            let mut input =
                parent.map(|parent| vertex_of(&parent.name, parent.instructions.len() + 1));
            let from = stage.base.as_ref().map(|base| format!("FROM {base}"));
            let of = stage.instructions.len() + 1;
            // A stage that starts from another one has no step for its FROM.
            let first = from.map(|instruction| (1, instruction));
            let others = stage.instructions.iter().cloned().enumerate();
            for (number, instruction) in first.into_iter().chain(others.map(|(at, t)| (at + 2, t)))
            {
                let digest = vertex_of(&stage.name, number);
                let inputs: Vec<Digest> = input.replace(digest).into_iter().collect();
                self.inputs.insert(digest, inputs.clone());
                let place = StepPlace { stage: stage.name.clone(), number, of, instruction };
                vertexes.push(Vertex { inputs, ..vertex(digest, place.to_string()) });
            }
        }
        Self::vertexes(vertexes, out);
    }

    fn step_started(
        &mut self,
        step: StepId,
        name: &str,
        place: Option<&StepPlace>,
        out: &mut Out<'_>,
    ) {
        let digest = place.map_or_else(
            || Digest::of(format!("{} {name}", step.0).as_bytes()),
            |place| vertex_of(&place.stage, place.number),
        );
        let inputs = self.inputs.get(&digest).cloned().unwrap_or_default();
        let started = Some(self.now());
        let started = Vertex { inputs, started, ..vertex(digest, name.to_owned()) };
        self.running.insert(step, started.clone());
        Self::vertexes(vec![started], out);
    }

    fn step_finished(&mut self, step: StepId, outcome: Outcome, out: &mut Out<'_>) {
        let Some(mut ended) = self.running.remove(&step) else { return };
        ended.completed = Some(self.now());
        match outcome {
            Outcome::Done => {}
            Outcome::Cached => ended.cached = true,
            // BuildKit's clients tell cancelled steps by this text.
            Outcome::Cancelled => "context canceled".clone_into(&mut ended.error),
            Outcome::Failed => return self.failed.push(ended),
        }
        Self::vertexes(vec![ended], out);
    }

    fn output(&self, step: StepId, stream: Stream, bytes: &[u8], out: &mut Out<'_>) {
        let Some(running) = self.running.get(&step) else { return };
        let stream = match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let log = VertexLog {
            vertex: running.digest,
            stream,
            data: base64(bytes),
            timestamp: self.now(),
        };
        write(&SolveStatus { logs: vec![log], ..SolveStatus::default() }, out);
    }

    fn transferred(&mut self, step: StepId, current: u64, total: u64, out: &mut Out<'_>) {
        let is_last = current == total;
        let is_due = self.reported.get(&step).is_none_or(|last| last.elapsed() >= STATUS_EVERY);
        let Some(running) = self.running.get(&step).filter(|_| is_due || is_last) else { return };
        let now = self.now();
        let status = VertexStatus {
            id: running.name.clone(),
            vertex: running.digest,
            name: "transferring",
            total,
            current,
            started: running.started.clone().unwrap_or_else(|| now.clone()),
            completed: is_last.then(|| now.clone()),
            timestamp: now,
        };
        self.reported.insert(step, Instant::now());
        write(&SolveStatus { statuses: vec![status], ..SolveStatus::default() }, out);
    }

    /// Reports the steps that failed with the error of the build.
    fn end_failed(&mut self, error: &str, out: &mut Out<'_>) {
        let failed = std::mem::take(&mut self.failed);
        let failed = failed.into_iter().map(|vertex| Vertex { error: error.to_owned(), ..vertex });
        Self::vertexes(failed.collect(), out);
    }
}

impl Sink for RawJsonSink {
    fn dockerfile(&mut self, name: &str, _text: &str, out: &mut Out<'_>) {
        let name = format!("[internal] load build definition from {name}");
        let now = Some(self.now());
        let read =
            Vertex { started: now.clone(), completed: now, ..vertex(definition_vertex(), name) };
        Self::vertexes(vec![read], out);
    }

    fn event(&mut self, event: &Event, out: &mut Out<'_>) {
        match event {
            Event::Planned { stages } => self.planned(stages, out),
            Event::Started { step, name, place } => {
                self.step_started(*step, name, place.as_ref(), out);
            }
            Event::Output { step, stream, bytes } => self.output(*step, *stream, bytes, out),
            Event::Progress { step, done_bytes, total_bytes } => {
                self.transferred(*step, *done_bytes, *total_bytes, out);
            }
            Event::Finished { step, outcome, .. } => self.step_finished(*step, *outcome, out),
            Event::Warning { text } => {
                let warnings = vec![VertexWarning::of_text(text)];
                write(&SolveStatus { warnings, ..SolveStatus::default() }, out);
            }
            // SolveStatus has no members for these.
            Event::Isolated { .. }
            | Event::Executing { .. }
            | Event::Explained { .. }
            | Event::Made { .. }
            | Event::Note { .. }
            | Event::Wrote { .. }
            | Event::Pushed { .. } => {}
        }
    }

    fn warnings(&mut self, found: &[Diagnostic], source: &SourceFile, out: &mut Out<'_>) {
        let warnings = vertex_warnings(found, source);
        write(&SolveStatus { warnings, ..SolveStatus::default() }, out);
    }

    fn failed(&mut self, failure: &Failure<'_>, out: &mut Out<'_>) {
        self.end_failed(&failure.error.summary(), out);
        out.lines(&failure.text, false);
    }

    fn finish(&mut self, out: &mut Out<'_>) {
        self.end_failed("failed", out);
    }
}

/// Returns the vertex of an instruction that makes a layer. FROM is number 1.
fn vertex_of(stage: &str, number: usize) -> Digest {
    Digest::of(format!("[{stage} {number}]").as_bytes())
}

/// Returns a vertex that has not started.
const fn vertex(digest: Digest, name: String) -> Vertex {
    let inputs = Vec::new();
    let error = String::new();
    Vertex { digest, inputs, name, started: None, completed: None, cached: false, error }
}

/// Writes one line, unless nothing has changed.
fn write(status: &SolveStatus, out: &mut Out<'_>) {
    let line = serde_json::to_string(status).expect("statuses always serialize");
    if line != "{}" {
        out.exact(&text::shown_json(&line));
    }
}
