//! Prepares the process: resource limits, the allocator, and checks of what the kernel must have.

use std::collections::hash_map::RandomState;
use std::panic;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGXFSZ;

use crate::sandbox;

/// Returns whether the kernel has openat2(2), Linux 5.6.
fn has_openat2() -> bool {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(CWD, c"/", flags, Mode::empty(), ResolveFlags::empty());
    !matches!(found, Err(rustix::io::Errno::NOSYS))
}

/// Returns whether the system has random numbers, for hash tables and temporary file names. If
/// getrandom(2) fails, the standard library reads `/dev/urandom`, and panics without that.
fn has_random_numbers() -> bool {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_silent| {}));
    let made = panic::catch_unwind(RandomState::new);
    panic::set_hook(hook);
    made.is_ok()
}

/// Raises the soft limit on open files to the hard one. Makes writes beyond `RLIMIT_FSIZE` fail with
/// an error that names the file, instead of a signal that ends the process (setrlimit(2)).
///
/// Steps get limits of their own; see [`crate::executor`].
///
/// # Errors
/// A message, if the system has no random numbers, or no openat2(2).
pub(super) fn prepare() -> Result<(), &'static str> {
    if !has_random_numbers() {
        return Err(
            "error: no random numbers: getrandom(2) fails, and /dev/urandom cannot be read; \
                    allow the system call, or mount /dev",
        );
    }
    if !has_openat2() {
        return Err(
            "error: the kernel has no openat2(2), with which rbuild keeps each path in its directory: \
                    use Linux 5.6 or newer; gVisor does not have it (run rbuild outside of gVisor, in the \
                    same container image)",
        );
    }
    sandbox::return_large_blocks();
    let files = getrlimit(Resource::Nofile);
    if files.current != files.maximum {
        // If it is refused, the limit remains.
        let _unchanged = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    }
    // A handler, not SIG_IGN: execve(2) keeps ignored signals ignored, also for steps.
    let _never_read = signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default());
    Ok(())
}
