//! What the process is started with and cannot work with: low limits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGXFSZ;

/// Raises the soft limit on open files to the hard one, and has a write beyond the limit on the length
/// of files (`ulimit -f`) fail with an error that names the file, in place of a signal that ends the
/// process (setrlimit(2), `RLIMIT_FSIZE`).
///
/// Steps get limits of their own; see [`crate::build`].
pub(super) fn prepare() {
    let files = getrlimit(Resource::Nofile);
    if files.current != files.maximum {
        // Where it is refused, the limit stays as it was.
        let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    }
    // A handler, for a step that is executed must not find the signal ignored.
    let _never_read = signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default());
}
