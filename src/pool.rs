//! The floor that starts threads: bounded work whose results come back in input order.
#![expect(clippy::disallowed_methods, reason = "this is the one place that starts threads")]

use std::num::NonZeroUsize;
use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub use std::thread::{Scope, ScopedJoinHandle};

/// Applies `work` to every item on at most `jobs` threads; the results are in the items' order.
///
/// A panic in `work` is passed on to the caller after the other threads have ended.
pub fn map_in_order<T: Sync, R: Send>(
    items: &[T],
    jobs: NonZeroUsize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let n_threads = jobs.get().min(items.len());
    if n_threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    // One lock a result, taken once each: a channel would have to sort what comes out of it.
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(item), Some(slot)) = (items.get(at), results.get(at)) else { return };
                    let result = work(item);
                    *slot.lock().expect("each slot is locked once") = Some(result);
                }
            });
        }
    });
    results
        .into_iter()
        .map(|slot| {
            let result = slot.into_inner().expect("each slot is locked once");
            result.expect("the threads stop only when every item is done")
        })
        .collect()
}

/// Runs `body` with a scope in which it may start threads; all have ended when it returns.
pub fn scope<'env, R>(body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> R {
    thread::scope(body)
}

/// Waits for `handle` and passes a panic of its thread on.
pub fn join<R>(handle: ScopedJoinHandle<'_, R>) -> R {
    match handle.join() {
        Ok(value) => value,
        Err(payload) => panic::resume_unwind(payload),
    }
}

/// Starts a thread that outlives the caller's frame, for work that ends with the process.
pub fn background(work: impl FnOnce() + Send + 'static) {
    drop(thread::spawn(work));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_in_order_keeps_the_order_for_any_number_of_threads() {
        let items: Vec<u64> = (0..1000).collect();
        let want: Vec<u64> = items.iter().map(|n| n * n).collect();
        for jobs in [1, 2, 7, 64] {
            assert_eq!(map_in_order(&items, NonZeroUsize::new(jobs).unwrap(), |n| n * n), want);
        }
    }
}
