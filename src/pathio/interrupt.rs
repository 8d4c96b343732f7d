//! The process-wide request to end.
//!
//! One thread receives a signal while others may wait for a FIFO's reader or hash a huge file. Long
//! operations at the lowest level check this flag, because their callers pass no cancellation down
//! to them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// Asks all long operations to end. This cannot be undone: the process is about to end.
pub fn ask() {
    IS_ASKED.store(true, Ordering::SeqCst);
}

/// Returns whether the process was asked to end.
#[must_use]
pub fn is_asked() -> bool {
    IS_ASKED.load(Ordering::SeqCst)
}

/// Fails once the process was asked to end.
///
/// # Errors
/// `ECANCELED`; not `EINTR`, after which the standard library repeats the call.
pub fn check() -> io::Result<()> {
    if is_asked() { Err(Errno::CANCELED.into()) } else { Ok(()) }
}
