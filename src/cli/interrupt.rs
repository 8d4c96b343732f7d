//! Ctrl-C: the first one ends the build in order, the second one at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::build::Stop;
use crate::pool;

/// Runs `work`; signals that would end the process throw `stop` instead, which `say` is told.
pub(super) fn watching<R>(stop: &Stop, say: &(dyn Fn(&str) + Sync), work: impl FnOnce() -> R) -> R {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return work() };
    let handle = signals.handle();
    pool::scope(|scope| {
        scope.spawn(move || {
            for (n_seen, signal) in signals.forever().enumerate() {
                if n_seen > 0 {
                    // What is unfinished lies in a folder that the next rbuild sweeps.
                    let _never = signal_hook::low_level::emulate_default_handler(signal);
                }
                say("interrupted: ending the running steps (again to stop at once)");
                stop.interrupt();
            }
        });
        let result = work();
        handle.close();
        result
    })
}
