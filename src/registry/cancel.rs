//! The end of all waiting: when nobody wants the outcome any more, pauses end, and connections too.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Ends what a client does, from another thread; clones are the same switch.
#[derive(Clone, Default)]
pub struct Halt(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_set: bool,
    /// Each ends the connections of one pool.
    closers: Vec<Box<dyn Fn() + Send>>,
}

impl fmt::Debug for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Halt")
    }
}

impl Halt {
    /// Ends every transfer and every pause of the client, now and from now on: all it is asked to do
    /// fails.
    pub fn set(&self) {
        let mut state = self.state();
        state.is_set = true;
        for close in state.closers.drain(..) {
            close();
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Has `close` called when the time comes, or now if it is past.
    pub(super) fn also(&self, close: impl Fn() + Send + 'static) {
        let mut state = self.state();
        if state.is_set {
            close();
        } else {
            state.closers.push(Box::new(close));
        }
    }

    /// Waits so long; tells whether there is any use in going on.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        let mut state = self.state();
        while !state.is_set {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// A panic elsewhere leaves the state as good as it was.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn pauses_end_and_connections_are_closed_once() {
        let (halt, n_closed) = (Halt::default(), Arc::new(AtomicUsize::new(0)));
        let close = || {
            let n_closed = Arc::clone(&n_closed);
            move || drop(n_closed.fetch_add(1, Ordering::SeqCst).to_string())
        };
        halt.also(close());
        assert!(halt.pause(Duration::from_millis(1)));
        let started = Instant::now();
        crate::pool::scope(|scope| {
            let waiting = scope.spawn(|| halt.pause(Duration::from_secs(60)));
            halt.set();
            assert!(!crate::pool::join(waiting));
        });
        assert!(started.elapsed() < Duration::from_secs(30));
        halt.set();
        halt.also(close());
        assert_eq!(n_closed.load(Ordering::SeqCst), 2);
    }
}
