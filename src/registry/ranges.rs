//! Large blobs, downloaded in parts: several requests at once, each for a range of bytes (RFC 9110,
//! section 14).
//!
//! Parts are claimed in order, so that the prefix of the blob grows steadily while the caller hashes and
//! unpacks it. The first response decides. If it is a part (status 206), further threads request the next
//! ones, each with a transfer permit of its own. They take only free permits that no other blob waits
//! for. If it is the whole blob (status 200), it is read to the end, and nothing else is requested.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::oci::{Descriptor, Digest, Reference};
use crate::pool::{self, Scope as ThreadScope};

use super::auth::Scope;
use super::endpoint::Endpoint;
use super::http::{Method, Request, Response, protocol};
use super::pull::{BUFFER_BYTES, PROGRESS_BYTES, as_u64};
use super::retry::RetryPolicy;
use super::transfer_limit::{Permit, TransferDirection};
use super::url::Url;
use super::{Client, RegistryError};

/// Maximum number of threads for one blob, the caller's included. A few connections are enough where
/// the server limits the speed of each; more would take permits from other layers.
const MAX_THREADS: usize = 4;

/// Writes bytes of a blob at their offset.
type WriteAt<'a> = dyn Fn(u64, &[u8]) -> io::Result<()> + Sync + 'a;

/// A claimed range of a blob: from `start`, which grows as bytes arrive, to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    start: u64,
    end: u64,
}

impl Part {
    const EMPTY: Self = Self { start: 0, end: 0 };

    const fn n_bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Ranges of a blob that have not arrived and that no thread has claimed: their ends by their starts.
#[derive(Debug)]
struct Unclaimed(BTreeMap<u64, u64>);

impl Unclaimed {
    fn of_blob(n_bytes: u64) -> Self {
        let mut all = Self(BTreeMap::new());
        all.put_back(Part { start: 0, end: n_bytes });
        all
    }

    /// Claims up to `max_bytes` of the first range that starts at `from` or later.
    fn claim(&mut self, from: u64, max_bytes: u64) -> Option<Part> {
        let (start, range_end) = self.0.range(from..).next().map(|(start, end)| (*start, *end))?;
        self.0.remove(&start);
        let end = start.saturating_add(max_bytes).min(range_end);
        self.put_back(Part { start: end, end: range_end });
        Some(Part { start, end })
    }

    fn put_back(&mut self, part: Part) {
        if part.n_bytes() > 0 {
            self.0.insert(part.start, part.end);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A blob and its missing ranges, shared by all servers that are tried.
struct PartedBlob<'a> {
    what: String,
    blob: &'a Descriptor,
    part_bytes: u64,
    write_at: &'a WriteAt<'a>,
    progress: &'a (dyn Fn(u64) + Sync),
    unclaimed: Mutex<Unclaimed>,
}

/// A server that has the blob.
pub(super) trait BlobServer: Sync {
    /// Returns the origin whose transfers are limited.
    fn origin(&self) -> String;

    /// Requests the blob, or the range of bytes in a `Range` header.
    fn request(
        &self,
        client: &Client,
        what: &str,
        range: Option<String>,
    ) -> Result<Response, RegistryError>;
}

/// A blob in a repository of a registry or mirror.
struct RepositoryBlob<'a> {
    endpoint: &'a Endpoint,
    repository: &'a str,
    digest: Digest,
}

/// The download from one server, shared by its threads.
struct PartedDownload<'a> {
    client: &'a Client,
    server: &'a dyn BlobServer,
    retry_policy: &'a RetryPolicy,
    parted: &'a PartedBlob<'a>,
    /// True once a request for a part was answered with the whole blob.
    ignores_ranges: AtomicBool,
    /// Number of threads besides the first that run, or that could not be started.
    n_helpers: AtomicUsize,
    has_failed: AtomicBool,
    /// The first error of any thread.
    failure: Mutex<Option<RegistryError>>,
}

/// The state of one thread.
struct Worker<'scope, 'env> {
    part: Part,
    n_received: u64,
    buffer: Vec<u8>,
    permit: Option<Permit<'scope>>,
    /// Starts further threads. Only the first thread has it.
    scope: Option<&'scope ThreadScope<'scope, 'env>>,
}

impl<'scope, 'env> Worker<'scope, 'env> {
    fn first(scope: &'scope ThreadScope<'scope, 'env>) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self { part: Part::EMPTY, n_received: 0, buffer, permit: None, scope: Some(scope) }
    }

    fn helper(part: Part, permit: Permit<'scope>) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self { part, n_received: 0, buffer, permit: Some(permit), scope: None }
    }

    const fn is_first(&self) -> bool {
        self.scope.is_some()
    }
}

impl Client {
    /// Downloads a blob, a large one in parallel parts, from a mirror or the registry. `write_at` gets
    /// each byte once, at its offset; `progress` gets the number of new bytes.
    ///
    /// The content is not verified: the caller compares the digest. Broken connections are resumed at
    /// the offset of their part.
    ///
    /// # Errors
    /// [`RegistryError::WrongSize`] if the server has a blob of another size;
    /// [`RegistryError::Protocol`] if it sends another range; [`RegistryError::Local`] if `write_at`
    /// fails; otherwise the last server's error. What was written must be discarded then.
    pub fn pull_blob_in_parts(
        &self,
        name: &Reference,
        blob: &Descriptor,
        write_at: &(dyn Fn(u64, &[u8]) -> io::Result<()> + Sync),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let what = format!("blob {} of {}", blob.digest, name.name());
        let parted = PartedBlob::new(self, what, blob, write_at, progress);
        // The next server continues with the ranges that are missing.
        self.try_each_endpoint(name, |endpoint, retry_policy| {
            let (repository, digest) = (name.repository(), blob.digest);
            let server = RepositoryBlob { endpoint, repository, digest };
            PartedDownload::new(self, &server, retry_policy, &parted).run()
        })
    }

    /// Downloads a blob like [`Self::pull_blob_in_parts`], from one server.
    pub(super) fn pull_parts_from(
        &self,
        server: &dyn BlobServer,
        what: String,
        blob: &Descriptor,
        write_at: &WriteAt<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let parted = PartedBlob::new(self, what, blob, write_at, progress);
        PartedDownload::new(self, server, &self.retry_policy, &parted).run()
    }
}

impl BlobServer for RepositoryBlob<'_> {
    fn origin(&self) -> String {
        self.endpoint.base.origin()
    }

    fn request(
        &self,
        client: &Client,
        what: &str,
        range: Option<String>,
    ) -> Result<Response, RegistryError> {
        let url = self.endpoint.url(self.repository, &format!("blobs/{}", self.digest));
        let scope = Scope::pull(&self.endpoint.repository(self.repository));
        client.call(self.endpoint, &scope, what, part_request(url, range))
    }
}

/// Returns the request for a blob, or for a range of it.
pub(super) fn part_request(url: Url, range: Option<String>) -> Request<'static> {
    // With a content coding, ranges would be those of the encoded bytes (RFC 9110, section 14.1.2).
    let request = Request::new(Method::Get, url).header("accept-encoding", "identity");
    match range {
        Some(range) => request.header("range", range),
        None => request,
    }
}

impl<'a> PartedBlob<'a> {
    fn new(
        client: &Client,
        what: String,
        blob: &'a Descriptor,
        write_at: &'a WriteAt<'a>,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        let part_bytes = client.options.part_bytes.get();
        // Two connections are worth their requests from two parts on.
        let part_bytes = if blob.size / 2 < part_bytes { blob.size } else { part_bytes };
        let unclaimed = Mutex::new(Unclaimed::of_blob(blob.size));
        Self { what, blob, part_bytes, write_at, progress, unclaimed }
    }

    /// Claims the first missing part that starts at `from` or later.
    fn claim(&self, from: u64) -> Option<Part> {
        pool::lock(&self.unclaimed).claim(from, self.part_bytes)
    }

    fn put_back(&self, part: Part) {
        pool::lock(&self.unclaimed).put_back(part);
    }

    fn is_claimed(&self) -> bool {
        pool::lock(&self.unclaimed).is_empty()
    }

    fn wrong_size(&self, got: u64) -> RegistryError {
        RegistryError::WrongSize { what: self.what.clone(), want: self.blob.size, got }
    }

    /// Writes received bytes at the start of the worker's part.
    fn receive(&self, worker: &mut Worker<'_, '_>, n_bytes: usize) -> Result<(), RegistryError> {
        let bytes = worker.buffer.get(..n_bytes).expect("a reader reads at most what fits");
        (self.write_at)(worker.part.start, bytes).map_err(|source| RegistryError::Local {
            verb: "store",
            what: self.what.clone(),
            source,
        })?;
        let n_bytes = as_u64(n_bytes);
        worker.part.start = worker.part.start.saturating_add(n_bytes);
        worker.n_received = worker.n_received.saturating_add(n_bytes);
        (self.progress)(n_bytes);
        Ok(())
    }
}

impl<'a> PartedDownload<'a> {
    fn new(
        client: &'a Client,
        server: &'a dyn BlobServer,
        retry_policy: &'a RetryPolicy,
        parted: &'a PartedBlob<'a>,
    ) -> Self {
        let (ignores_ranges, has_failed) = (AtomicBool::new(false), AtomicBool::new(false));
        let (n_helpers, failure) = (AtomicUsize::new(0), Mutex::new(None));
        Self {
            client,
            server,
            retry_policy,
            parted,
            ignores_ranges,
            n_helpers,
            has_failed,
            failure,
        }
    }

    fn run(&self) -> Result<(), RegistryError> {
        // A second round is needed if the server ignored the range of another thread's request.
        while !self.parted.is_claimed() {
            pool::scope(|scope| self.work(&mut Worker::first(scope)));
            if let Some(error) = pool::lock(&self.failure).take() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Downloads parts until none is left. A part that the thread does not finish is put back.
    fn work<'scope>(&'scope self, worker: &mut Worker<'scope, '_>) {
        let pulled = self.pull_parts(worker);
        self.parted.put_back(worker.part);
        if let Err(error) = pulled {
            pool::lock(&self.failure).get_or_insert(error);
            self.has_failed.store(true, Ordering::SeqCst);
            self.client.cancellation.wake();
            self.client.transfer_limit.wake();
        }
    }

    fn pull_parts<'scope>(
        &'scope self,
        worker: &mut Worker<'scope, '_>,
    ) -> Result<(), RegistryError> {
        loop {
            if worker.part.n_bytes() == 0 {
                let Some(part) = self.parted.claim(0) else { return Ok(()) };
                worker.part = part;
            }
            self.pull_part(worker)?;
            if !self.may_continue(worker) {
                return Ok(());
            }
            if !worker.is_first() {
                // Another blob may wait for this permit.
                worker.permit = None;
                worker.permit = self.try_acquire();
                if worker.permit.is_none() {
                    return Ok(());
                }
            }
        }
    }

    /// Downloads the worker's part, and resumes it after broken connections.
    fn pull_part<'scope>(
        &'scope self,
        worker: &mut Worker<'scope, '_>,
    ) -> Result<(), RegistryError> {
        let mut attempts = self.retry_policy.attempts();
        while worker.part.n_bytes() > 0 && self.may_continue(worker) {
            let before = worker.n_received;
            let Err(error) = self.pull_rest(worker) else { continue };
            worker.permit = None;
            if worker.n_received - before >= PROGRESS_BYTES {
                attempts.progressed();
            }
            attempts.failed_while(error, &|| !self.has_failed())?;
        }
        Ok(())
    }

    /// Sends one request for the rest of the worker's part.
    fn pull_rest<'scope>(
        &'scope self,
        worker: &mut Worker<'scope, '_>,
    ) -> Result<(), RegistryError> {
        if worker.permit.is_none() {
            let (origin, limit) = (self.server.origin(), &self.client.transfer_limit);
            worker.permit =
                limit.acquire_while(origin, TransferDirection::Down, &|| !self.has_failed());
            if worker.permit.is_none() {
                return Ok(());
            }
        }
        let part = worker.part;
        let PartedBlob { what, blob, .. } = self.parted;
        let is_whole = part.n_bytes() == blob.size;
        let range = format!("bytes={}-{}", part.start, part.end.saturating_sub(1));
        let range = Some(range).filter(|_| !is_whole);
        let mut response = self.server.request(self.client, what, range)?;
        match response.status() {
            206 if !is_whole => {
                self.check_part(&response, part)?;
                self.start_helpers(worker.scope);
                self.copy(&mut response, worker)?;
                response.discard();
                Ok(())
            }
            200 => {
                self.ignores_ranges.store(true, Ordering::SeqCst);
                // The first thread gets the part, and reads all others from the same response.
                if worker.is_first() { self.stream(&mut response, worker) } else { Ok(()) }
            }
            _ => Err(response.into_error(what)),
        }
    }

    /// Starts threads for the next parts, as many as there are free permits.
    fn start_helpers<'scope>(&'scope self, scope: Option<&'scope ThreadScope<'scope, '_>>) {
        let Some(scope) = scope else { return };
        while self.n_helpers.load(Ordering::SeqCst) < MAX_THREADS - 1 {
            let Some(permit) = self.try_acquire() else { return };
            let Some(part) = self.parted.claim(0) else { return };
            self.n_helpers.fetch_add(1, Ordering::SeqCst);
            let started = pool::try_start(scope, move || {
                self.work(&mut Worker::helper(part, permit));
                self.n_helpers.fetch_sub(1, Ordering::SeqCst);
            });
            if started.is_err() {
                // The other threads do its work.
                self.parted.put_back(part);
                return;
            }
        }
    }

    /// Reads the whole blob from a response, and writes what is missing from the worker's part on.
    fn stream(
        &self,
        response: &mut Response,
        worker: &mut Worker<'_, '_>,
    ) -> Result<(), RegistryError> {
        let n_bytes = self.parted.blob.size;
        if let Some(got) = response.content_length().filter(|got| *got != n_bytes) {
            return Err(self.parted.wrong_size(got));
        }
        let mut at = 0;
        loop {
            self.skip(response, worker, at)?;
            self.copy(response, worker)?;
            if self.has_failed() {
                return Ok(());
            }
            at = worker.part.end;
            let Some(part) = self.parted.claim(at) else { break };
            worker.part = part;
        }
        if at < n_bytes {
            return Ok(());
        }
        let n_more = as_u64(response.read(&mut worker.buffer)?);
        if n_more > 0 {
            Err(self.parted.wrong_size(n_bytes.saturating_add(n_more)))
        } else {
            Ok(())
        }
    }

    /// Skips bytes of the whole blob from `at` to the start of the worker's part.
    fn skip(
        &self,
        response: &mut Response,
        worker: &mut Worker<'_, '_>,
        mut at: u64,
    ) -> Result<(), RegistryError> {
        while at < worker.part.start && !self.has_failed() {
            let gap = Part { start: at, end: worker.part.start };
            let n_read = as_u64(response.read(fitting(&mut worker.buffer, gap))?);
            if n_read == 0 {
                return Err(self.parted.wrong_size(at));
            }
            at = at.saturating_add(n_read);
        }
        Ok(())
    }

    /// Copies the worker's part from the body of a response, unless another thread fails.
    fn copy(
        &self,
        response: &mut Response,
        worker: &mut Worker<'_, '_>,
    ) -> Result<(), RegistryError> {
        while worker.part.n_bytes() > 0 && !self.has_failed() {
            let n_read = response.read(fitting(&mut worker.buffer, worker.part))?;
            if n_read == 0 {
                return Err(self.parted.wrong_size(worker.part.start));
            }
            self.parted.receive(worker, n_read)?;
        }
        Ok(())
    }

    /// Checks that a partial response is the requested part of a blob of the right size.
    fn check_part(&self, response: &Response, part: Part) -> Result<(), RegistryError> {
        let range = ContentRange::parse(response.header("content-range").unwrap_or_default());
        if let Some(got) =
            range.and_then(|range| range.total).filter(|n| *n != self.parted.blob.size)
        {
            return Err(self.parted.wrong_size(got));
        }
        let is_length = |n_bytes| n_bytes == part.n_bytes();
        if range.is_some_and(|range| range.part == part)
            && response.content_length().is_none_or(is_length)
        {
            return Ok(());
        }
        let why = "it sent another range of the blob than requested".to_owned();
        Err(protocol(response.url(), why))
    }

    fn try_acquire(&self) -> Option<Permit<'a>> {
        let origin = self.server.origin();
        self.client.transfer_limit.try_acquire(origin, TransferDirection::Down)
    }

    /// Returns whether the worker may send another request.
    fn may_continue(&self, worker: &Worker<'_, '_>) -> bool {
        let ignores_ranges = self.ignores_ranges.load(Ordering::SeqCst);
        !self.has_failed() && (worker.is_first() || !ignores_ranges)
    }

    fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }
}

/// Returns the start of the buffer, no longer than the part.
fn fitting(buffer: &mut [u8], part: Part) -> &mut [u8] {
    let most = usize::try_from(part.n_bytes()).unwrap_or(usize::MAX).min(buffer.len());
    buffer.get_mut(..most).expect("`most` is at most its length")
}

/// The value of a `Content-Range` header (RFC 9110, section 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    part: Part,
    /// The size of the blob, if the server knows it.
    total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let total = if total.trim() == "*" { None } else { Some(number(total)?) };
        let part = Part { start: number(first)?, end: number(last)?.checked_add(1)? };
        Some(Self { part, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_claimed_in_order_and_what_is_put_back_comes_first() {
        let part = |start, end| Part { start, end };
        let mut unclaimed = Unclaimed::of_blob(25);
        assert_eq!(unclaimed.claim(0, 10), Some(part(0, 10)));
        assert_eq!(unclaimed.claim(0, 10), Some(part(10, 20)));
        unclaimed.put_back(part(4, 10));
        assert_eq!(unclaimed.claim(20, 10), Some(part(20, 25)));
        assert_eq!(unclaimed.claim(20, 10), None);
        assert_eq!(unclaimed.claim(0, 10), Some(part(4, 10)));
        unclaimed.put_back(part(20, 20));
        assert!(unclaimed.is_empty());
        assert!(Unclaimed::of_blob(0).is_empty());
    }

    #[test]
    fn content_ranges_are_parsed_strictly() {
        let range = |start, end, total| Some(ContentRange { part: Part { start, end }, total });
        for (text, want) in [
            ("bytes 0-99/1000", range(0, 100, Some(1000))),
            ("bytes 100-199/*", range(100, 200, None)),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes */1000", None),
            ("bytes 0-99", None),
            ("bytes 0-99/x", None),
            ("items 0-99/1000", None),
            ("", None),
        ] {
            assert_eq!(ContentRange::parse(text), want, "{text}");
        }
    }
}
