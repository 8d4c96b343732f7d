//! Ctrl-C: the first one ends the build in order, the second one at once. A terminal is as it was before
//! when the process ends or is stopped.
//!
//! The thread that waits for signals draws the live view, too: a build that ends at once has no use for
//! another one.

use std::io::{self, IsTerminal as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::flag::register_conditional_default;
use signal_hook::iterator::backend::{Handle, SignalDelivery};
use signal_hook::iterator::exfiltrator::SignalOnly;
use signal_hook::low_level::emulate_default_handler;

use crate::cli::debug_session::raw;
use crate::cli::progress::{FRAME, Reporter, TerminalHandle};
use crate::executor::CancelSwitch;
use crate::pathio;
use crate::pool;
use crate::registry::PendingRequests;

/// Those that would end the process.
const ENDS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
/// What comes from a terminal besides: it matters where something is drawn on it, or its keys may be lent
/// to a command.
const OTHERS: [i32; 4] = [SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH];

/// Time within which a second signal counts as the first.
const REPETITION: Duration = Duration::from_millis(200);

/// The time after which is looked again for servers that do not answer, without a live view.
const LOOK: Duration = Duration::from_secs(1);

/// Runs `work`; signals that would end the process throw `stop` instead, which is told. Where there is
/// none, they end it. Servers that do not answer for long are named.
pub(super) fn watching<R>(
    stop: Option<&CancelSwitch>,
    waiting: PendingRequests,
    reporter: &Reporter<'_>,
    work: impl FnOnce() -> R,
) -> R {
    let terminal = reporter.terminal();
    let ends = stop.is_some() || terminal.is_some();
    let has_terminal = terminal.is_some() || (ends && io::stdin().is_terminal());
    let others = OTHERS.iter().filter(|_| has_terminal);
    let watched: Vec<i32> = ENDS.iter().filter(|_| ends).chain(others).copied().collect();
    let is_catching = !watched.is_empty();
    let told = OnceLock::new();
    let mut watcher = Watcher { stop, reporter, terminal, waiting, told: &told };
    let (give, take) = mpsc::sync_channel(1);
    pool::scope(|scope| {
        // The thread first: signals that are caught with nobody to wait for them would be lost.
        let started = pool::start(scope, move || take.recv().map(|signals| watcher.run(signals)));
        let signals = started.ok().and_then(|_thread| Signals::new(watched).ok());
        // However `work` ends, the watch does.
        let _watch = signals.as_ref().map(|signals| {
            if is_catching {
                N_WATCHES.fetch_add(1, Ordering::SeqCst);
                by_default(false);
            }
            Watch { handle: signals.delivery.handle(), is_catching, told: &told }
        });
        let _taken = signals.map(|signals| give.send(signals));
        drop(give);
        work()
    })
}

/// Ends when it goes: it would be waited for.
struct Watch<'a> {
    handle: Handle,
    is_catching: bool,
    told: &'a OnceLock<Instant>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.handle.close();
        if !self.is_catching {
            return;
        }
        let number = N_WATCHES.load(Ordering::SeqCst);
        let left = self
            .told
            .get()
            .map_or(Duration::ZERO, |told| REPETITION.saturating_sub(told.elapsed()));
        // What ended in order so soon is not to be killed by the same signal, which comes once more.
        let later = move || {
            thread::sleep(left);
            if N_WATCHES.load(Ordering::SeqCst) == number {
                by_default(true);
            }
        };
        if left.is_zero() || pool::background(later).is_err() {
            by_default(true);
        }
    }
}

/// Number of watches that have begun.
static N_WATCHES: AtomicUsize = AtomicUsize::new(0);

/// Has signals that end the process do so, or not while somebody waits for them. Once one was caught,
/// it would do nothing at all for the rest of the process, which may still wait for the reader of
/// a FIFO.
fn by_default(is_so: bool) {
    static IS_SO: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| {
        let is_so = Arc::new(AtomicBool::new(false));
        for signal in ENDS {
            // It fails only for signals that cannot be caught.
            let _id = register_conditional_default(signal, Arc::clone(&is_so));
        }
        is_so
    });
    IS_SO.store(is_so, Ordering::SeqCst);
}

/// Signals that arrive.
struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    fn new(watched: Vec<i32>) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, watched)?;
        Ok(Self { delivery })
    }

    /// Waits, no longer than this; gives what arrived, or nothing once the watch has ended.
    fn wait(&mut self, no_longer: Option<Timespec>) -> Option<Vec<i32>> {
        let mut read = [PollFd::new(self.delivery.get_read(), PollFlags::IN)];
        retry_on_intr(|| poll(&mut read, no_longer.as_ref())).ok()?;
        // This order: reading what arrived also takes the byte that the end of the watch wrote.
        let arrived = self.delivery.pending().collect();
        let has_ended = self.delivery.handle().is_closed();
        (!has_ended).then_some(arrived)
    }
}

/// Who waits for signals.
struct Watcher<'a> {
    stop: Option<&'a CancelSwitch>,
    reporter: &'a Reporter<'a>,
    terminal: Option<TerminalHandle>,
    waiting: PendingRequests,
    /// When the build was told to end.
    told: &'a OnceLock<Instant>,
}

impl Watcher<'_> {
    fn run(&mut self, mut signals: Signals) {
        let pause = if self.terminal.is_some() { FRAME } else { LOOK };
        while let Some(arrived) = signals.wait(Timespec::try_from(pause).ok()) {
            for host in self.waiting.take_slow() {
                self.reporter.note(format!("waiting for {host}, which has not answered for 5 s"));
            }
            arrived.into_iter().for_each(|signal| self.take(signal));
            self.terminal.iter().for_each(TerminalHandle::draw);
        }
    }

    fn take(&mut self, signal: i32) {
        match (signal, &self.terminal) {
            (SIGWINCH, _) => {}
            (SIGCONT, _) => raw::again(),
            (SIGTSTP, Some(terminal)) => terminal.aside(stop_here),
            (SIGTSTP, None) => stop_here(),
            _ if ENDS.contains(&signal) && self.is_repetition() => {}
            _ => {
                match self.stop.take().filter(|stop| ENDS.contains(&signal) && !stop.is_planning())
                {
                    Some(stop) => {
                        let _first = self.told.set(Instant::now());
                        self.tell();
                        pathio::interrupt::ask();
                        stop.interrupt();
                    }
                    // What is unfinished lies in a directory that the next rbuild sweeps.
                    None => {
                        self.terminal.iter().for_each(TerminalHandle::leave);
                        raw::give_back();
                        let _never = emulate_default_handler(signal);
                    }
                }
            }
        }
    }

    /// Returns whether the signal is the one before, once more: timeout(1) sends it to the process and
    /// to its group, and a closed terminal sends several.
    fn is_repetition(&self) -> bool {
        self.told.get().is_some_and(|told| told.elapsed() < REPETITION)
    }

    /// Says what the first signal does; to a command that has the terminal, below what it shows.
    fn tell(&self) {
        if raw::is_set() {
            raw::aside(|| self.reporter.aside("\ninterrupted: ending it (again to stop at once)"));
        } else {
            self.reporter.note("interrupted: ending the running steps (again to stop at once)");
        }
    }
}

/// Stops this process until it is continued.
fn stop_here() {
    raw::aside(|| {
        let _continued = emulate_default_handler(SIGTSTP);
    });
}

#[cfg(test)]
mod tests {
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the test needs no thread that may fail to start"
    )]
    fn watch_that_ends_as_a_signal_arrives_is_noticed() {
        const LONG: Duration = Duration::from_secs(2);
        // The end comes sooner or later after the signal.
        for n_spins in (0..3000).map(|nth| nth % 1000) {
            let mut signals = Signals::new(vec![SIGWINCH]).unwrap();
            let handle = signals.delivery.handle();
            let begun = AtomicBool::new(false);
            thread::scope(|scope| {
                let waits = scope.spawn(|| {
                    begun.store(true, Ordering::SeqCst);
                    let started = Instant::now();
                    while signals.wait(Timespec::try_from(LONG).ok()).is_some() {}
                    started.elapsed()
                });
                while !begun.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
                raise(SIGWINCH).unwrap();
                (0..n_spins).for_each(|_| std::hint::spin_loop());
                handle.close();
                assert!(waits.join().unwrap() < LONG);
            });
        }
    }
}
