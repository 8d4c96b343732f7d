//! Writes the record of a build into the store, for `rbuild history`, `rbuild explain` and
//! `--report`.

use std::io::Read;

use crate::cli::error::CliError;
use crate::cli::progress::out::Out;
use crate::cli::progress::{Failure, Sink, Success};
use crate::diag::{Diagnostic, SourceFile, size};
use crate::executor::{Event, StepId, Stream};
use crate::pathio::PathError;
use crate::store::BuildRecordWriter;

use super::build_event::Requested;
use super::encoder::EventEncoder;
use super::kept_output::KeptOutput;
use super::{Logs, Recorded};

/// Number of bytes that are written to the store at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Number of bytes that are kept in memory, for `--report`, if the store cannot be written.
const MAX_UNWRITTEN_BYTES: usize = 16 << 20;
/// One in this many fully cached builds removes old records: the search takes longer than they do.
const SWEEPS_ONE_IN: u8 = 64;

/// The record of one build.
#[derive(Debug)]
pub(crate) struct Recorder {
    encoder: EventEncoder,
    /// Unix time of the start.
    now_s: i64,
    /// Lines that are not in the journal yet.
    lines: Vec<u8>,
    /// The file in the store, and the build id.
    journal: Option<(BuildRecordWriter, String)>,
    /// True if a step was not cached.
    has_misses: bool,
    output: KeptOutput,
    /// The first error of a write. Nothing is written after it.
    error: Option<PathError>,
}

impl Recorder {
    /// Starts a record that is kept in memory until [`Self::keep_in`].
    pub(crate) fn new(started: std::time::Instant, now_s: i64) -> Self {
        Self {
            encoder: EventEncoder::new(started),
            now_s,
            lines: Vec::new(),
            journal: None,
            has_misses: false,
            output: KeptOutput::default(),
            error: None,
        }
    }

    /// Writes to `journal` from now on; `id` is the build id.
    pub(crate) fn keep_in(&mut self, journal: BuildRecordWriter, id: String) {
        self.journal = Some((journal, id));
    }

    /// Appends lines that `encode` writes.
    fn encode(&mut self, encode: impl FnOnce(&mut EventEncoder, &mut Out<'_>)) {
        encode(&mut self.encoder, &mut Out::new(&mut self.lines));
    }

    /// Appends the end of a step's output, and the number of bytes that are left out before it.
    fn end_output(&mut self, step: StepId) {
        let Some(end) = self.output.end(step) else { return };
        if end.n_left_out > 0 {
            let n_bytes = size(u64::try_from(end.n_left_out).unwrap_or(u64::MAX));
            let text = format!("\n[rbuild: the record leaves out {n_bytes} of this output]\n");
            let (stream, bytes) = (Stream::Stderr, text.into_bytes());
            self.encode(|encoder, out| {
                encoder.event(&Event::Output { step, stream, bytes }, out);
            });
        }
        self.lines.extend(end.lines);
    }

    fn end_outputs(&mut self) {
        for step in self.output.steps() {
            self.end_output(step);
        }
    }

    fn flush(&mut self) {
        let Some((journal, _)) = self.journal.as_mut().filter(|_| self.error.is_none()) else {
            return;
        };
        match journal.append(&self.lines) {
            Ok(()) => self.lines.clear(),
            Err(error) => self.error = Some(error),
        }
    }

    /// Drops lines that cannot be written, once they are many.
    fn limit_unwritten(&mut self) {
        if self.error.is_some() && self.lines.len() >= MAX_UNWRITTEN_BYTES {
            self.lines.clear();
        }
    }

    /// Returns the build id, if the record is kept.
    pub(crate) fn build_id(&self) -> Option<String> {
        self.journal.as_ref().map(|(_, id)| id.clone())
    }

    /// Reads the record so far, from the journal and from memory. Returns the build id, too.
    pub(crate) fn read_back(&mut self) -> (Recorded, Option<String>) {
        self.end_outputs();
        self.flush();
        let read = |from: &mut dyn Read| Recorded::read(from, Logs::Ends);
        let journal = self.journal.as_ref();
        let file = journal.and_then(|(journal, _)| journal.open().ok());
        let recorded = match file {
            Some(file) => read(&mut file.chain(self.lines.as_slice())),
            None => read(&mut self.lines.as_slice()),
        };
        // An unreadable record is shown as an empty one: the build itself succeeded.
        (recorded.unwrap_or_default(), self.build_id())
    }

    /// Writes what is left, and removes old records.
    ///
    /// # Errors
    /// The first error of a write, now or before.
    fn close(&mut self) -> Result<(), PathError> {
        self.end_outputs();
        self.flush();
        match (self.error.take(), &self.journal) {
            (Some(error), _) => Err(error),
            (None, Some((journal, id))) if self.has_misses || is_chosen(id) => journal.remove_old(),
            (None, _) => Ok(()),
        }
    }
}

impl Sink for Recorder {
    fn begin(&mut self, _out: &mut Out<'_>) {
        let now_s = self.now_s;
        self.encode(|encoder, out| encoder.started(now_s, out));
    }

    fn requested(&mut self, requested: &Requested, _out: &mut Out<'_>) {
        self.encode(|encoder, out| encoder.requested(requested, out));
    }

    fn dockerfile(&mut self, name: &str, text: &str, _out: &mut Out<'_>) {
        self.encoder.file = Some(name.to_owned());
        self.encode(|encoder, out| encoder.dockerfile(text, out));
    }

    fn event(&mut self, event: &Event, _out: &mut Out<'_>) {
        if let Event::Output { step, bytes, .. } = event {
            let mut line = Vec::new();
            self.encoder.event(event, &mut Out::new(&mut line));
            self.output.add(*step, bytes.len(), &line, &mut self.lines);
        } else {
            if let Event::Finished { step, .. } = event {
                self.end_output(*step);
            }
            self.encode(|encoder, out| encoder.event(event, out));
        }
        self.has_misses |= matches!(event, Event::Explained { .. });
        // `rbuild history show` of a running build must show the command that runs.
        let executes = matches!(event, Event::Executing { .. });
        if executes || self.lines.len() >= CHUNK_BYTES {
            self.flush();
            self.limit_unwritten();
        }
    }

    fn warnings(&mut self, found: &[Diagnostic], source: &SourceFile, _out: &mut Out<'_>) {
        self.encode(|encoder, out| encoder.diagnostics(found, source, out));
    }

    fn built(&mut self, success: &Success<'_>, _out: &mut Out<'_>) {
        self.encode(|encoder, out| {
            encoder.built(success.result, &success.totals, success.took, out);
        });
    }

    fn failed(&mut self, failure: &Failure<'_>, _out: &mut Out<'_>) {
        let error: &CliError = failure.error;
        self.encode(|encoder, out| encoder.failed(error, failure.took, out));
    }

    fn finish(&mut self, out: &mut Out<'_>) {
        if let Err(error) = self.close() {
            out.line(&format!("warning: the build is not in the history: {error}"));
        }
    }

    fn wants_reasons(&self) -> bool {
        true
    }
}

/// Returns true for one build in [`SWEEPS_ONE_IN`]: ids are random.
fn is_chosen(id: &str) -> bool {
    let digits = id.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    digits.is_some_and(|digits| digits % SWEEPS_ONE_IN == 0)
}
