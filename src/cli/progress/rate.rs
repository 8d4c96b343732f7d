//! Progress and speed of transfers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::diag::size;

/// Time before the first line of a transfer.
const FIRST: Duration = Duration::from_secs(1);
/// Maximum time between two lines.
const LONGEST: Duration = Duration::from_secs(10);

/// Decides when a transfer gets another line in a log. Lines become rarer with time, so that a long
/// transfer does not fill the log.
#[derive(Debug)]
pub(super) struct Rate {
    started: Instant,
    /// Time and bytes of the last line.
    shown: (Instant, u64),
}

impl Rate {
    /// Starts a transfer at `now`.
    pub(super) const fn new(now: Instant) -> Self {
        Self { started: now, shown: (now, 0) }
    }

    /// Returns `12.3MB / 57.0MB 31.0MB/s` if a line is due; without the total if that is 0.
    pub(super) fn line(
        &mut self,
        now: Instant,
        done_bytes: u64,
        total_bytes: u64,
    ) -> Option<String> {
        let (last, last_bytes) = self.shown;
        let pause = (last.duration_since(self.started) / 2).clamp(FIRST, LONGEST);
        let since = now.duration_since(last);
        if since < pause {
            return None;
        }
        self.shown = (now, done_bytes);
        // Several threads report: numbers may arrive out of order.
        let more = u128::from(done_bytes.saturating_sub(last_bytes));
        let per_second = more * 1000 / since.as_millis().max(1);
        let rate = size(u64::try_from(per_second).unwrap_or(u64::MAX));
        let total =
            if total_bytes == 0 { String::new() } else { format!(" / {}", size(total_bytes)) };
        Some(format!("{}{total} {rate}/s", size(done_bytes)))
    }
}

/// Time over which the speed is measured.
const WINDOW: Duration = Duration::from_secs(3);
/// Minimum time between two samples.
const STEP: Duration = Duration::from_millis(250);

/// Speed of a transfer over its last seconds. Times count from any fixed moment.
#[derive(Debug)]
pub(super) struct Speed {
    /// Time and bytes of each sample, oldest first.
    samples: VecDeque<(Duration, u64)>,
}

impl Speed {
    /// Starts a transfer at `now`.
    pub(super) fn new(now: Duration) -> Self {
        Self { samples: VecDeque::from([(now, 0)]) }
    }

    /// Adds a sample: bytes transferred by `now`.
    pub(super) fn at(&mut self, now: Duration, done_bytes: u64) {
        let is_due = |(last, _): &(Duration, u64)| now.saturating_sub(*last) >= STEP;
        if self.samples.back().is_none_or(is_due) {
            self.samples.push_back((now, done_bytes));
        }
        // The last sample before the window is kept as its start.
        let is_old = |sample: Option<&(Duration, u64)>| {
            sample.is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW)
        };
        while is_old(self.samples.get(1)) {
            self.samples.pop_front();
        }
    }

    /// Returns bytes per second; `None` while it is too early to say.
    pub(super) fn per_second(&self, now: Duration, done_bytes: u64) -> Option<u64> {
        let is_old = |(at, _): &&(Duration, u64)| now.saturating_sub(*at) >= WINDOW;
        let from = self.samples.iter().rev().find(is_old).or_else(|| self.samples.front());
        let (at, bytes) = from.copied()?;
        let since = now.checked_sub(at).filter(|since| *since >= STEP)?;
        let more = u128::from(done_bytes.saturating_sub(bytes));
        u64::try_from(more * 1000 / since.as_millis()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_after_a_second_and_then_more_rarely() {
        let started = Instant::now();
        let mut rate = Rate::new(started);
        let mut lines = Vec::new();
        for tenth in 0..600_u32 {
            let now = started + Duration::from_millis(100) * tenth;
            let done_bytes = u64::from(tenth) * 1_234_000;
            if let Some(line) = rate.line(now, done_bytes, 57_000_000) {
                lines.push((tenth, line));
            }
        }
        let places: Vec<u32> = lines.iter().map(|(tenth, _)| *tenth).collect();
        assert_eq!(places, [10, 20, 30, 45, 68, 102, 153, 230, 330, 430, 530]);
        assert_eq!(lines[0].1, "12.3MB / 57.0MB 12.3MB/s");
        assert_eq!(rate.line(started + Duration::from_secs(90), 0, 0).unwrap(), "0B 0B/s");
    }

    #[test]
    fn speed_is_that_of_the_last_seconds() {
        let tenth = |n: u32| Duration::from_millis(100) * n;
        let mut speed = Speed::new(tenth(5));
        assert_eq!(speed.per_second(tenth(6), 1000), None);
        let mut done_bytes = 0;
        for n in 6..100 {
            done_bytes += if n < 50 { 1000 } else { 100 };
            speed.at(tenth(n), done_bytes);
            assert!(speed.samples.len() < 15);
            match n {
                20 => assert_eq!(speed.per_second(tenth(n), done_bytes), Some(10_000)),
                99 => assert_eq!(speed.per_second(tenth(n), done_bytes), Some(1000)),
                _ => {}
            }
        }
        // The transfer has stalled.
        assert!(speed.per_second(tenth(140), done_bytes).is_some_and(|speed| speed < 100));
    }
}
