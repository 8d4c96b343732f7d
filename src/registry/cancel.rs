//! Cancellation: wakes retry sleeps and closes open connections.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::pool;

/// Cancels a client's work from another thread. Clones are the same switch.
#[derive(Clone, Default)]
pub struct Cancellation(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_cancelled: bool,
    /// Each closes the connections of one pool.
    on_cancel: Vec<Box<dyn Fn() + Send>>,
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cancellation")
    }
}

impl Cancellation {
    /// Cancels all transfers and sleeps of the client, current and future ones: every request
    /// fails.
    pub fn cancel(&self) {
        let mut state = self.state();
        state.is_cancelled = true;
        for close in state.on_cancel.drain(..) {
            close();
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Calls `close` on cancellation, or at once if that has happened.
    pub(super) fn on_cancel(&self, close: impl Fn() + Send + 'static) {
        let mut state = self.state();
        if state.is_cancelled {
            close();
        } else {
            state.on_cancel.push(Box::new(close));
        }
    }

    /// Sleeps for `duration`. Returns false if cancelled, or once `is_wanted` returns false: it is called
    /// after each [`Self::wake`].
    pub(super) fn sleep_while(&self, duration: Duration, is_wanted: &dyn Fn() -> bool) -> bool {
        let end = Instant::now() + duration;
        let mut state = self.state();
        while !state.is_cancelled && is_wanted() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Makes all sleeps check whether they are still wanted.
    pub(super) fn wake(&self) {
        drop(self.state());
        self.0.changed.notify_all();
    }

    /// Locks the state. A panic elsewhere leaves it consistent.
    fn state(&self) -> MutexGuard<'_, State> {
        pool::lock(&self.0.state)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn cancelling_wakes_sleeps_and_closes_connections_once() {
        let (cancellation, n_closed) = (Cancellation::default(), Arc::new(AtomicUsize::new(0)));
        let close = || {
            let n_closed = Arc::clone(&n_closed);
            move || drop(n_closed.fetch_add(1, Ordering::SeqCst).to_string())
        };
        cancellation.on_cancel(close());
        assert!(cancellation.sleep_while(Duration::from_millis(1), &|| true));
        let started = Instant::now();
        crate::pool::scope(|scope| {
            let waiting =
                scope.spawn(|| cancellation.sleep_while(Duration::from_secs(60), &|| true));
            cancellation.cancel();
            assert!(!crate::pool::join(waiting));
        });
        assert!(started.elapsed() < Duration::from_secs(30));
        cancellation.cancel();
        cancellation.on_cancel(close());
        assert_eq!(n_closed.load(Ordering::SeqCst), 2);
    }
}
