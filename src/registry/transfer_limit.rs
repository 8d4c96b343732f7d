//! How many transfers one host gets at a time.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, PoisonError};

/// Whether bytes come or go. They are counted apart: an upload may wait for the download that feeds
/// it, never the other way round, so that the two cannot wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    Down,
    Up,
}

type Key = (String, Direction);

/// Lets so many transfers in at once, for each host and direction.
#[derive(Debug)]
pub(super) struct Gate {
    most: NonZeroUsize,
    inside: Mutex<BTreeMap<Key, usize>>,
    left: Condvar,
}

/// The right to one transfer; it ends with this value.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    gate: &'a Gate,
    key: Key,
}

impl Gate {
    pub(super) const fn new(most: NonZeroUsize) -> Self {
        Self { most, inside: Mutex::new(BTreeMap::new()), left: Condvar::new() }
    }

    /// Waits for a place at the host of `origin`.
    pub(super) fn enter(&self, origin: String, direction: Direction) -> Permit<'_> {
        let key = (origin, direction);
        // A panic elsewhere leaves the counts as good as they were.
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        while inside.get(&key).is_some_and(|n| *n >= self.most.get()) {
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        *inside.entry(key.clone()).or_default() += 1;
        drop(inside);
        Permit { gate: self, key }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut inside = self.gate.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = inside.get_mut(&self.key) {
            *n = n.saturating_sub(1);
        }
        drop(inside);
        self.gate.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_host_gets_more_transfers_than_it_may() {
        let gate = Gate::new(NonZeroUsize::new(2).unwrap());
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        crate::pool::map_in_order(&[(); 12], NonZeroUsize::new(6).unwrap(), |()| {
            let _permit = gate.enter("a".to_owned(), Direction::Up);
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
            now.fetch_sub(1, Ordering::SeqCst);
        });
        assert_eq!(most.into_inner(), 2);
        let held = [(); 2].map(|()| gate.enter("a".to_owned(), Direction::Up));
        drop(gate.enter("b".to_owned(), Direction::Up));
        drop(gate.enter("a".to_owned(), Direction::Down));
        drop(held);
    }
}
