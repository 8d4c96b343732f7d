//! The live view on a terminal: running steps with their time and last lines, below finished ones.
//!
//! A frame is a pure function of the events, the time and the size of the terminal ([`frame`]). The
//! owner of a [`TerminalHandle`] draws several frames a second. Events only change the model: they
//! never wait for the terminal.

mod colours;
mod frame;
mod line;
mod look;
mod model;
mod screen;
mod terminal;

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use crate::cli::display::text::shown;
use crate::cli::environment::Environment;
use crate::diag::{self, Diagnostic, SourceFile, Style};
use crate::executor::Event;
use crate::pool;

use super::out::Out;
use super::sink::{Failure, Sink, Success};

use colours::Colours;
use look::{Look, Signs};
use model::Model;
use screen::Screen;

/// Interval between frames. A step that ends before the first one is drawn once, as ended.
pub(crate) const FRAME: Duration = Duration::from_millis(100);

/// Shows steps while they run.
#[derive(Debug)]
pub(super) struct Live {
    shared: Arc<Shared>,
    /// Style of our own messages.
    style: Style,
}

/// State shared by the thread that draws and those that report events.
#[derive(Debug)]
struct Shared {
    started: Instant,
    model: Mutex<Model>,
    /// Held while the terminal is written to; taken before the model.
    screen: Mutex<Output>,
}

#[derive(Debug)]
struct Output {
    screen: Screen,
    has_ended: bool,
}

impl Live {
    pub(super) fn new(started: Instant, environment: &Environment) -> Self {
        let style = environment.style();
        let signs = if environment.shows_unicode() { Signs::Unicode } else { Signs::Ascii };
        let colours = environment.get("BUILDKIT_COLORS").unwrap_or_default();
        let look = Look { signs, colours: Colours::of_variable(colours) };
        let screen = Screen::new(style == Style::Colour);
        let screen = Mutex::new(Output { screen, has_ended: false });
        let shared = Arc::new(Shared { started, model: Mutex::new(Model::new(look)), screen });
        Self { shared, style }
    }

    /// Adds lines that stay. They may quote output or a Dockerfile, so they are filtered.
    fn lines(&self, text: &str, colours: bool) {
        let mut model = self.shared.model();
        let lines = text.trim_end().split('\n');
        lines.for_each(|line| model.add_text(shown(line, colours).into_owned()));
    }

    /// Ends the view: shows running steps as canceled, then `text`, and the cursor.
    fn end_with(&self, text: &str, colours: bool) {
        self.shared.model().end(self.shared.started.elapsed());
        if !text.is_empty() {
            self.lines(text, colours);
        }
        let mut output = self.shared.output();
        output.has_ended = true;
        self.shared.write(&mut output, false);
    }
}

impl Sink for Live {
    fn event(&mut self, event: &Event, _out: &mut Out<'_>) {
        self.shared.model().event(event, self.shared.started.elapsed());
    }

    fn warnings(&mut self, found: &[Diagnostic], source: &SourceFile, _out: &mut Out<'_>) {
        self.lines(&diag::render(found, source, self.style), self.style == Style::Colour);
    }

    fn built(&mut self, success: &Success<'_>, _out: &mut Out<'_>) {
        self.end_with(&success.lines().join("\n"), false);
    }

    fn failed(&mut self, failure: &Failure<'_>, _out: &mut Out<'_>) {
        self.end_with(&failure.text, self.style == Style::Colour);
    }

    fn hand_over(&mut self, _out: &mut Out<'_>) {
        self.end_with("", false);
    }

    fn finish(&mut self, _out: &mut Out<'_>) {
        self.end_with("", false);
    }

    fn terminal(&self) -> Option<TerminalHandle> {
        Some(TerminalHandle(Arc::clone(&self.shared)))
    }
}

impl Shared {
    fn model(&self) -> MutexGuard<'_, Model> {
        // After a panic in another thread, a line may be missing; the state is still consistent.
        pool::lock(&self.model)
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        pool::lock(&self.screen)
    }

    fn write(&self, output: &mut Output, with_live_lines: bool) {
        let size = terminal::size();
        let mut model = self.model();
        let (past, look) = (model.take_past(), model.look);
        let lines = if with_live_lines {
            frame::lines(&model, self.started.elapsed(), size)
        } else {
            Vec::new()
        };
        drop(model);
        let bytes = output.screen.frame(&past, &lines, look, size.columns);
        if output.screen.is_live {
            terminal::note_live_lines(true);
        }
        terminal::write(&bytes);
        if !output.screen.is_live {
            terminal::note_live_lines(false);
        }
    }
}

/// Access to the terminal of a live view: draws frames, and lets others write in between.
#[derive(Debug, Clone)]
pub(crate) struct TerminalHandle(Arc<Shared>);

impl TerminalHandle {
    /// Draws a frame, unless the terminal is in use or has not taken the last one yet.
    pub(crate) fn draw(&self) {
        let mut output = match self.0.screen.try_lock() {
            Ok(output) => output,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if !output.has_ended && terminal::is_ready() {
            self.0.write(&mut output, terminal::is_ours());
        }
    }

    /// Runs `work` without live lines on the screen.
    pub(crate) fn aside<R>(&self, work: impl FnOnce() -> R) -> R {
        let mut output = self.0.output();
        self.0.write(&mut output, false);
        work()
    }

    /// Restores the terminal at once, even while another thread writes to it.
    pub(crate) fn leave(&self) {
        terminal::leave();
    }
}
