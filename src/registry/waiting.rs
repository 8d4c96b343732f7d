//! Requests that wait for a server, so that the progress view can show them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time without an answer after which a request counts as waiting.
const LONG: Duration = Duration::from_secs(5);

/// The requests of a client that wait for an answer; clones are the same.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<Requests>>);

#[derive(Default)]
struct Requests {
    next: u64,
    open: BTreeMap<u64, Request>,
}

struct Request {
    host: String,
    since: Instant,
    is_reported: bool,
}

/// A request that waits until this is dropped.
pub(super) struct OpenRequest {
    waiting: Waiting,
    number: u64,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiting")
    }
}

impl Waiting {
    /// Returns the hosts that have not answered for five seconds, each request once.
    #[must_use]
    pub fn take_long(&self) -> Vec<String> {
        self.take_longer_than(LONG)
    }

    fn take_longer_than(&self, long: Duration) -> Vec<String> {
        let mut requests = self.requests();
        let waits =
            |request: &&mut Request| !request.is_reported && request.since.elapsed() >= long;
        let mut hosts: Vec<String> = Vec::new();
        for request in requests.open.values_mut().filter(waits) {
            request.is_reported = true;
            if !hosts.contains(&request.host) {
                hosts.push(request.host.clone());
            }
        }
        hosts
    }

    /// Notes that a request to `host` waits.
    pub(super) fn begin(&self, host: String) -> OpenRequest {
        let mut requests = self.requests();
        let number = requests.next;
        requests.next = number.wrapping_add(1);
        let request = Request { host, since: Instant::now(), is_reported: false };
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
        let waiting = Waiting::default();
        let hosts = || waiting.take_longer_than(Duration::ZERO);
        let first = waiting.begin("a.example".to_owned());
        let _same = waiting.begin("a.example".to_owned());
        let _other = waiting.begin("b.example".to_owned());
        assert!(waiting.take_long().is_empty());
        assert_eq!(hosts(), ["a.example", "b.example"]);
        assert!(hosts().is_empty());
        drop(first);
        let answered = waiting.begin("c.example".to_owned());
        drop(answered);
        assert!(hosts().is_empty());
    }
}
