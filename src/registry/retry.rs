//! When a failed request is tried again.

use std::thread;
use std::time::Duration;

use super::RegistryError;

/// The longest pause between two tries, whatever the server asks for.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// How often and after which pauses. There is no jitter: a build's timing stays explainable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// Tries after the first.
    pub(super) retries: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub(super) first_delay: Duration,
    /// Whether a host that cannot be reached is tried again; not so where there is another host.
    pub(super) reconnects: bool,
}

impl Schedule {
    /// The pause after failure number `n_failures` (from 1), `None` when there were enough. What
    /// the server asked for counts if it is longer than our own pause.
    pub(super) fn pause(&self, n_failures: u32, asked: Option<Duration>) -> Option<Duration> {
        if n_failures > self.retries {
            return None;
        }
        let factor = 1_u32.checked_shl(n_failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let own = self.first_delay.saturating_mul(factor);
        Some(own.max(asked.unwrap_or_default()).min(MAX_DELAY))
    }

    /// Waits after `error` if it is worth another try; gives it back if not.
    pub(super) fn wait(&self, n_failures: u32, error: RegistryError) -> Result<(), RegistryError> {
        let gives_up = matches!(error, RegistryError::Unreachable { .. }) && !self.reconnects;
        if gives_up || !error.is_transient() {
            return Err(error);
        }
        match self.pause(n_failures, error.retry_after()) {
            Some(pause) => {
                thread::sleep(pause);
                Ok(())
            }
            None => Err(error),
        }
    }

    /// Does `work` until it succeeds, fails for good, or has failed too often.
    pub(super) fn run<T>(
        &self,
        mut work: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut n_failures = 0;
        loop {
            match work() {
                Ok(value) => return Ok(value),
                Err(error) => {
                    n_failures += 1;
                    self.wait(n_failures, error)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_capped() {
        let schedule =
            Schedule { retries: 40, first_delay: Duration::from_millis(100), reconnects: true };
        for (n_failures, asked_s, want_ms) in [
            (1, None, Some(100)),
            (2, None, Some(200)),
            (5, None, Some(1600)),
            (1, Some(3), Some(3000)),
            (9, Some(3), Some(25_600)),
            (1, Some(3600), Some(60_000)),
            (39, None, Some(60_000)),
            (40, None, Some(60_000)),
            (41, Some(1), None),
        ] {
            let pause = schedule.pause(n_failures, asked_s.map(Duration::from_secs));
            assert_eq!(pause, want_ms.map(Duration::from_millis), "{n_failures}");
        }
    }
}
