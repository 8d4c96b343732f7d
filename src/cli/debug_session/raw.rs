//! Standard input as a terminal that passes on every key as it is typed, none of them a signal.
//!
//! How it was before is known to all threads: whichever ends or stops the process gives it back.

use std::io::{self, stdin};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::getpgrp;
use rustix::termios::{
    OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcgetpgrp, tcsetattr,
};

/// Time that a terminal may take to answer what the command asked it last. Over a network it is a
/// round trip.
const ANSWER_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 40_000_000 };
/// Number of times that input is discarded: somebody who types on must not be waited for.
const MAX_FLUSHES: usize = 5;

/// The terminal's settings while it is raw.
static SETTINGS: Mutex<Option<Settings>> = Mutex::new(None);

#[derive(Debug)]
struct Settings {
    before: Termios,
    raw: Termios,
}

/// The terminal is raw until this goes.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// # Errors
    /// When standard input is no terminal.
    pub(crate) fn set() -> io::Result<Self> {
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
        // While the terminal is raw, nothing is echoed.
        discard_answers();
        give_back();
    }
}

/// Discards input that is meant for the command that has ended. A program can ask the terminal for
/// its name or the cursor's position and end before the answer comes; the caller's shell would take
/// that for what somebody types, and some terminals put text of the program's choice into it.
fn discard_answers() {
    if !is_in_front() {
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

/// Whether a command has the terminal's keys.
pub(crate) fn is_set() -> bool {
    settings().is_some()
}

/// Makes the terminal what it was before, for good.
pub(crate) fn give_back() {
    if let Some(settings) = settings().take() {
        apply(&settings.before);
    }
}

/// Makes it what it was before while `work` is done.
pub(crate) fn aside<R>(work: impl FnOnce() -> R) -> R {
    if let Some(settings) = &*settings() {
        apply(&settings.before);
    }
    let done = work();
    again();
    done
}

/// Makes it raw again, if it shall be: a shell that goes on with a stopped job may have changed it.
pub(crate) fn again() {
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
    if is_in_front() {
        let _gone = tcsetattr(stdin(), OptionalActions::Now, settings);
    }
}

fn is_in_front() -> bool {
    tcgetpgrp(stdin()).map_or(true, |in_front| in_front == getpgrp())
}
