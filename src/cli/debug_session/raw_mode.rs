//! Raw mode of the terminal on standard input: every key is passed on, none is a signal (termios(3)).
//!
//! The previous settings are global, so that any thread that ends or stops the process can restore
//! them.

use std::io::{self, stdin};
use std::sync::{Mutex, MutexGuard};

use crate::pool;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::getpgrp;
use rustix::termios::{
    OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcgetpgrp, tcsetattr,
};

/// Time in which a terminal answers a query. Over a network, that is a round trip.
const ANSWER_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 40_000_000 };
/// Maximum number of times that input is discarded: the user may keep typing.
const MAX_FLUSHES: usize = 5;

/// Settings of the terminal while it is raw.
static SETTINGS: Mutex<Option<SavedSettings>> = Mutex::new(None);

#[derive(Debug)]
struct SavedSettings {
    before: Termios,
    raw: Termios,
}

/// Keeps the terminal raw until it is dropped.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Sets raw mode.
    ///
    /// # Errors
    /// If standard input is not a terminal.
    pub(crate) fn set() -> io::Result<Self> {
        let mut settings = settings();
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        *settings = Some(SavedSettings { before, raw });
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Before restoring: a raw terminal does not echo.
        discard_answers();
        restore();
    }
}

/// Discards input for the command that has ended. A program can query the terminal for its name or
/// the cursor position, and end before the answer arrives. The user's shell would read the answer as
/// typed text, and some terminals put text chosen by the program into it.
fn discard_answers() {
    if !is_foreground() {
        return;
    }
    for _ in 0..MAX_FLUSHES {
        let flushed = tcflush(stdin(), QueueSelector::IFlush);
        let stdin = stdin();
        let mut input = [PollFd::new(&stdin, PollFlags::IN)];
        let more = retry_on_intr(|| poll(&mut input, Some(&ANSWER_PAUSE)));
        if flushed.is_err() || more != Ok(1) {
            return;
        }
    }
}

/// Returns whether the terminal is attached to a command.
pub(crate) fn is_set() -> bool {
    settings().is_some()
}

/// Restores the settings of the terminal for good.
pub(crate) fn restore() {
    if let Some(settings) = settings().take() {
        apply(&settings.before);
    }
}

/// Runs `work` with the previous settings of the terminal.
pub(crate) fn without_raw_mode<R>(work: impl FnOnce() -> R) -> R {
    if let Some(settings) = &*settings() {
        apply(&settings.before);
    }
    let done = work();
    set_again();
    done
}

/// Sets raw mode again, if it was set: a shell that continues a stopped job changes the settings.
pub(crate) fn set_again() {
    if let Some(settings) = &*settings() {
        apply(&settings.raw);
    }
}

fn settings() -> MutexGuard<'static, Option<SavedSettings>> {
    pool::lock(&SETTINGS)
}

/// Applies settings at once: pending output may be stopped. Not in the background, where the terminal
/// belongs to another process group.
fn apply(settings: &Termios) {
    if is_foreground() {
        let _closed = tcsetattr(stdin(), OptionalActions::Now, settings);
    }
}

/// Returns whether this process is in the foreground process group of the terminal.
fn is_foreground() -> bool {
    tcgetpgrp(stdin()).map_or(true, |foreground| foreground == getpgrp())
}
