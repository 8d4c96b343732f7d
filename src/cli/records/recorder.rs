//! What is kept of a build in the store: its events as JSON lines, for `rbuild history` and `explain`.

use std::io::Read;

use crate::cli::progress::json::Json;
use crate::cli::progress::{Out, Requested};
use crate::diag::{Diagnostic, SourceFile, size};
use crate::executor::{Event, StepId, Stream};
use crate::pathio::PathError;
use crate::store::BuildRecordWriter;

use super::kept_output::KeptOutput;
use super::{Logs, Recorded};

/// So much is written at once.
const CHUNK_BYTES: usize = 64 << 10;
/// So much is kept in memory where it cannot be written, for the page.
const MAX_UNWRITTEN_BYTES: usize = 16 << 20;
/// Builds in which nothing is made look for old ones one time in so many.
const SWEEPS_ONE_IN: u8 = 64;

/// Keeps the lines of one build.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) json: Json,
    /// Lines that are not in the journal yet.
    lines: Vec<u8>,
    journal: Option<(BuildRecordWriter, String)>,
    makes_steps: bool,
    output: KeptOutput,
    /// Why nothing is written any more.
    error: Option<PathError>,
}

impl Recorder {
    pub(crate) fn new(json: Json, now_s: i64, requested: &Requested) -> Self {
        let output = KeptOutput::default();
        let (lines, journal, makes_steps, error) = (Vec::new(), None, false, None);
        let mut recorder = Self { json, lines, journal, makes_steps, output, error };
        recorder.tell(|json, out| {
            json.started(now_s, out);
            json.requested(requested, out);
        });
        recorder
    }

    /// From now on lines are written there; that is the build's id.
    pub(crate) fn keep_in(&mut self, journal: BuildRecordWriter, id: String) {
        self.journal = Some((journal, id));
    }

    pub(crate) fn event(&mut self, event: &Event) {
        if let Event::Output { step, bytes, .. } = event {
            let mut line = Vec::new();
            self.json.event(event, &mut Out::new(&mut line));
            self.output.take(*step, bytes.len(), &line, &mut self.lines);
        } else {
            if let Event::Finished { step, .. } = event {
                self.end_output(*step);
            }
            self.tell(|json, out| json.event(event, out));
        }
        self.makes_steps |= matches!(event, Event::Explained { .. });
        // Who looks while a command runs sees it.
        let executes = matches!(event, Event::Executing { .. });
        if executes || self.lines.len() >= CHUNK_BYTES {
            self.flush();
            self.bound();
        }
    }

    pub(crate) fn diagnostics(&mut self, found: &[Diagnostic], source: &SourceFile) {
        self.tell(|json, out| json.diagnostics(found, source, out));
    }

    /// Adds lines.
    pub(crate) fn tell(&mut self, tell: impl FnOnce(&mut Json, &mut Out<'_>)) {
        tell(&mut self.json, &mut Out::new(&mut self.lines));
    }

    /// Writes the end of a step's output, and how much is missing before it.
    fn end_output(&mut self, step: StepId) {
        let Some(end) = self.output.end(step) else { return };
        if end.n_left_out > 0 {
            let n_bytes = size(u64::try_from(end.n_left_out).unwrap_or(u64::MAX));
            let text = format!("\n[rbuild: the record leaves out {n_bytes} of this output]\n");
            let (stream, bytes) = (Stream::Stderr, text.into_bytes());
            self.tell(|json, out| json.event(&Event::Output { step, stream, bytes }, out));
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

    /// What cannot be written is not kept for ever.
    fn bound(&mut self) {
        if self.error.is_some() && self.lines.len() >= MAX_UNWRITTEN_BYTES {
            self.lines.clear();
        }
    }

    /// What was told so far, from the journal and what did not get there; and the build's id.
    pub(crate) fn read_again(&mut self) -> (Recorded, Option<String>) {
        self.end_outputs();
        self.flush();
        let read = |from: &mut dyn Read| Recorded::read(from, Logs::Ends);
        let journal = self.journal.as_ref();
        let file = journal.and_then(|(journal, _)| journal.open().ok());
        let recorded = match file {
            Some(file) => read(&mut file.chain(self.lines.as_slice())),
            None => read(&mut self.lines.as_slice()),
        };
        // What cannot be read cannot be shown.
        (recorded.unwrap_or_default(), journal.map(|(_, id)| id.clone()))
    }

    /// Nothing will come any more.
    ///
    /// # Errors
    /// If something could not be written, then or now.
    pub(crate) fn end(mut self) -> Result<(), PathError> {
        self.end_outputs();
        self.flush();
        match (self.error, &self.journal) {
            (Some(error), _) => Err(error),
            // That takes longer than a build in which nothing is made.
            (None, Some((journal, id))) if self.makes_steps || is_chosen(id) => {
                journal.remove_old()
            }
            (None, _) => Ok(()),
        }
    }
}

/// Whether it is this build's turn: ids are random.
fn is_chosen(id: &str) -> bool {
    let digits = id.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    digits.is_some_and(|digits| digits % SWEEPS_ONE_IN == 0)
}
