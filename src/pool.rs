//! Starts threads: bounded work whose results come back in input order, and helpers that end with
//! a scope.
//!
//! A limit on processes (`ulimit -u`, a cgroup's `pids.max`) or on memory can keep a thread from
//! starting at any time, also because of what a build step does. Nothing here panics then: what the
//! caller can do itself it does, and all else is an error.
#![expect(clippy::disallowed_methods, reason = "this is the one place that starts threads")]

use std::io;
use std::num::NonZeroUsize;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

pub use std::thread::{Scope, ScopedJoinHandle};

/// Number of attempts to start a thread: others may end meanwhile.
const N_ATTEMPTS: u32 = 20;
/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Locks `mutex`, and ignores that a thread may have panicked while it held the lock.
///
/// Poisoning (<https://doc.rust-lang.org/std/sync/struct.Mutex.html#poisoning>) reports that the
/// value may be half changed. The values of this program are changed by one call each, such as an
/// insertion into a map, so they are whole even then. The panic itself is not lost: it ends the
/// process, or reaches the thread that joins the one that panicked.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Applies `work` to every item on at most `jobs` threads, one of which is the caller's; the
/// results are in the items' order.
///
/// Items are started in order, so one may wait for the result of any before it. If threads cannot
/// be started, fewer do the work, and leave space for the threads and processes that it needs. A panic in `work` is passed on to the caller after the other
/// threads have ended.
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
    let work_on = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (Some(item), Some(slot)) = (items.get(at), results.get(at)) else { return };
            let result = work(item);
            *slot.lock().expect("each slot is locked once") = Some(result);
        }
    };
    let gate = Gate::default();
    thread::scope(|scope| {
        let mut admitted = n_threads;
        for number in 1..n_threads {
            let work = {
                let gate = &gate;
                move || {
                    if gate.admits(number) {
                        work_on();
                    }
                }
            };
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                admitted = number / SHARE_AT_LIMIT;
                break;
            }
        }
        gate.open(admitted);
        work_on();
    });
    results
        .into_iter()
        .map(|slot| {
            let result = slot.into_inner().expect("each slot is locked once");
            result.expect("the threads stop only when every item is done")
        })
        .collect()
}

/// Of the threads that could be started, one in this many works if the system allows no more: each item may
/// need a thread and a process besides.
const SHARE_AT_LIMIT: usize = 3;

/// Threads wait here until it is known how many of them can be started.
#[derive(Default)]
struct Gate {
    /// Threads with lower numbers go to work.
    admitted: Mutex<Option<usize>>,
    opened: Condvar,
}

impl Gate {
    fn open(&self, admitted: usize) {
        *lock(&self.admitted) = Some(admitted);
        self.opened.notify_all();
    }

    /// Waits until it is open.
    fn admits(&self, number: usize) -> bool {
        let mut admitted = lock(&self.admitted);
        loop {
            if let Some(admitted) = *admitted {
                return number < admitted;
            }
            admitted = self.opened.wait(admitted).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Runs `body` with a scope in which it may start threads; all have ended when it returns.
pub fn scope<'env, R>(body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> R {
    thread::scope(body)
}

/// Starts a thread in `scope`, for work that has to happen beside the caller's.
///
/// # Errors
/// If the system lets this process start no thread within a second.
pub fn start<'scope, R: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> R + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, R>> {
    let kept = Kept::new(work);
    patiently(|| {
        let kept = kept.clone();
        thread::Builder::new().spawn_scoped(scope, move || kept.run().expect("it runs once"))
    })
}

/// Starts a thread in `scope`, or does the work at once if none can be started.
pub fn start_or_run<'scope>(scope: &'scope Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) {
    let kept = Kept::new(work);
    let given = kept.clone();
    if thread::Builder::new().spawn_scoped(scope, move || given.run()).is_err() {
        kept.run();
    }
}

/// Waits for `handle` and passes a panic of its thread on.
pub fn join<R>(handle: ScopedJoinHandle<'_, R>) -> R {
    match handle.join() {
        Ok(value) => value,
        Err(payload) => panic::resume_unwind(payload),
    }
}

/// Starts a thread that outlives the caller's frame, for work that ends with the process.
///
/// # Errors
/// If the system lets this process start no thread within a second.
pub fn background(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let kept = Kept::new(work);
    patiently(|| {
        let kept = kept.clone();
        thread::Builder::new().spawn(move || kept.run())
    })
    .map(drop)
}

/// Starts such a thread with `value`, in one attempt.
///
/// # Errors
/// `value`, if the system lets this process start no thread now.
pub fn background_with<T: Send + 'static>(
    value: T,
    work: impl FnOnce(T) + Send + 'static,
) -> Result<(), T> {
    let kept = Arc::new(Mutex::new(Some(value)));
    let given = Arc::clone(&kept);
    let take = |from: &Mutex<Option<T>>| lock(from).take();
    let started = thread::Builder::new().spawn(move || take(&given).map(work));
    match started {
        Ok(_thread) => Ok(()),
        Err(_limit) => Err(take(&kept).expect("only the thread takes it")),
    }
}

/// Work that a thread takes: what is moved into one that does not start would be lost.
struct Kept<W>(Arc<Mutex<Option<W>>>);

impl<W> Clone for Kept<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> Kept<W> {
    fn new(work: W) -> Self {
        Self(Arc::new(Mutex::new(Some(work))))
    }

    /// Does the work, unless it has been taken.
    fn run<R>(&self) -> Option<R>
    where
        W: FnOnce() -> R,
    {
        let work = lock(&self.0).take();
        work.map(|work| work())
    }
}

/// Tries to start a thread until it starts, or a second has passed: another attempt is made after
/// [`io::ErrorKind::WouldBlock`].
///
/// # Errors
/// That of the last attempt.
pub fn patiently<H>(mut start: impl FnMut() -> io::Result<H>) -> io::Result<H> {
    let mut n_left = N_ATTEMPTS;
    loop {
        match start() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && n_left > 0 => {
                n_left -= 1;
                thread::sleep(PAUSE);
            }
            started => return started.map_err(explained),
        }
    }
}

fn explained(error: io::Error) -> io::Error {
    let message = format!(
        "cannot start a thread: {error}; raise the limit on processes (`ulimit -u`, or `pids.max` \
         of the cgroup)"
    );
    io::Error::new(error.kind(), message)
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

    #[test]
    fn every_item_may_wait_for_those_before_it() {
        let items: Vec<usize> = (0..200).collect();
        let done: Vec<Mutex<bool>> = items.iter().map(|_| Mutex::new(false)).collect();
        let wait_for_earlier = |at: &usize| {
            while done.iter().take(*at).any(|done| !*done.lock().unwrap()) {
                thread::yield_now();
            }
            *done[*at].lock().unwrap() = true;
        };
        map_in_order(&items, NonZeroUsize::new(8).unwrap(), wait_for_earlier);
        assert!(done.iter().all(|done| *done.lock().unwrap()));
    }

    #[test]
    fn work_that_no_thread_took_is_kept() {
        let kept = Kept::new(|| 7);
        drop(kept.clone());
        assert_eq!(kept.run(), Some(7));
        assert_eq!(kept.run(), None);
    }
}
