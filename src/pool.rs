//! Starts threads: bounded work whose results come back in input order, and helper threads that end
//! with a scope.
//!
//! A limit on processes (`ulimit -u`, or `pids.max` of a cgroup) or on memory can keep a thread
//! from starting at any time; a build step can be the cause (pthread_create(3), `EAGAIN`). This
//! module never panics then. The caller does the work itself where it can; otherwise it gets an
//! error.
#![expect(clippy::disallowed_methods, reason = "this is the one place that starts threads")]

use std::io;
use std::num::NonZeroUsize;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

pub use std::thread::{Scope, ScopedJoinHandle};

/// Maximum number of attempts to start a thread: other threads may end meanwhile.
const MAX_ATTEMPTS: u32 = 20;
/// The time between two attempts.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(50);

/// Locks `mutex`, and ignores that a thread may have panicked while it held the lock.
///
/// Poisoning (<https://doc.rust-lang.org/std/sync/struct.Mutex.html#poisoning>) reports that the
/// value may be half changed. The values of this program are changed by one call each, such as an
/// insertion into a map, so they are whole even then. The panic itself is not lost: it ends the
/// process, or reaches the thread that joins the one that panicked.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` is notified. Ignores panics of other threads, as [`lock`] does.
pub fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Applies `work` to every item on at most `jobs` threads, one of which is the caller's; the
/// results are in the items' order.
///
/// Items are started in order, so one may wait for the result of any before it. If threads cannot
/// be started, fewer do the work, and leave capacity for the threads and processes that it needs. A
/// panic in `work` is propagated to the caller after the other threads have ended.
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
    // One lock for each result, taken once: a channel would need sorting afterwards.
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let work_on = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (Some(item), Some(slot)) = (items.get(at), results.get(at)) else { return };
            let result = work(item);
            *slot.lock().expect("each slot is locked once") = Some(result);
        }
    };
    let gate = StartGate::default();
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

/// If the system allows no more threads, one in this many of those that started does work: each
/// item may need another thread and a process.
const SHARE_AT_LIMIT: usize = 3;

/// Makes threads wait until the number of started ones is known.
#[derive(Default)]
struct StartGate {
    /// Threads with lower numbers start to work, the others end.
    admitted: Mutex<Option<usize>>,
    opened: Condvar,
}

impl StartGate {
    fn open(&self, admitted: usize) {
        *lock(&self.admitted) = Some(admitted);
        self.opened.notify_all();
    }

    /// Waits for the decision; returns whether thread `number` works.
    fn admits(&self, number: usize) -> bool {
        let mut admitted = lock(&self.admitted);
        loop {
            if let Some(admitted) = *admitted {
                return number < admitted;
            }
            admitted = wait(&self.opened, admitted);
        }
    }
}

/// Runs `body` with a scope in which it may start threads; all have ended when it returns.
pub fn scope<'env, R>(body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> R {
    thread::scope(body)
}

/// Starts a thread in `scope`, for work that must run concurrently with the caller.
///
/// # Errors
/// `WouldBlock` if the system lets this process start no thread within a second.
pub fn start<'scope, R: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> R + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, R>> {
    let shared = SharedWork::new(work);
    start_with_retries(|| {
        let shared = shared.clone();
        thread::Builder::new().spawn_scoped(scope, move || shared.run().expect("it runs once"))
    })
}

/// Starts a thread in `scope` in a single attempt, for work that other threads do otherwise.
///
/// # Errors
/// That of pthread_create(3). `work` is dropped then.
pub fn try_start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() + Send + 'scope,
) -> io::Result<()> {
    thread::Builder::new().spawn_scoped(scope, work).map(drop)
}

/// Starts a thread in `scope`, or runs the work on the calling thread if none can be started.
pub fn start_or_run<'scope>(scope: &'scope Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) {
    let shared = SharedWork::new(work);
    let theirs = shared.clone();
    if thread::Builder::new().spawn_scoped(scope, move || theirs.run()).is_err() {
        shared.run();
    }
}

/// Runs `other` on another thread while the caller runs `own`; one after the other if no thread can be
/// started. Returns both results.
pub fn at_once<A: Send, B>(other: impl Fn() -> A + Sync, own: impl FnOnce() -> B) -> (A, B) {
    scope(|scope| {
        let started = start(scope, &other);
        let own = own();
        (started.map_or_else(|_no_thread| other(), join), own)
    })
}

/// Waits for `handle`, and propagates a panic of its thread.
pub fn join<R>(handle: ScopedJoinHandle<'_, R>) -> R {
    match handle.join() {
        Ok(value) => value,
        Err(payload) => panic::resume_unwind(payload),
    }
}

/// Starts a thread that outlives the caller's frame, for work that may last as long as the process.
///
/// # Errors
/// `WouldBlock` if the system lets this process start no thread within a second.
pub fn background(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let shared = SharedWork::new(work);
    start_with_retries(|| {
        let shared = shared.clone();
        thread::Builder::new().spawn(move || shared.run())
    })
    .map(drop)
}

/// Starts a thread that outlives the caller's frame and owns `value`, in a single attempt.
///
/// # Errors
/// Returns `value` if the system lets this process start no thread now.
pub fn background_with<T: Send + 'static>(
    value: T,
    work: impl FnOnce(T) + Send + 'static,
) -> Result<(), T> {
    let shared = Arc::new(Mutex::new(Some(value)));
    let theirs = Arc::clone(&shared);
    let take = |from: &Mutex<Option<T>>| lock(from).take();
    let started = thread::Builder::new().spawn(move || take(&theirs).map(work));
    match started {
        Ok(_thread) => Ok(()),
        Err(_limit) => Err(take(&shared).expect("only the thread takes it")),
    }
}

/// Work that exactly one thread takes. A closure moved into a thread that does not start would be
/// lost.
struct SharedWork<W>(Arc<Mutex<Option<W>>>);

impl<W> Clone for SharedWork<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> SharedWork<W> {
    fn new(work: W) -> Self {
        Self(Arc::new(Mutex::new(Some(work))))
    }

    /// Runs the work, unless another thread has taken it.
    fn run<R>(&self) -> Option<R>
    where
        W: FnOnce() -> R,
    {
        let work = lock(&self.0).take();
        work.map(|work| work())
    }
}

/// Calls `start` until it succeeds, or a second has passed. Repeats it after
/// [`io::ErrorKind::WouldBlock`] only.
///
/// # Errors
/// The error of the last attempt.
pub fn start_with_retries<H>(mut start: impl FnMut() -> io::Result<H>) -> io::Result<H> {
    let mut n_left = MAX_ATTEMPTS;
    loop {
        match start() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && n_left > 0 => {
                n_left -= 1;
                thread::sleep(ATTEMPT_INTERVAL);
            }
            started => return started.map_err(thread_error),
        }
    }
}

fn thread_error(error: io::Error) -> io::Error {
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
    fn work_that_no_thread_took_can_still_run() {
        let shared = SharedWork::new(|| 7);
        drop(shared.clone());
        assert_eq!(shared.run(), Some(7));
        assert_eq!(shared.run(), None);
    }
}
