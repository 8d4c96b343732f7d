//! Standard input as a terminal that passes on every key as it is typed, none of them a signal.
//!
//! How it was before is known to all threads: whichever ends or stops the process gives it back.

use std::io::{self, stdin};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// The terminal's settings while it is raw.
static SETTINGS: Mutex<Option<Settings>> = Mutex::new(None);

#[derive(Debug)]
struct Settings {
    before: Termios,
    raw: Termios,
}

/// The terminal is raw until this goes.
#[derive(Debug)]
pub(super) struct Raw(());

impl Raw {
    /// # Errors
    /// When standard input is no terminal.
    pub(super) fn set() -> io::Result<Self> {
        let mut settings = settings();
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        *settings = Some(Settings { before, raw });
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether a command has the terminal's keys.
pub(super) fn is_set() -> bool {
    settings().is_some()
}

/// Makes the terminal what it was before, for good.
pub(super) fn give_back() {
    if let Some(settings) = settings().take() {
        apply(&settings.before);
    }
}

/// Makes it what it was before while `work` is done.
pub(super) fn aside<R>(work: impl FnOnce() -> R) -> R {
    if let Some(settings) = &*settings() {
        apply(&settings.before);
    }
    let done = work();
    again();
    done
}

/// Makes it raw again, if it shall be: a shell that goes on with a stopped job may have changed it.
pub(super) fn again() {
    if let Some(settings) = &*settings() {
        apply(&settings.raw);
    }
}

fn settings() -> MutexGuard<'static, Option<Settings>> {
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At once: what is still to be shown may wait for somebody to want to see it. One that is gone, or that
/// a shell has put us in the background of, is not ours to change.
fn apply(settings: &Termios) {
    if tcgetpgrp(stdin()).map_or(true, |in_front| in_front == getpgrp()) {
        let _gone = tcsetattr(stdin(), OptionalActions::Now, settings);
    }
}
