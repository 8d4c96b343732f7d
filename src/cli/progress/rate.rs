//! How far a transfer is, and how fast.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::diag::size;

/// A transfer that is done within this time is not worth a line.
const FIRST: Duration = Duration::from_secs(1);
/// The longest time without one.
const LONGEST: Duration = Duration::from_secs(10);

/// Tells when a transfer is worth another line, and what that says. Lines become rarer, so that a
/// long transfer does not fill a log.
#[derive(Debug)]
pub(crate) struct Rate {
    started: Instant,
    /// When the last line was, and how many bytes there were then.
    shown: (Instant, u64),
}

impl Rate {
    /// Of a transfer that starts at `now`.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { started: now, shown: (now, 0) }
    }

    /// `12.3MB / 57.0MB 31.0MB/s`, if it is time; the total is left out when it is 0.
    pub(crate) fn line(
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
        // Several threads tell: a later number may be overtaken by an earlier one.
        let more = u128::from(done_bytes.saturating_sub(last_bytes));
        let per_second = more * 1000 / since.as_millis().max(1);
        let rate = size(u64::try_from(per_second).unwrap_or(u64::MAX));
        let total =
            if total_bytes == 0 { String::new() } else { format!(" / {}", size(total_bytes)) };
        Some(format!("{}{total} {rate}/s", size(done_bytes)))
    }
}

/// What is older tells nothing of how fast it goes now.
const WINDOW: Duration = Duration::from_secs(3);
/// Two places nearer than this are one.
const STEP: Duration = Duration::from_millis(250);

/// How fast a transfer goes, over its last seconds. Times count from any one moment.
#[derive(Debug)]
pub(crate) struct Speed {
    /// When it was where, oldest first.
    places: VecDeque<(Duration, u64)>,
}

impl Speed {
    /// Of a transfer that starts at `now`.
    pub(crate) fn new(now: Duration) -> Self {
        Self { places: VecDeque::from([(now, 0)]) }
    }

    /// It has moved so many bytes by now.
    pub(crate) fn at(&mut self, now: Duration, done_bytes: u64) {
        let is_due = |(last, _): &(Duration, u64)| now.saturating_sub(*last) >= STEP;
        if self.places.back().is_none_or(is_due) {
            self.places.push_back((now, done_bytes));
        }
        // The last place before the window is where the window's bytes count from.
        let is_old = |place: Option<&(Duration, u64)>| {
            place.is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW)
        };
        while is_old(self.places.get(1)) {
            self.places.pop_front();
        }
    }

    /// Bytes in a second, of a transfer that has moved so many by now; nothing when it is too
    /// early to say.
    pub(crate) fn per_second(&self, now: Duration, done_bytes: u64) -> Option<u64> {
        let is_old = |(at, _): &&(Duration, u64)| now.saturating_sub(*at) >= WINDOW;
        let from = self.places.iter().rev().find(is_old).or_else(|| self.places.front());
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
            assert!(speed.places.len() < 15);
            match n {
                20 => assert_eq!(speed.per_second(tenth(n), done_bytes), Some(10_000)),
                99 => assert_eq!(speed.per_second(tenth(n), done_bytes), Some(1000)),
                _ => {}
            }
        }
        // It stands.
        assert!(speed.per_second(tenth(140), done_bytes).is_some_and(|speed| speed < 100));
    }
}
