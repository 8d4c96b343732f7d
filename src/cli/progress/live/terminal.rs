//! The terminal on standard error: its size, whether it is ours, and that its cursor comes back.

use std::io::stderr;
use std::os::fd::AsFd as _;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};

use super::frame::Size;
use super::screen::LEAVE;

/// Of a terminal that does not tell.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// Whether a view may have hidden the cursor. A panic is told from wherever it is met, so this is known
/// to all.
static HAS_LIVE_LINES: AtomicBool = AtomicBool::new(false);
/// Whether there shall be no more of them: what a program says that ends must not be written over.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// The terminal's size now.
pub(super) fn size() -> Size {
    let Ok(size) = tcgetwinsize(stderr()) else { return USUAL };
    let or = |given: u16, usual| if given == 0 { usual } else { usize::from(given) };
    Size { columns: or(size.ws_col, USUAL.columns), rows: or(size.ws_row, USUAL.rows) }
}

/// Whether live lines would be in nobody's way: not when a shell has put us in the background.
pub(super) fn is_ours() -> bool {
    // A terminal that controls no processes is nobody else's.
    !IS_OVER.load(Ordering::Relaxed)
        && tcgetpgrp(stderr()).map_or(true, |in_front| in_front == getpgrp())
}

/// Whether it takes more at once: it may be stopped, or behind a slow connection.
pub(super) fn is_ready() -> bool {
    let stderr = stderr();
    let mut ready = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
    poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
}

/// Writes all; that nobody reads is no reason to fail.
pub(super) fn write(text: &str) {
    let (stderr, mut rest) = (stderr(), text.as_bytes());
    while !rest.is_empty() {
        match rustix::io::write(&stderr, rest) {
            Ok(n_written) => rest = rest.get(n_written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another process may have set the terminal so.
            Err(Errno::AGAIN) => {
                let mut ready = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
                let _woken = poll(&mut ready, None);
            }
            Err(_nobody_reads) => return,
        }
    }
}

/// Notes whether live lines are there. The first that are bring a hook with them: what a panic says
/// stands below the lines that stay, with a cursor.
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

/// Removes live lines for good, whoever is writing them, and shows the cursor.
pub(super) fn leave() {
    IS_OVER.store(true, Ordering::Relaxed);
    if HAS_LIVE_LINES.swap(false, Ordering::Relaxed) {
        write(LEAVE);
    }
}
