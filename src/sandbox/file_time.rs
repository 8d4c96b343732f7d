//! The clock from which file systems take the times of files. It advances with the timer's ticks, every
//! 1 to 10 ms (clock_gettime(2), `CLOCK_REALTIME_COARSE`).

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A time that a new file may get, in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime(i64, i64);

impl FileTime {
    /// Returns a time that a file system has told.
    #[must_use]
    pub fn new(seconds: i64, nanoseconds: u64) -> Self {
        Self(seconds, i64::try_from(nanoseconds).unwrap_or(i64::MAX))
    }

    /// Returns the time that a file would get now.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Self(now.tv_sec, now.tv_nsec)
    }

    /// Waits until the clock has advanced from this time; returns the new one. Later files are not older
    /// than that. Files of the last tick may be younger: file systems have finer times since Linux 6.13.
    pub(super) fn next(self) -> Self {
        loop {
            let now = Self::now();
            if now != self {
                return now;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Returns whether a file with this time of creation is older.
    pub(super) fn is_after(self, seconds: i64, nanoseconds: u32) -> bool {
        (seconds, i64::from(nanoseconds)) < (self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_time_is_later_and_needs_no_wait_if_the_clock_has_advanced() {
        let first = FileTime::now();
        let second = first.next();
        assert!(second > first);
        // A busy machine may interrupt one call, but not all.
        let is_quick = || {
            let started = std::time::Instant::now();
            assert!(first.next() >= second);
            started.elapsed() < Duration::from_micros(200)
        };
        assert!((0..100).any(|_| is_quick()), "each call waited");
        let FileTime(seconds, nanoseconds) = second;
        let nanoseconds = u32::try_from(nanoseconds).unwrap();
        assert!(!second.is_after(seconds, nanoseconds));
        assert!(second.is_after(seconds - 1, nanoseconds));
        assert!(second.is_after(seconds - 1, 999_999_999));
    }
}
