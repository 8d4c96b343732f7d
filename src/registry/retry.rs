//! When a failed request is tried again.
//!
//! Every request of this module may be sent twice with the same outcome. Reading is harmless; blobs
//! and manifests are put under their digests or under a tag that is to mean just this; another
//! upload that is opened leaves behind one that the registry forgets. The one exception are bytes
//! sent into an open upload: before more of them are sent, the registry is asked how many it has
//! (`upload`). So what decides is only whether waiting can help: connections that do not come about
//! or break, 408, 429, and answers of 500 and above but for 501 and 505, which say that it never
//! will. A fresh token is another matter, and costs no pause (`Client::call`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::RegistryError;
use super::cancel::Halt;

/// The longest pause of our own between two tries.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// The longest pause that a server may ask for; who wants more is told to the user at once.
pub(super) const MAX_ASKED: Duration = Duration::from_secs(120);

/// How often and after which pauses.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    /// Tries after the first.
    pub(super) retries: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub(super) first_delay: Duration,
    /// True if a host that cannot be reached, or does not answer, is tried again: not if there is another host.
    pub(super) reconnects: bool,
    /// Shortens pauses.
    pub(super) jitter: Arc<Jitter>,
    /// Ends pauses.
    pub(super) halt: Halt,
}

/// Numbers that differ from process to process, so that jobs which fail together do not all come
/// back together. The same seed gives the same numbers.
#[derive(Debug)]
pub(super) struct Jitter(AtomicU64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Between half of `pause` and all of it.
    fn of(&self, pause: Duration) -> Duration {
        // splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut word = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let thousandths = u32::try_from(word % 500).expect("it is less than 500");
        pause.saturating_mul(500 + thousandths) / 1000
    }
}

impl Schedule {
    /// The pause after failure number `n_failures` (from 1), `None` when there were enough. What
    /// the server asked for comes first, and a part of our own pause after it.
    fn pause(&self, n_failures: u32, asked: Option<Duration>) -> Option<Duration> {
        if n_failures > self.retries || asked.is_some_and(|asked| asked > MAX_ASKED) {
            return None;
        }
        let factor = 1_u32.checked_shl(n_failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let own = self.jitter.of(self.first_delay.saturating_mul(factor).min(MAX_DELAY));
        Some(match asked {
            None => own,
            // Exactly then, everybody who was told the same would come.
            Some(asked) => asked.max(own).saturating_add(own.min(self.first_delay)),
        })
    }

    /// A new count of failures.
    pub(super) const fn tries(&self) -> Tries<'_> {
        Tries { schedule: self, n_failures: 0 }
    }

    /// Does `work` until it succeeds, fails for good, or has failed too often.
    pub(super) fn run<T>(
        &self,
        mut work: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut tries = self.tries();
        loop {
            match work() {
                Ok(value) => return Ok(value),
                Err(error) => tries.failed(error)?,
            }
        }
    }
}

/// The failures of one piece of work so far.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    schedule: &'a Schedule,
    n_failures: u32,
}

impl Tries<'_> {
    /// Waits after `error` if it is worth another try; gives it back if not.
    pub(super) fn failed(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let gives_up = error.is_silence() && !self.schedule.reconnects;
        if gives_up || !error.is_transient() { Err(error) } else { self.wait(error) }
    }

    /// The same for an error that is worth a try in the eyes of the caller.
    pub(super) fn wait(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.n_failures = self.n_failures.saturating_add(1);
        let Some(pause) = self.schedule.pause(self.n_failures, error.retry_after()) else {
            return Err(error);
        };
        if self.schedule.halt.pause(pause) { Ok(()) } else { Err(error) }
    }

    /// How many there were.
    pub(super) const fn n_failures(&self) -> u32 {
        self.n_failures
    }

    /// Something was achieved: the next failure counts as the first.
    pub(super) const fn progressed(&mut self) {
        self.n_failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn schedule(seed: u64) -> Schedule {
        let first_delay = Duration::from_millis(100);
        let jitter = Arc::new(Jitter::new(seed));
        Schedule { retries: 40, first_delay, reconnects: true, jitter, halt: Halt::default() }
    }

    #[test]
    fn pauses_double_and_are_capped() {
        for (n_failures, asked_s, want_ms) in [
            (1, None, Some(50..100)),
            (2, None, Some(100..200)),
            (5, None, Some(800..1600)),
            (1, Some(3), Some(3050..3100)),
            (9, Some(3), Some(12_900..25_700)),
            (1, Some(120), Some(120_050..120_100)),
            (1, Some(121), None),
            (39, None, Some(30_000..60_000)),
            (40, None, Some(30_000..60_000)),
            (41, Some(1), None),
        ] {
            for seed in 0..100 {
                let pause = schedule(seed).pause(n_failures, asked_s.map(Duration::from_secs));
                let pause = pause.map(|pause| pause.as_millis());
                assert_eq!(pause.is_some(), want_ms.is_some(), "{n_failures} {asked_s:?}");
                assert!(
                    pause.is_none_or(|pause| want_ms.clone().unwrap().contains(&pause)),
                    "{n_failures} {asked_s:?}: {pause:?}"
                );
            }
        }
    }

    #[test]
    fn silent_host_is_asked_again_only_where_there_is_no_other() {
        let broken = |kind: io::ErrorKind| RegistryError::Broken {
            host: "a.example".to_owned(),
            source: kind.into(),
        };
        let first_delay = Duration::ZERO;
        for (reconnects, kind, is_tried_again) in [
            (true, io::ErrorKind::TimedOut, true),
            (false, io::ErrorKind::TimedOut, false),
            (false, io::ErrorKind::ConnectionReset, true),
        ] {
            let schedule = Schedule { reconnects, first_delay, ..schedule(1) };
            let failed = schedule.tries().failed(broken(kind));
            assert_eq!(failed.is_ok(), is_tried_again, "{reconnects} {kind}");
        }
    }

    #[test]
    fn pauses_differ_by_seed_and_from_one_to_the_next() {
        let pauses = |seed| {
            let schedule = schedule(seed);
            [(); 4].map(|()| schedule.pause(1, None).unwrap().as_micros())
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
        assert_ne!(pauses(7)[0], pauses(7)[1]);
    }
}
