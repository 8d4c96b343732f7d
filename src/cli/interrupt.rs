//! Ctrl-C: the first one ends the build in order, the second one at once. A terminal is as it was before
//! when the process ends or is stopped.

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

use crate::build::Stop;
use crate::pool;

use super::progress::{Reporter, TerminalHandle};

/// Those that would end the process.
const ENDS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
/// What a terminal sends besides: they matter where it has to be put in order.
const OTHERS: [i32; 2] = [SIGQUIT, SIGTSTP];

/// Runs `work`; signals that would end the process throw `stop` instead, which is told. Where there is
/// none, they end it.
pub(super) fn watching<R>(
    stop: Option<&Stop>,
    reporter: &Reporter<'_>,
    work: impl FnOnce() -> R,
) -> R {
    let terminal = reporter.terminal();
    let ends = stop.is_some() || terminal.is_some();
    let others = OTHERS.iter().filter(|_| terminal.is_some());
    let watched: Vec<i32> = ENDS.iter().filter(|_| ends).chain(others).copied().collect();
    if watched.is_empty() {
        return work();
    }
    let Ok(mut signals) = Signals::new(watched) else { return work() };
    let handle = signals.handle();
    pool::scope(|scope| {
        scope.spawn(move || {
            let mut stop = stop;
            for signal in signals.forever() {
                if let (SIGTSTP, Some(terminal)) = (signal, &terminal) {
                    let _continued = terminal.aside(|| emulate_default_handler(signal));
                    continue;
                }
                match stop.take().filter(|_| ENDS.contains(&signal)) {
                    Some(stop) => {
                        reporter
                            .note("interrupted: ending the running steps (again to stop at once)");
                        stop.interrupt();
                    }
                    // What is unfinished lies in a folder that the next rbuild sweeps.
                    None => {
                        terminal.iter().for_each(TerminalHandle::leave);
                        let _never = emulate_default_handler(signal);
                    }
                }
            }
        });
        // A panic ends the watch, too: it would be waited for.
        let _watch = Watch(handle);
        work()
    })
}

/// Ends the watch when it goes.
struct Watch(Handle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.close();
    }
}
