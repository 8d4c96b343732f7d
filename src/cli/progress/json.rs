//! `--progress=json`: one [`BuildEvent`](crate::cli::records::build_event::BuildEvent) a line.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::cli::records::Requested;
use crate::cli::records::encoder::EventEncoder;
use crate::diag::{Diagnostic, SourceFile};
use crate::executor::Event;

use super::out::Out;
use super::sink::{Failure, Sink, Success};

/// True once this process has written its first event.
static IS_STARTED: AtomicBool = AtomicBool::new(false);

/// Writes events to standard error.
#[derive(Debug)]
pub(super) struct JsonSink {
    encoder: EventEncoder,
    now_s: i64,
}

impl JsonSink {
    /// Counts seconds from `started`, which was `now_s` in Unix time.
    pub(super) const fn new(started: Instant, now_s: i64) -> Self {
        Self { encoder: EventEncoder::new(started), now_s }
    }
}

impl Sink for JsonSink {
    fn begin(&mut self, out: &mut Out<'_>) {
        // A command may fail after its display has ended, and gets another one.
        if !IS_STARTED.swap(true, Ordering::Relaxed) {
            self.encoder.started(self.now_s, out);
        }
    }

    fn requested(&mut self, requested: &Requested, out: &mut Out<'_>) {
        self.encoder.requested(requested, out);
    }

    fn dockerfile(&mut self, name: &str, _text: &str, _out: &mut Out<'_>) {
        self.encoder.file = Some(name.to_owned());
    }

    fn event(&mut self, event: &Event, out: &mut Out<'_>) {
        self.encoder.event(event, out);
    }

    fn warnings(&mut self, found: &[Diagnostic], source: &SourceFile, out: &mut Out<'_>) {
        self.encoder.diagnostics(found, source, out);
    }

    fn built(&mut self, success: &Success<'_>, out: &mut Out<'_>) {
        self.encoder.built(success.result, &success.totals, success.took, out);
    }

    fn failed(&mut self, failure: &Failure<'_>, out: &mut Out<'_>) {
        self.encoder.failed(failure.error, failure.took, out);
    }

    fn wants_reasons(&self) -> bool {
        true
    }
}
