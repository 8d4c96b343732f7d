//! Decides whether a failed request is retried.
//!
//! Every request of this module can be repeated with the same result. Reads are harmless. Blobs and
//! manifests are stored under their digests, or under a tag that is meant to have just this
//! content. A second open upload leaves one behind that the registry expires. The one exception is
//! bytes sent into an open upload: before more are sent, the registry is asked for its offset
//! (`upload`).
//!
//! So a retry depends only on whether waiting can help: after failed and broken connections, status
//! 408 and 429, and 500 and above. 501 and 505 are permanent (RFC 9110, section 15.6). A request is
//! repeated with a new token without a pause (`Client::call`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::RegistryError;
use super::cancel::Cancellation;

/// Maximum pause between two attempts, unless the server asks for more.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// Maximum pause that a server may ask for. A longer one is reported to the user at once.
pub(super) const MAX_REQUESTED_PAUSE: Duration = Duration::from_secs(120);

/// Number of retries and the pauses between them.
#[derive(Debug, Clone)]
pub(super) struct RetryPolicy {
    /// Maximum number of retries.
    pub(super) retries: u32,
    /// Pause after the first failure. It doubles with each further one.
    pub(super) first_delay: Duration,
    /// True if an unreachable or silent host is retried. False if there is another host to try.
    pub(super) reconnects: bool,
    /// Source of the random part of pauses.
    pub(super) jitter: Arc<Jitter>,
    /// Wakes the sleeps between attempts.
    pub(super) cancellation: Cancellation,
}

/// Random numbers, so that jobs that failed together do not all retry at once. Equal seeds give
/// equal numbers.
#[derive(Debug)]
pub(super) struct Jitter(AtomicU64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Returns a time between a half of `pause` and all of it.
    fn of(&self, pause: Duration) -> Duration {
        // splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut word = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let thousandths = u32::try_from(word % 500).expect("it is less than 500");
        pause.saturating_mul(500 + thousandths) / 1000
    }
}

impl RetryPolicy {
    /// Returns the pause after failure number `n_failures` (from 1), or `None` after too many. A
    /// pause that the server asked for comes first, followed by a part of the own pause.
    fn pause(&self, n_failures: u32, requested: Option<Duration>) -> Option<Duration> {
        if n_failures > self.retries
            || requested.is_some_and(|requested| requested > MAX_REQUESTED_PAUSE)
        {
            return None;
        }
        let factor = 1_u32.checked_shl(n_failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let own = self.jitter.of(self.first_delay.saturating_mul(factor).min(MAX_DELAY));
        Some(match requested {
            None => own,
            // Clients that got the same answer must not all return at the same time.
            Some(requested) => requested.max(own).saturating_add(own.min(self.first_delay)),
        })
    }

    /// Starts a count of failures.
    pub(super) const fn attempts(&self) -> Attempts<'_> {
        Attempts { retry_policy: self, n_failures: 0 }
    }

    /// Runs `work` until it succeeds, fails permanently, or has failed too often.
    pub(super) fn run<T>(
        &self,
        mut work: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut attempts = self.attempts();
        loop {
            match work() {
                Ok(value) => return Ok(value),
                Err(error) => attempts.failed(error)?,
            }
        }
    }
}

/// The consecutive failures of one operation.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    retry_policy: &'a RetryPolicy,
    n_failures: u32,
}

impl Attempts<'_> {
    /// Sleeps after `error` if a retry may succeed, otherwise returns it.
    pub(super) fn failed(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failed_while(error, &|| true)
    }

    /// Sleeps after `error` like [`Self::failed`], but returns it once `is_wanted` returns false.
    pub(super) fn failed_while(
        &mut self,
        error: RegistryError,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), RegistryError> {
        let gives_up = error.is_unresponsive() && !self.retry_policy.reconnects;
        if gives_up || !error.is_transient() {
            return Err(error);
        }
        self.wait_while(error, is_wanted)
    }

    /// Sleeps after an error that the caller considers worth a retry.
    pub(super) fn wait(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.wait_while(error, &|| true)
    }

    fn wait_while(
        &mut self,
        error: RegistryError,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), RegistryError> {
        self.n_failures = self.n_failures.saturating_add(1);
        let Some(pause) = self.retry_policy.pause(self.n_failures, error.retry_after()) else {
            return Err(error);
        };
        let slept = self.retry_policy.cancellation.sleep_while(pause, is_wanted);
        if slept { Ok(()) } else { Err(error) }
    }

    /// Returns the number of consecutive failures.
    pub(super) const fn n_failures(&self) -> u32 {
        self.n_failures
    }

    /// Resets the count after progress.
    pub(super) const fn progressed(&mut self) {
        self.n_failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn retry_policy(seed: u64) -> RetryPolicy {
        let first_delay = Duration::from_millis(100);
        let jitter = Arc::new(Jitter::new(seed));
        RetryPolicy {
            retries: 40,
            first_delay,
            reconnects: true,
            jitter,
            cancellation: Cancellation::default(),
        }
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
                let pause = retry_policy(seed).pause(n_failures, asked_s.map(Duration::from_secs));
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
    fn silent_host_is_retried_only_without_an_alternative() {
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
            let retry_policy = RetryPolicy { reconnects, first_delay, ..retry_policy(1) };
            let failed = retry_policy.attempts().failed(broken(kind));
            assert_eq!(failed.is_ok(), is_tried_again, "{reconnects} {kind}");
        }
    }

    #[test]
    fn pauses_differ_by_seed_and_from_one_to_the_next() {
        let pauses = |seed| {
            let retry_policy = retry_policy(seed);
            [(); 4].map(|()| retry_policy.pause(1, None).unwrap().as_micros())
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
        assert_ne!(pauses(7)[0], pauses(7)[1]);
    }
}
