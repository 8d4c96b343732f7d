//! Limits the number of parallel transfers per host.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, PoisonError};

/// Direction of a transfer. Both are limited separately: an upload may wait for the download that
/// feeds it, never the other way round, so they cannot deadlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TransferDirection {
    Down,
    Up,
}

type Key = (String, TransferDirection);

/// Maximum number of parallel transfers, for each host and direction.
#[derive(Debug)]
pub(super) struct TransferLimit {
    max: NonZeroUsize,
    active: Mutex<BTreeMap<Key, usize>>,
    released: Condvar,
}

/// A permit for one transfer, released on drop.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    limit: &'a TransferLimit,
    key: Key,
}

impl TransferLimit {
    pub(super) const fn new(max: NonZeroUsize) -> Self {
        Self { max, active: Mutex::new(BTreeMap::new()), released: Condvar::new() }
    }

    /// Waits for a permit at the host of `origin`.
    pub(super) fn acquire(&self, origin: String, direction: TransferDirection) -> Permit<'_> {
        let key = (origin, direction);
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        while active.get(&key).is_some_and(|n| *n >= self.max.get()) {
            active = self.released.wait(active).unwrap_or_else(PoisonError::into_inner);
        }
        *active.entry(key.clone()).or_default() += 1;
        drop(active);
        Permit { limit: self, key }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut active = self.limit.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = active.get_mut(&self.key) {
            *n = n.saturating_sub(1);
        }
        drop(active);
        self.limit.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn parallel_transfers_per_host_are_limited() {
        let limit = TransferLimit::new(NonZeroUsize::new(2).unwrap());
        let (now, max) = (AtomicUsize::new(0), AtomicUsize::new(0));
        crate::pool::map_in_order(&[(); 12], NonZeroUsize::new(6).unwrap(), |()| {
            let _permit = limit.acquire("a".to_owned(), TransferDirection::Up);
            max.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
            now.fetch_sub(1, Ordering::SeqCst);
        });
        assert_eq!(max.into_inner(), 2);
        let held = [(); 2].map(|()| limit.acquire("a".to_owned(), TransferDirection::Up));
        drop(limit.acquire("b".to_owned(), TransferDirection::Up));
        drop(limit.acquire("a".to_owned(), TransferDirection::Down));
        drop(held);
    }
}
