//! Requests that wait for a server, for the progress view.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time without an answer after which a request counts as waiting.
const SLOW: Duration = Duration::from_secs(5);

/// The requests of a client that wait for a response. Clones share them.
#[derive(Clone, Default)]
pub struct PendingRequests(Arc<Mutex<Requests>>);

#[derive(Default)]
struct Requests {
    next: u64,
    open: BTreeMap<u64, PendingRequest>,
}

struct PendingRequest {
    host: String,
    since: Instant,
    is_reported: bool,
}

/// A request that counts as waiting until this is dropped.
pub(super) struct OpenRequest {
    waiting: PendingRequests,
    number: u64,
}

impl fmt::Debug for PendingRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingRequests")
    }
}

impl PendingRequests {
    /// Returns the hosts that have not answered for five seconds, each request once.
    #[must_use]
    pub fn take_slow(&self) -> Vec<String> {
        self.take_slower_than(SLOW)
    }

    fn take_slower_than(&self, threshold: Duration) -> Vec<String> {
        let mut requests = self.requests();
        let waits = |request: &&mut PendingRequest| {
            !request.is_reported && request.since.elapsed() >= threshold
        };
        let mut hosts: Vec<String> = Vec::new();
        for request in requests.open.values_mut().filter(waits) {
            request.is_reported = true;
            if !hosts.contains(&request.host) {
                hosts.push(request.host.clone());
            }
        }
        hosts
    }

    /// Records a request to `host` that waits for its response.
    pub(super) fn begin(&self, host: String) -> OpenRequest {
        let mut requests = self.requests();
        let number = requests.next;
        requests.next = number.wrapping_add(1);
        let request = PendingRequest { host, since: Instant::now(), is_reported: false };
        requests.open.insert(number, request);
        OpenRequest { waiting: self.clone(), number }
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        // Each use leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.waiting.requests().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_that_waits_is_reported_once() {
        let waiting = PendingRequests::default();
        let hosts = || waiting.take_slower_than(Duration::ZERO);
        let first = waiting.begin("a.example".to_owned());
        let _same = waiting.begin("a.example".to_owned());
        let _other = waiting.begin("b.example".to_owned());
        assert!(waiting.take_slow().is_empty());
        assert_eq!(hosts(), ["a.example", "b.example"]);
        assert!(hosts().is_empty());
        drop(first);
        let answered = waiting.begin("c.example".to_owned());
        drop(answered);
        assert!(hosts().is_empty());
    }
}
