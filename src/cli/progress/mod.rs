//! Progress of a command on standard error: a live view on terminals, lines for logs, groups that CI
//! systems fold, or JSON for programs. Besides that, the step summary of GitHub and the build record.

mod ci_annotations;
mod early;
mod event_text;
mod grouped;
mod json;
mod live;
pub(super) mod out;
mod plain;
mod quiet;
mod rate;
mod raw_json;
pub(super) mod result;
mod sink;
mod solve_status;
mod style;
mod summary;
pub(super) mod totals;

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::cli::args::progress::Progress;
use crate::cli::display::redact;
use crate::cli::environment::{CiSystem, Environment};
use crate::cli::error::CliError;
use crate::cli::records::recorder::Recorder;
use crate::cli::records::{Recorded, Requested};
use crate::diag::{Diagnostic, SourceFile};
use crate::executor::Event;
use crate::oci::Digest;
use crate::pool;
use crate::store::Store;

use ci_annotations::{CiCommands, token};
use grouped::Grouped;
use json::JsonSink;
use live::Live;
use out::{Out, with_stderr};
use plain::Plain;
use quiet::Quiet;
use raw_json::RawJsonSink;
use summary::StepSummary;
use totals::TotalsCounter;

pub(super) use early::{asks_for_json, failed_early};
pub(super) use live::{FRAME, TerminalHandle};
pub(super) use result::BuildResult;
pub(super) use sink::{Failure, Sink, Success};
pub(super) use solve_status::vertex_warnings;

/// Hex digits of a build id.
const BUILD_ID_DIGITS: usize = 8;

/// Passes progress to the sinks of a command, one event at a time. Finishes them when dropped.
#[derive(Debug)]
pub(super) struct Reporter<'a> {
    environment: &'a Environment,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    display: Box<dyn Sink>,
    summary: Option<StepSummary>,
    recorder: Option<Recorder>,
    started: Instant,
    totals: TotalsCounter,
    /// True if `--explain` was given.
    explains: bool,
    /// True if warnings about the Dockerfile were shown.
    warned: bool,
}

impl State {
    /// Calls `call` for each sink.
    fn each_sink(&mut self, mut call: impl FnMut(&mut dyn Sink, &mut Out<'_>)) {
        with_stderr(|out| {
            call(&mut *self.display, out);
            if let Some(summary) = &mut self.summary {
                call(summary, out);
            }
            if let Some(recorder) = &mut self.recorder {
                call(recorder, out);
            }
        });
    }
}

/// Returns the display that `style` asks for and standard error permits.
fn display(style: Progress, started: Instant, environment: &Environment) -> Box<dyn Sink> {
    let ci = environment.ci_system().map(|system| match system {
        CiSystem::GitHub => {
            CiCommands::GitHub { token: token(environment), dockerfile: "Dockerfile".to_owned() }
        }
        CiSystem::GitLab => CiCommands::GitLab { now_s: environment.now_s, clock: started },
    });
    let (messages, has_colours) = (environment.style(), environment.shows_colours);
    match (style, ci) {
        (Progress::Quiet | Progress::None, ci) => Box::new(Quiet { ci, style: messages }),
        (Progress::Json, _) => Box::new(JsonSink::new(started, environment.now_s)),
        (Progress::RawJson, _) => Box::new(RawJsonSink::new(started, environment.now_s)),
        _ if style.is_live(environment) => Box::new(Live::new(started, environment)),
        (_, None) => Box::new(Plain::new(messages, has_colours)),
        (_, Some(ci)) => Box::new(Grouped::new(ci, messages, has_colours)),
    }
}

impl<'a> Reporter<'a> {
    /// Starts the display and the step summary.
    pub(super) fn new(style: Progress, environment: &'a Environment) -> Self {
        let started = Instant::now();
        let mut state = State {
            display: display(style, started, environment),
            summary: environment.get("GITHUB_STEP_SUMMARY").map(StepSummary::new),
            recorder: None,
            started,
            totals: TotalsCounter::default(),
            explains: false,
            warned: false,
        };
        state.each_sink(|sink, out| sink.begin(out));
        Self { environment, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic in another thread, a line may be missing; the state is still consistent.
        pool::lock(&self.state)
    }

    /// Returns whether only results and errors are shown.
    pub(super) fn is_quiet(&self) -> bool {
        self.state().display.is_quiet()
    }

    /// Shows why steps are not cached.
    pub(super) fn explain(&self) {
        self.state().explains = true;
    }

    /// Starts the record of a build.
    pub(super) fn requested(&self, requested: &Requested) {
        let mut state = self.state();
        let mut recorder = Recorder::new(state.started, self.environment.now_s);
        with_stderr(|out| recorder.begin(out));
        state.recorder = Some(recorder);
        state.each_sink(|sink, out| sink.requested(requested, out));
    }

    /// Keeps the record of the build in `store`.
    pub(super) fn keep_in(&self, store: &Store) {
        if let Some(recorder) = &mut self.state().recorder {
            let (now_s, seed) = (self.environment.now_s, self.environment.seed);
            let random = Digest::of(&[now_s.to_le_bytes(), seed.to_le_bytes()].concat()).hex();
            let id: String = random.chars().take(BUILD_ID_DIGITS).collect();
            recorder.keep_in(store.build_records().start(now_s, &id), id);
        }
    }

    /// Returns the id of the build, if its record is kept.
    pub(super) fn build_id(&self) -> Option<String> {
        self.state().recorder.as_ref().and_then(Recorder::build_id)
    }

    /// Returns access to the terminal if the display draws on it.
    pub(super) fn terminal(&self) -> Option<TerminalHandle> {
        self.state().display.terminal()
    }

    /// Returns the record so far, with both ends of long outputs, and the build id if there is one.
    pub(super) fn recorded(&self) -> (Recorded, Option<String>) {
        let mut state = self.state();
        let recorder = state.recorder.as_mut();
        recorder.map_or_else(Default::default, Recorder::read_back)
    }

    /// Sets the Dockerfile, so that diagnostics name it. On GitHub its path starts at the top of the
    /// repository.
    pub(super) fn dockerfile(&self, path: &Path, text: &str) {
        let absolute = std::path::absolute(path).unwrap_or_else(|_error| path.to_owned());
        let top = self.environment.get("GITHUB_WORKSPACE").map(Path::new);
        let shown = top.and_then(|top| absolute.strip_prefix(top).ok()).unwrap_or(path);
        let name = shown.to_string_lossy();
        self.state().each_sink(|sink, out| sink.dockerfile(&name, text, out));
    }

    /// Reports an event, without the credentials of URLs.
    pub(super) fn event(&self, event: &Event) {
        let event = &*redact::event(event);
        let mut state = self.state();
        state.totals.event(event);
        let is_reason = matches!(event, Event::Explained { .. });
        let shows_reasons = state.explains;
        state.each_sink(|sink, out| {
            if !is_reason || shows_reasons || sink.wants_reasons() {
                sink.event(event, out);
            }
        });
    }

    /// Reports a note, which is for people.
    pub(super) fn note(&self, text: impl Into<String>) {
        self.event(&Event::Note { text: text.into() });
    }

    /// Ends the display: another program takes the terminal.
    pub(super) fn hand_over(&self) {
        self.state().each_sink(|sink, out| sink.hand_over(out));
    }

    /// Shows lines to the user at the terminal, whatever the display.
    pub(super) fn aside(&self, text: &str) {
        let _one_at_a_time = self.state();
        with_stderr(|out| out.lines(text, self.environment.colour));
    }

    /// Shows warnings about the Dockerfile.
    pub(super) fn warnings(&self, found: &[Diagnostic], source: &SourceFile) {
        if found.is_empty() {
            return;
        }
        let (found, source) = (&*redact::diagnostics(found), &redact::source(source));
        let mut state = self.state();
        state.warned = !state.display.is_quiet();
        state.each_sink(|sink, out| sink.warnings(found, source, out));
    }

    /// Shows the result of a build.
    pub(super) fn built(&self, result: &BuildResult<'_>) {
        let mut state = self.state();
        let totals = state.totals.totals(result.images);
        let success = Success { result, totals, took: state.started.elapsed() };
        state.each_sink(|sink, out| sink.built(&success, out));
    }

    /// Shows an error. Returns one that has only its exit code.
    pub(super) fn failed(&self, error: &CliError) -> CliError {
        let mut state = self.state();
        let apart = if state.warned { "\n" } else { "" };
        let (text, took) = (format!("{apart}{error}"), state.started.elapsed());
        let failure = Failure { error, text, took };
        state.each_sink(|sink, out| sink.failed(&failure, out));
        CliError::reported(error.exit())
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        self.state().each_sink(|sink, out| sink.finish(out));
    }
}
