//! Signals: the first Ctrl-C cancels the build, the second one ends the process. The terminal is restored
//! whenever the process ends or stops.
//!
//! The thread that waits for signals also draws the live view: a second thread would cost a cached build
//! more than it does itself.

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

use crate::cli::debug_session::raw_mode;
use crate::cli::exit::Exit;
use crate::cli::progress::{FRAME, Reporter, TerminalHandle};
use crate::executor::{BuildError, CancelSwitch};
use crate::pathio;
use crate::pool;
use crate::registry::PendingRequests;

/// Signals that end the process by default, and cancel the build here.
const ENDS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
/// Other signals of a terminal. They matter if a live view is drawn on it, or if it may be attached to a
/// command.
const OTHERS: [i32; 4] = [SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH];

/// Time in which a repeated signal is ignored.
const REPETITION: Duration = Duration::from_millis(200);

/// Interval of the search for slow servers, without a live view.
const SLOW_SERVER_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `work`. Signals that would end the process cancel `stop` instead, with a note; without `stop`,
/// they end it. Also reports servers that do not answer.
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
    let cancelled = OnceLock::new();
    let mut watcher = Watcher { stop, reporter, terminal, waiting, cancelled: &cancelled };
    let (give, take) = mpsc::sync_channel(1);
    pool::scope(|scope| {
        // The thread starts first: without it, caught signals would be lost.
        let started = pool::start(scope, move || take.recv().map(|signals| watcher.run(signals)));
        let signals = started.ok().and_then(|_thread| Signals::new(watched).ok());
        // Dropped also if `work` panics.
        let _watch = signals.as_ref().map(|signals| {
            if is_catching {
                N_WATCHES.fetch_add(1, Ordering::SeqCst);
                set_default_action(false);
            }
            Watch { handle: signals.delivery.handle(), is_catching, cancelled: &cancelled }
        });
        let _taken = signals.map(|signals| give.send(signals));
        drop(give);
        work()
    })
}

/// Ends the watcher when dropped: the scope waits for its thread.
struct Watch<'a> {
    handle: Handle,
    is_catching: bool,
    cancelled: &'a OnceLock<Instant>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.handle.close();
        if !self.is_catching {
            return;
        }
        let number = N_WATCHES.load(Ordering::SeqCst);
        let left = self
            .cancelled
            .get()
            .map_or(Duration::ZERO, |at| REPETITION.saturating_sub(at.elapsed()));
        // A repeated signal must not kill a process that has been cancelled and is ending.
        let later = move || {
            thread::sleep(left);
            if N_WATCHES.load(Ordering::SeqCst) == number {
                set_default_action(true);
            }
        };
        if left.is_zero() || pool::background(later).is_err() {
            set_default_action(true);
        }
    }
}

/// Number of watches that were started.
static N_WATCHES: AtomicUsize = AtomicUsize::new(0);

/// Sets whether signals end the process by default. After a watch they must: a caught signal would
/// otherwise have no effect, while the process may still wait for the reader of a FIFO.
fn set_default_action(is_so: bool) {
    static IS_SO: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| {
        let is_so = Arc::new(AtomicBool::new(false));
        for signal in ENDS {
            // Fails only for signals that cannot be caught.
            let _id = register_conditional_default(signal, Arc::clone(&is_so));
        }
        is_so
    });
    IS_SO.store(is_so, Ordering::SeqCst);
}

/// Receives signals through a socket.
struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    fn new(watched: Vec<i32>) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, watched)?;
        Ok(Self { delivery })
    }

    /// Waits for signals, at most `no_longer`. Returns `None` once the watch has ended.
    fn wait(&mut self, no_longer: Option<Timespec>) -> Option<Vec<i32>> {
        let mut read = [PollFd::new(self.delivery.get_read(), PollFlags::IN)];
        retry_on_intr(|| poll(&mut read, no_longer.as_ref())).ok()?;
        // In this order: reading pending signals also consumes the byte that `close` writes.
        let arrived = self.delivery.pending().collect();
        let has_ended = self.delivery.handle().is_closed();
        (!has_ended).then_some(arrived)
    }
}

/// The thread that waits for signals.
struct Watcher<'a> {
    stop: Option<&'a CancelSwitch>,
    reporter: &'a Reporter<'a>,
    terminal: Option<TerminalHandle>,
    waiting: PendingRequests,
    /// Time of the first signal.
    cancelled: &'a OnceLock<Instant>,
}

impl Watcher<'_> {
    fn run(&mut self, mut signals: Signals) {
        let pause = if self.terminal.is_some() { FRAME } else { SLOW_SERVER_INTERVAL };
        while let Some(arrived) = signals.wait(Timespec::try_from(self.pause(pause)).ok()) {
            self.end_if_late();
            for host in self.waiting.take_slow() {
                self.reporter.note(format!("waiting for {host}, which has not answered for 5 s"));
            }
            arrived.into_iter().for_each(|signal| self.handle(signal));
            self.terminal.iter().for_each(TerminalHandle::draw);
        }
    }

    /// Returns the time until the next look at servers and terminal, or until the build must end.
    fn pause(&self, regular: Duration) -> Duration {
        let deadline = self.stop.filter(|stop| !stop.is_set()).and_then(CancelSwitch::deadline);
        let left = deadline.map(|(end, _limit)| end.saturating_duration_since(Instant::now()));
        left.map_or(regular, |left| regular.min(left))
    }

    /// Cancels the build once it has taken as long as it may.
    fn end_if_late(&self) {
        let Some(stop) = self.stop.filter(|stop| !stop.is_timed_out()) else { return };
        let Some((_, limit)) = stop.deadline().filter(|(end, _limit)| *end <= Instant::now())
        else {
            return;
        };
        let text = BuildError::TimedOut { limit }.to_string();
        if stop.ends_at_once() {
            // As after a signal: nothing looks at the switch, and nothing needs to be cleaned up.
            self.terminal.iter().for_each(TerminalHandle::leave);
            raw_mode::restore();
            self.reporter.note(format!("error: {text}"));
            std::process::exit(Exit::TimedOut.code().into());
        }
        self.reporter.note(format!("{text}: ending the running steps"));
        pathio::interrupt::ask();
        stop.time_out();
    }

    fn handle(&mut self, signal: i32) {
        match (signal, &self.terminal) {
            (SIGWINCH, _) => {}
            (SIGCONT, _) => raw_mode::set_again(),
            (SIGTSTP, Some(terminal)) => terminal.aside(stop_here),
            (SIGTSTP, None) => stop_here(),
            _ if ENDS.contains(&signal) && self.is_repetition() => {}
            _ => {
                match self.stop.take().filter(|stop| ENDS.contains(&signal) && !stop.ends_at_once())
                {
                    Some(stop) => {
                        let _first = self.cancelled.set(Instant::now());
                        self.report();
                        pathio::interrupt::ask();
                        stop.interrupt();
                    }
                    // Unfinished files are in a directory that the next rbuild removes.
                    None => {
                        self.terminal.iter().for_each(TerminalHandle::leave);
                        raw_mode::restore();
                        let _never = emulate_default_handler(signal);
                    }
                }
            }
        }
    }

    /// Returns whether the signal repeats the last one: timeout(1) sends it to the process and to its
    /// group, and a closed terminal sends several.
    fn is_repetition(&self) -> bool {
        self.cancelled.get().is_some_and(|at| at.elapsed() < REPETITION)
    }

    /// Reports the first signal.
    fn report(&self) {
        if raw_mode::is_set() {
            raw_mode::without_raw_mode(|| {
                self.reporter.aside("\ninterrupted: ending it (again to stop at once)");
            });
        } else {
            self.reporter.note("interrupted: ending the running steps (again to stop at once)");
        }
    }
}

/// Stops this process until it is continued.
fn stop_here() {
    raw_mode::without_raw_mode(|| {
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
    fn end_of_watch_is_noticed_while_a_signal_arrives() {
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
