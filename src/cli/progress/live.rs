//! The live view on a terminal: what runs, with its time and its last lines, below what is over.
//!
//! What is shown is a pure function of the events, the time and the terminal's size ([`frame`]). Whoever
//! has its [`TerminalHandle`] draws it some times a second. Events only change the state: they never
//! wait for the terminal.

mod frame;
mod line;
mod look;
mod model;
mod screen;
mod terminal;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::cli::display::text::shown;
use crate::executor::Event;

use look::{Look, Signs};
use model::Model;
use screen::Screen;

/// The time from one frame to the next. What ends before the first is shown once, as it ended.
pub(crate) const FRAME: Duration = Duration::from_millis(100);

/// The view.
#[derive(Debug)]
pub(super) struct Live {
    shared: Arc<Shared>,
}

/// What the one who draws has in common with those that tell.
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
    pub(super) fn new(started: Instant, colours: bool, unicode: bool) -> Self {
        let look = Look { signs: if unicode { Signs::Unicode } else { Signs::Ascii } };
        let screen = Mutex::new(Output { screen: Screen::new(colours), has_ended: false });
        let shared = Arc::new(Shared { started, model: Mutex::new(Model::new(look)), screen });
        Self { shared }
    }

    /// Takes what happened.
    pub(super) fn event(&self, event: &Event) {
        self.shared.model().event(event, self.shared.started.elapsed());
    }

    /// Adds lines that stay, some of which may be what a step printed or a Dockerfile holds.
    pub(super) fn lines(&self, text: &str, colours: bool) {
        let mut model = self.shared.model();
        let lines = text.trim_end().split('\n');
        lines.for_each(|line| model.say(shown(line, colours).into_owned()));
    }

    /// Ends the view: steps that run are canceled ones, what is over is shown, the cursor is back.
    pub(super) fn end_with(&self, text: &str, colours: bool) {
        self.shared.model().end(self.shared.started.elapsed());
        if !text.is_empty() {
            self.lines(text, colours);
        }
        let mut output = self.shared.output();
        output.has_ended = true;
        self.shared.write(&mut output, false);
    }

    /// For the one who draws it.
    pub(super) fn handle(&self) -> TerminalHandle {
        TerminalHandle(Arc::clone(&self.shared))
    }
}

impl Shared {
    fn model(&self) -> MutexGuard<'_, Model> {
        // After a panic elsewhere, a line may be missing: the rest is as good as it was.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Draws the view, and lets others use the terminal.
#[derive(Debug, Clone)]
pub(crate) struct TerminalHandle(Arc<Shared>);

impl TerminalHandle {
    /// Shows how it is now, unless somebody else has the terminal, or it is not done with what it had
    /// to show before.
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

    /// Removes the live lines, runs `work`, and goes on.
    pub(crate) fn aside<R>(&self, work: impl FnOnce() -> R) -> R {
        let mut output = self.0.output();
        self.0.write(&mut output, false);
        work()
    }

    /// Gives the terminal back at once, even if somebody is just writing to it.
    pub(crate) fn leave(&self) {
        terminal::leave();
    }
}
