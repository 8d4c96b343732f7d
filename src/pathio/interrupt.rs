//! The request to end this process.
//!
//! A signal is met by one thread, while another may wait for a file's reader or hash a huge file.
//! Whatever can take long at the lowest level looks here, since nothing that its callers know of a
//! build is handed down to it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// Asks all that takes long to end. There is no way back: the process is about to end.
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
/// `ECANCELED`; not `EINTR`, after which the standard library tries again.
pub fn check() -> io::Result<()> {
    if is_asked() { Err(Errno::CANCELED.into()) } else { Ok(()) }
}
