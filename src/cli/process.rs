//! What the process is started with and cannot work with: low limits.

use std::collections::hash_map::RandomState;
use std::panic;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGXFSZ;

/// Returns whether there are random numbers, which tables of names and drafts of files need: where a
/// system call filter refuses getrandom(2), the standard library reads `/dev/urandom`, and panics if
/// that is not there either.
fn has_random_numbers() -> bool {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_silent| {}));
    let made = panic::catch_unwind(RandomState::new);
    panic::set_hook(hook);
    made.is_ok()
}

/// Raises the soft limit on open files to the hard one, and has a write beyond the limit on the length
/// of files (`ulimit -f`) fail with an error that names the file, in place of a signal that ends the
/// process (setrlimit(2), `RLIMIT_FSIZE`).
///
/// Steps get limits of their own; see [`crate::executor`].
///
/// # Errors
/// A message, where the process cannot work at all.
pub(super) fn prepare() -> Result<(), &'static str> {
    if !has_random_numbers() {
        return Err(
            "error: the system gives no random numbers: getrandom(2) fails, and /dev/urandom \
                    cannot be read; allow the one, or mount the other",
        );
    }
    let files = getrlimit(Resource::Nofile);
    if files.current != files.maximum {
        // Where it is refused, the limit stays as it was.
        let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    }
    // A handler, for a step that is executed must not find the signal ignored.
    let _never_read = signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default());
    Ok(())
}
