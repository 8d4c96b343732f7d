//! Limits the number of parallel transfers per host.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex};

use crate::pool;

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
    hosts: Mutex<BTreeMap<Key, HostTransfers>>,
    changed: Condvar,
}

/// The transfers of one host and direction.
#[derive(Debug, Default)]
struct HostTransfers {
    n_active: usize,
    n_waiting: usize,
}

/// A permit for one transfer, released on drop.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    limit: &'a TransferLimit,
    key: Key,
}

impl TransferLimit {
    pub(super) const fn new(max: NonZeroUsize) -> Self {
        Self { max, hosts: Mutex::new(BTreeMap::new()), changed: Condvar::new() }
    }

    /// Waits for a permit at the host of `origin`.
    pub(super) fn acquire(&self, origin: String, direction: TransferDirection) -> Permit<'_> {
        self.acquire_while(origin, direction, &|| true).expect("it is wanted")
    }

    /// Waits for a permit at the host of `origin`. Returns `None` once `is_wanted` returns false: it is
    /// called after each [`Self::wake`].
    pub(super) fn acquire_while(
        &self,
        origin: String,
        direction: TransferDirection,
        is_wanted: &dyn Fn() -> bool,
    ) -> Option<Permit<'_>> {
        let key = (origin, direction);
        let mut hosts = pool::lock(&self.hosts);
        hosts.entry(key.clone()).or_default().n_waiting += 1;
        loop {
            let host = hosts.entry(key.clone()).or_default();
            let (is_free, is_wanted) = (host.n_active < self.max.get(), is_wanted());
            if is_free || !is_wanted {
                host.n_waiting = host.n_waiting.saturating_sub(1);
                host.n_active += usize::from(is_wanted);
                drop(hosts);
                return is_wanted.then_some(Permit { limit: self, key });
            }
            hosts = pool::wait(&self.changed, hosts);
        }
    }

    /// Returns a permit at the host of `origin` if one is free and no thread waits for it.
    pub(super) fn try_acquire(
        &self,
        origin: String,
        direction: TransferDirection,
    ) -> Option<Permit<'_>> {
        let key = (origin, direction);
        let mut hosts = pool::lock(&self.hosts);
        let host = hosts.entry(key.clone()).or_default();
        if host.n_active >= self.max.get() || host.n_waiting > 0 {
            return None;
        }
        host.n_active += 1;
        drop(hosts);
        Some(Permit { limit: self, key })
    }

    /// Makes all waiting threads check whether they still want a permit.
    pub(super) fn wake(&self) {
        drop(pool::lock(&self.hosts));
        self.changed.notify_all();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut hosts = pool::lock(&self.limit.hosts);
        if let Some(host) = hosts.get_mut(&self.key) {
            host.n_active = host.n_active.saturating_sub(1);
        }
        drop(hosts);
        self.limit.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

    #[test]
    fn permits_that_a_thread_waits_for_are_not_taken_without_waiting() {
        let limit = TransferLimit::new(NonZeroUsize::MIN);
        let try_acquire = || limit.try_acquire("a".to_owned(), TransferDirection::Down);
        let is_wanted = AtomicBool::new(true);
        let acquire = || {
            let is_wanted = || is_wanted.load(Ordering::SeqCst);
            limit.acquire_while("a".to_owned(), TransferDirection::Down, &is_wanted).is_some()
        };
        let has_waiting = || {
            let hosts = pool::lock(&limit.hosts);
            hosts.values().any(|host| host.n_waiting > 0)
        };
        let first = try_acquire().unwrap();
        assert!(try_acquire().is_none());
        pool::scope(|scope| {
            let waiting = pool::start(scope, acquire).unwrap();
            while !has_waiting() {
                std::thread::yield_now();
            }
            // As if a permit were free before the waiting thread takes it.
            pool::lock(&limit.hosts).values_mut().for_each(|host| host.n_active = 0);
            assert!(try_acquire().is_none());
            pool::lock(&limit.hosts).values_mut().for_each(|host| host.n_active = 1);
            is_wanted.store(false, Ordering::SeqCst);
            limit.wake();
            assert!(!pool::join(waiting));
        });
        drop(first);
        assert!(try_acquire().is_some());
    }
}
