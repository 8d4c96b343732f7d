//! What happens during a command, on standard error: a live view on terminals, lines for logs, groups
//! that CI systems fold, or JSON for programs; and a summary for those who come later.

mod ci_annotations;
mod early;
mod grouped;
pub(super) mod json;
mod live;
mod out;
mod plain;
mod rate;
mod result;
mod style;
mod summary;
mod totals;

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::cli::args::progress::Progress;
use crate::cli::display::reasons;
use crate::cli::display::redact;
use crate::cli::display::text::shown;
use crate::cli::environment::{CiSystem, Environment};
use crate::cli::error::{CliError, Findings};
use crate::cli::records::Recorded;
use crate::cli::records::recorder::Recorder;
use crate::diag::{self, Diagnostic, SourceFile};
use crate::executor::Event;
use crate::oci::Digest;
use crate::store::Store;

use ci_annotations::{Marks, token};
use grouped::Grouped;
use json::Json;
use live::Live;
pub(super) use out::Out;
use plain::Plain;
use summary::Summary;
use totals::Tally;

pub(super) use early::{asks_for_json, failed_early};
pub(super) use live::{FRAME, TerminalHandle};
pub(super) use result::{Requested, Result};

/// Hex digits of a build's id.
const BUILD_ID_DIGITS: usize = 8;

/// Shows what happens. One at a time writes; when it goes, all is said.
#[derive(Debug)]
pub(super) struct Reporter<'a> {
    environment: &'a Environment,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    view: View,
    started: Instant,
    tally: Tally,
    summary: Option<Summary>,
    recorder: Option<Recorder>,
    /// Whether people are told why steps are made.
    explains: bool,
    /// Whether people were told what is odd about the Dockerfile.
    warned: bool,
}

/// How it looks.
#[derive(Debug)]
enum View {
    /// Only what went wrong, in a log that may have a language of its own.
    Quiet(Option<Marks>),
    Plain(Plain),
    Grouped(Box<Grouped>),
    Live(Live),
    Json(Json),
}

impl<'a> Reporter<'a> {
    pub(super) fn new(style: Progress, environment: &'a Environment) -> Self {
        let started = Instant::now();
        let colours = environment.shows_colours;
        let marks = environment.ci_system().map(|system| match system {
            CiSystem::GitHub => {
                Marks::GitHub { token: token(environment), dockerfile: "Dockerfile".to_owned() }
            }
            CiSystem::GitLab => Marks::GitLab { now_s: environment.now_s, clock: started },
        });
        let view = match (style, marks) {
            (Progress::Quiet, marks) => View::Quiet(marks),
            (Progress::Json, _) => View::Json(Json::new(started)),
            _ if style.is_live(environment) => {
                View::Live(Live::new(started, environment.colour, environment.shows_unicode()))
            }
            (_, None) => View::Plain(Plain::new(colours)),
            (_, Some(marks)) => View::Grouped(Box::new(Grouped::new(marks, colours))),
        };
        let summary = environment.get("GITHUB_STEP_SUMMARY").map(Summary::new);
        let tally = Tally::default();
        let state =
            State { view, started, tally, summary, recorder: None, explains: false, warned: false };
        let reporter = Self { environment, state: Mutex::new(state) };
        reporter.begin();
        reporter
    }

    fn begin(&self) {
        let mut state = self.state();
        with_stderr(|out| match &mut state.view {
            View::Quiet(Some(marks)) => marks.begin(out),
            View::Grouped(grouped) => grouped.marks.begin(out),
            View::Json(json) => early::started(json, self.environment.now_s, out),
            View::Quiet(None) | View::Plain(_) | View::Live(_) => {}
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic elsewhere, a line may be missing: the rest is as good as it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing but results is shown.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.state().view, View::Quiet(_))
    }

    /// Tells people, too, why steps are made and not found.
    pub(super) fn explain(&self) {
        self.state().explains = true;
    }

    /// A build begins: from here on, what happens is kept for later.
    pub(super) fn requested(&self, requested: &Requested) {
        let mut state = self.state();
        let json = Json::new(state.started);
        state.recorder = Some(Recorder::new(json, self.environment.now_s, requested));
        with_stderr(|out| match &mut state.view {
            View::Json(json) => json.requested(requested, out),
            View::Quiet(_) | View::Plain(_) | View::Grouped(_) | View::Live(_) => {}
        });
    }

    /// It is kept in this store.
    pub(super) fn keep_in(&self, store: &Store) {
        if let Some(recorder) = &mut self.state().recorder {
            let (now_s, seed) = (self.environment.now_s, self.environment.seed);
            let random = Digest::of(&[now_s.to_le_bytes(), seed.to_le_bytes()].concat()).hex();
            let id: String = random.chars().take(BUILD_ID_DIGITS).collect();
            recorder.keep_in(store.build_records().start(now_s, &id), id);
        }
    }

    /// For whoever wants the terminal for something else, where there is a live view.
    pub(super) fn terminal(&self) -> Option<TerminalHandle> {
        match &self.state().view {
            View::Live(live) => Some(live.handle()),
            View::Quiet(_) | View::Plain(_) | View::Grouped(_) | View::Json(_) => None,
        }
    }

    /// What happened in this build so far, of long logs their ends, and the build's id if it has one.
    pub(super) fn recorded(&self) -> (Recorded, Option<String>) {
        let mut state = self.state();
        let recorder = state.recorder.as_mut();
        recorder.map_or_else(Default::default, Recorder::read_again)
    }

    /// Says what the Dockerfile is and where, so that places in it are found.
    pub(super) fn dockerfile(&self, path: &Path, text: &str) {
        let absolute = std::path::absolute(path).unwrap_or_else(|_error| path.to_owned());
        let top = self.environment.get("GITHUB_WORKSPACE").map(Path::new);
        let shown = top.and_then(|top| absolute.strip_prefix(top).ok()).unwrap_or(path);
        let mut state = self.state();
        let name = shown.to_string_lossy().into_owned();
        if let Some(recorder) = &mut state.recorder {
            recorder.json.file = Some(name.clone());
            recorder.tell(|json, out| json.dockerfile(text, out));
        }
        match &mut state.view {
            View::Grouped(grouped) => {
                if let Marks::GitHub { dockerfile, .. } = &mut grouped.marks {
                    *dockerfile = name;
                }
            }
            View::Quiet(Some(Marks::GitHub { dockerfile, .. })) => *dockerfile = name,
            View::Json(json) => json.file = Some(name),
            View::Quiet(_) | View::Plain(_) | View::Live(_) => {}
        }
    }

    /// Shows what happened.
    pub(super) fn event(&self, event: &Event) {
        let event = &*redact::event(event);
        let mut state = self.state();
        state.tally.event(event);
        if let Some(summary) = &mut state.summary {
            summary.event(event);
        }
        if let Some(recorder) = &mut state.recorder {
            recorder.event(event);
        }
        let is_aside = matches!(event, Event::Explained { .. }) && !state.explains;
        if is_aside && !matches!(state.view, View::Json(_)) {
            return;
        }
        with_stderr(|out| match &mut state.view {
            View::Quiet(_) => {}
            View::Plain(plain) => plain.event(event, out),
            View::Grouped(grouped) => grouped.event(event, out),
            View::Live(live) => live.event(event),
            View::Json(json) => json.event(event, out),
        });
    }

    /// Says something.
    pub(super) fn note(&self, text: impl Into<String>) {
        self.event(&Event::Note { text: text.into() });
    }

    /// Shows nothing more of what happens: something else has the terminal from here on.
    pub(super) fn hand_over(&self) {
        let mut state = self.state();
        let colours = self.environment.colour;
        with_stderr(|out| match &mut state.view {
            View::Grouped(grouped) => grouped.end(out),
            View::Live(live) => live.end_with("", colours),
            View::Quiet(_) | View::Plain(_) | View::Json(_) => {}
        });
    }

    /// Says several lines to who sits at the terminal, however progress is shown.
    pub(super) fn aside(&self, text: &str) {
        let _one_at_a_time = self.state();
        with_stderr(|out| out.lines(text, self.environment.colour));
    }

    /// Shows what is odd about the Dockerfile.
    pub(super) fn warnings(&self, found: &[Diagnostic], source: &SourceFile) {
        let (found, source) = (&*redact::diagnostics(found), &redact::source(source));
        let mut state = self.state();
        if let Some(summary) = &mut state.summary {
            summary.warnings(found, source);
        }
        if let Some(recorder) = &mut state.recorder {
            recorder.diagnostics(found, source);
        }
        if !found.is_empty() {
            state.warned = !matches!(state.view, View::Quiet(_));
            let colours = self.environment.colour;
            let text = || diag::render(found, source, self.environment.style());
            with_stderr(|out| match &mut state.view {
                View::Quiet(_) => {}
                View::Plain(_) => out.lines(&text(), colours),
                View::Live(live) => live.lines(&text(), colours),
                View::Grouped(grouped) => {
                    grouped.end(out);
                    out.lines(&text(), colours);
                    grouped.marks.diagnostics(found, source, out);
                }
                View::Json(json) => json.diagnostics(found, source, out),
            });
        }
    }

    /// Says what was built.
    pub(super) fn built(&self, result: &Result<'_>) {
        let mut state = self.state();
        let took = state.started.elapsed();
        let totals = state.tally.totals(result.images);
        if let Some(summary) = &mut state.summary {
            summary.built(result, took);
        }
        if let Some(recorder) = &mut state.recorder {
            recorder.tell(|json, out| json.built(result, &totals, took, out));
        }
        let named = match result.names {
            [] => String::new(),
            names => format!(" as {}", names.join(", ")),
        };
        let mut lines = totals.lines(result.images, took);
        lines.push(format!("built {}{named}", result.id));
        with_stderr(|out| match &mut state.view {
            View::Quiet(_) => {}
            View::Plain(_) => lines.iter().for_each(|line| out.line(line)),
            View::Grouped(grouped) => {
                grouped.end(out);
                lines.iter().for_each(|line| out.line(line));
            }
            View::Live(live) => live.end_with(&lines.join("\n"), false),
            View::Json(json) => json.built(result, &totals, took, out),
        });
    }

    /// Says why there is no result; what remains of the complaint is how to exit.
    pub(super) fn failed(&self, complaint: &CliError) -> CliError {
        let mut state = self.state();
        let took = state.started.elapsed();
        if let Some(summary) = &mut state.summary {
            summary.failed(&complaint.summary(), took);
        }
        if let Some(recorder) = &mut state.recorder {
            recorder.tell(|json, out| json.failed(complaint, took, out));
        }
        let apart = if state.warned { "\n" } else { "" };
        let (text, colours) = (format!("{apart}{complaint}"), self.environment.colour);
        with_stderr(|out| match &mut state.view {
            View::Quiet(None) | View::Plain(_) => out.lines(&text, colours),
            View::Quiet(Some(marks)) => {
                out.lines(&text, colours);
                fail(marks, complaint, out);
            }
            View::Grouped(grouped) => {
                grouped.end(out);
                out.lines(&text, colours);
                fail(&grouped.marks, complaint, out);
            }
            View::Live(live) => live.end_with(&text, colours),
            View::Json(json) => json.failed(complaint, took, out),
        });
        CliError::said(complaint.exit())
    }
}

fn fail(marks: &Marks, complaint: &CliError, out: &mut Out<'_>) {
    match complaint.findings() {
        Some(Findings { diagnostics, source }) => marks.diagnostics(diagnostics, source, out),
        None => marks.error(&complaint.summary(), out),
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        let mut state = self.state();
        with_stderr(|out| {
            match &mut state.view {
                View::Quiet(Some(marks)) => marks.end(out),
                View::Grouped(grouped) => {
                    grouped.end(out);
                    grouped.marks.end(out);
                }
                View::Live(live) => live.end_with("", false),
                View::Quiet(None) | View::Plain(_) | View::Json(_) => {}
            }
            if let Some(error) = state.summary.take().and_then(|summary| summary.write().err()) {
                // The result is there all the same.
                out.line(&format!("warning: the step summary is not written: {error}"));
            }
            if let Some(error) = state.recorder.take().and_then(|recorder| recorder.end().err()) {
                out.line(&format!("warning: the build is not in the history: {error}"));
            }
        });
    }
}

fn with_stderr(write: impl FnOnce(&mut Out<'_>)) {
    let mut stderr = io::stderr().lock();
    write(&mut Out::new(&mut stderr));
}

/// What is said in one line.
fn said(event: &Event) -> String {
    let text = match event {
        Event::Warning { text } => format!("warning: {text}"),
        Event::Note { text } => text.clone(),
        Event::Wrote { path } => format!("wrote {}", path.display()),
        Event::Pushed { name, digest } => format!("pushed {name}@{digest}"),
        Event::Explained { step, reason } => {
            format!("#{} not cached: {}", step.0, reasons::text(reason))
        }
        Event::Planned { .. }
        | Event::Started { .. }
        | Event::Executing { .. }
        | Event::Output { .. }
        | Event::Progress { .. }
        | Event::Made { .. }
        | Event::Finished { .. } => String::new(),
    };
    shown(&text.replace('\n', " "), false).into_owned()
}
