//! The terminal on standard error: its size, its foreground process group, and its cursor.

use std::io::stderr;
use std::os::fd::AsFd as _;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};

use super::frame::TerminalSize;
use super::screen::LEAVE;

/// The size of a terminal that does not report one.
const DEFAULT_SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };

/// True if a view may have hidden the cursor. Global, since the panic hook must know it.
static HAS_LIVE_LINES: AtomicBool = AtomicBool::new(false);
/// True if no live lines may be drawn any more: they would overwrite the last messages.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Returns the size of the terminal.
pub(super) fn size() -> TerminalSize {
    let Ok(size) = tcgetwinsize(stderr()) else { return DEFAULT_SIZE };
    let or = |given: u16, usual| if given == 0 { usual } else { usize::from(given) };
    TerminalSize {
        columns: or(size.ws_col, DEFAULT_SIZE.columns),
        rows: or(size.ws_row, DEFAULT_SIZE.rows),
    }
}

/// Returns whether live lines may be drawn: not while a shell has us in the background.
pub(super) fn is_ours() -> bool {
    // tcgetpgrp(3) fails if it is not our controlling terminal; then no shell uses it either.
    !IS_OVER.load(Ordering::Relaxed)
        && tcgetpgrp(stderr()).map_or(true, |in_front| in_front == getpgrp())
}

/// Returns whether a write would not block: the terminal may be stopped or slow.
pub(super) fn is_ready() -> bool {
    let stderr = stderr();
    let mut ready = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
    poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
}

/// Writes all of `text`. Ignores errors: a closed terminal must not fail the build.
pub(super) fn write(text: &str) {
    let (stderr, mut rest) = (stderr(), text.as_bytes());
    while !rest.is_empty() {
        match rustix::io::write(&stderr, rest) {
            Ok(n_written) => rest = rest.get(n_written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another process may have set O_NONBLOCK: it belongs to the open file, open(2).
            Err(Errno::AGAIN) => {
                let mut ready = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
                let _woken = poll(&mut ready, None);
            }
            Err(_closed) => return,
        }
    }
}

/// Sets whether live lines are on the screen. The first time, it installs a panic hook that removes
/// them, so that the message is readable and the cursor visible.
pub(super) fn note_live_lines(are_there: bool) {
    static HOOK: Once = Once::new();
    HAS_LIVE_LINES.store(are_there, Ordering::Relaxed);
    if are_there {
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                leave();
                before(panic);
            }));
        });
    }
}

/// Removes live lines for good, even while another thread draws, and shows the cursor.
pub(super) fn leave() {
    IS_OVER.store(true, Ordering::Relaxed);
    if HAS_LIVE_LINES.swap(false, Ordering::Relaxed) {
        write(LEAVE);
    }
}
