//! Downloads: verified, and resumed where they broke.

use std::io::Write;

use super::auth::Scope;
use super::endpoint::Endpoint;
use super::http::{Method, Request, Response, protocol};
use super::retry::Schedule;
use super::transfer_limit::Direction;
use super::{Client, RegistryError};
use crate::oci::{Descriptor, Digest, Hasher, Reference};

/// As much as is read and written at a time.
const BUFFER_BYTES: usize = 128 << 10;
/// A connection that brought so much before it broke has earned its retries back.
pub(super) const PROGRESS_BYTES: u64 = 1 << 20;

/// A download: what came so far went to the sink and into the hash.
pub(super) struct Transfer<'a> {
    what: String,
    blob: &'a Descriptor,
    sink: &'a mut dyn Write,
    progress: &'a (dyn Fn(u64) + Sync),
    hasher: Hasher,
    buffer: Vec<u8>,
}

impl Client {
    /// Streams a blob into `sink`, each byte once and in order, from a mirror or the registry;
    /// `progress` is told how many bytes more there are.
    ///
    /// After a broken connection it goes on where it was. What was written before an error is not
    /// verified, and must be thrown away.
    ///
    /// # Errors
    /// `WrongDigest` or `WrongSize` when the blob is another; `Local` when `sink` fails; else the
    /// last server's.
    pub fn pull_blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        sink: &mut dyn Write,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let what = format!("blob {} of {}", blob.digest, name.name());
        let mut transfer = Transfer::new(what, blob, sink, progress);
        // Another server goes on where one gave up.
        self.ask_each(name, |endpoint, schedule| {
            self.pull_from(endpoint, schedule, name.repository(), &mut transfer)
        })?;
        transfer.finish()
    }

    /// Whether the registry itself, not a mirror, has the blob in `name`'s repository.
    ///
    /// # Errors
    /// The registry's, but for "not found".
    pub fn blob_exists(&self, name: &Reference, digest: Digest) -> Result<bool, RegistryError> {
        let scope = Scope::pull(name.repository());
        self.has_blob(&Endpoint::of(name, &self.options), &scope, name, digest)
    }

    pub(super) fn has_blob(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        name: &Reference,
        digest: Digest,
    ) -> Result<bool, RegistryError> {
        let what = format!("blob {digest} of {}", name.name());
        self.schedule.run(|| {
            let url = endpoint.url(name.repository(), &format!("blobs/{digest}"));
            let response = self.call(endpoint, scope, &what, Request::new(Method::Head, url))?;
            match response.status() {
                200 => Ok(true),
                404 => Ok(false),
                _ => Err(response.into_error(&what)),
            }
        })
    }

    fn pull_from(
        &self,
        endpoint: &Endpoint,
        schedule: &Schedule,
        repository: &str,
        transfer: &mut Transfer<'_>,
    ) -> Result<(), RegistryError> {
        let mut tries = schedule.tries();
        loop {
            let before = transfer.hasher.n_bytes();
            let Err(error) = self.pull_rest(endpoint, repository, transfer) else { return Ok(()) };
            if transfer.hasher.n_bytes() - before >= PROGRESS_BYTES {
                tries.progressed();
            }
            tries.failed(error)?;
        }
    }

    /// One request for all that is missing.
    fn pull_rest(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        transfer: &mut Transfer<'_>,
    ) -> Result<(), RegistryError> {
        if transfer.is_complete() {
            return Ok(());
        }
        let _permit = self.gate.enter(endpoint.base.origin(), Direction::Down);
        let offset = transfer.n_bytes();
        let url = endpoint.url(repository, &format!("blobs/{}", transfer.blob.digest));
        // Compressed on the way, a blob would have another length, and ranges another meaning.
        let mut request = Request::new(Method::Get, url).header("accept-encoding", "identity");
        if offset > 0 {
            request = request.header("range", format!("bytes={offset}-"));
        }
        let scope = Scope::pull(repository);
        let response = self.call(endpoint, &scope, &transfer.what, request)?;
        transfer.receive(response)
    }
}

/// That a partial answer starts where we asked it to.
fn check_range(response: &Response, offset: u64) -> Result<(), RegistryError> {
    let range = response.header("content-range").unwrap_or_default();
    let start = range.strip_prefix("bytes ").and_then(|range| range.split_once('-'));
    if start.and_then(|(start, _)| start.trim().parse().ok()) == Some(offset) {
        return Ok(());
    }
    let why = "it sent another part of the blob than it was asked for".to_owned();
    Err(protocol(response.url(), why))
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        what: String,
        blob: &'a Descriptor,
        sink: &'a mut dyn Write,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        let (hasher, buffer) = (Hasher::new(), vec![0; BUFFER_BYTES]);
        Self { what, blob, sink, progress, hasher, buffer }
    }

    /// How many bytes came so far.
    pub(super) const fn n_bytes(&self) -> u64 {
        self.hasher.n_bytes()
    }

    /// Whether nothing is missing.
    pub(super) const fn is_complete(&self) -> bool {
        self.n_bytes() == self.blob.size && self.blob.size > 0
    }

    /// Takes the answer to a request for all that is missing.
    pub(super) fn receive(&mut self, mut response: Response) -> Result<(), RegistryError> {
        let offset = self.n_bytes();
        match response.status() {
            200 => {
                self.check_length(&response, 0)?;
                self.skip(&mut response, offset)?;
            }
            206 if offset > 0 => {
                check_range(&response, offset)?;
                self.check_length(&response, offset)?;
            }
            _ => return Err(response.into_error(&self.what)),
        }
        self.take(&mut response)
    }

    /// That the body from `offset` on is as long as it must be, where the server says how long.
    fn check_length(&self, response: &Response, offset: u64) -> Result<(), RegistryError> {
        let stated = response.content_length().map(|length| length.saturating_add(offset));
        match stated.filter(|got| *got != self.blob.size) {
            Some(got) => Err(self.wrong_size(got)),
            None => Ok(()),
        }
    }

    /// Passes over what we have already, for servers that do not know ranges.
    fn skip(&mut self, response: &mut Response, n_bytes: u64) -> Result<(), RegistryError> {
        let mut left = n_bytes;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let buffer = self.buffer.get_mut(..most).expect("`most` is at most its length");
            let n_read = as_u64(response.read(buffer)?);
            if n_read == 0 {
                return Err(self.wrong_size(n_bytes - left));
            }
            left -= n_read;
        }
        Ok(())
    }

    /// Moves the body to the sink, up to the blob's size.
    fn take(&mut self, response: &mut Response) -> Result<(), RegistryError> {
        loop {
            let n_read = response.read(&mut self.buffer)?;
            let bytes = self.buffer.get(..n_read).expect("a reader reads at most what fits");
            if bytes.is_empty() {
                let total = self.hasher.n_bytes();
                return if total == self.blob.size { Ok(()) } else { Err(self.wrong_size(total)) };
            }
            let total = self.hasher.n_bytes().saturating_add(as_u64(n_read));
            if total > self.blob.size {
                return Err(self.wrong_size(total));
            }
            self.sink.write_all(bytes).map_err(|source| RegistryError::Local {
                verb: "store",
                what: self.what.clone(),
                source,
            })?;
            self.hasher.update(bytes);
            (self.progress)(as_u64(n_read));
        }
    }

    /// That what came is what was to come.
    pub(super) fn finish(self) -> Result<(), RegistryError> {
        let (want, got) = (self.blob.digest, self.hasher.finish());
        if want == got {
            return Ok(());
        }
        Err(RegistryError::WrongDigest { what: self.what, want, got })
    }

    fn wrong_size(&self, got: u64) -> RegistryError {
        RegistryError::WrongSize { what: self.what.clone(), want: self.blob.size, got }
    }
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).expect("a buffer is shorter than 2^64")
}
