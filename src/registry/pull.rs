//! Blob downloads: verified, and resumed after a broken connection.

use std::io::Write;

use super::auth::Scope;
use super::endpoint::Endpoint;
use super::http::{Method, Request, Response, protocol};
use super::retry::RetryPolicy;
use super::transfer_limit::TransferDirection;
use super::{Client, RegistryError};
use crate::oci::{Descriptor, Digest, Hasher, Reference};

/// Size of the copy buffer in bytes.
pub(super) const BUFFER_BYTES: usize = 128 << 10;
/// Number of bytes that resets the count of failures when a connection breaks after them.
pub(super) const PROGRESS_BYTES: u64 = 1 << 20;

/// A download in progress. Received bytes went to the sink and into the hash.
pub(super) struct BlobDownload<'a> {
    what: String,
    blob: &'a Descriptor,
    sink: &'a mut dyn Write,
    progress: &'a (dyn Fn(u64) + Sync),
    hasher: Hasher,
    buffer: Vec<u8>,
}

impl Client {
    /// Streams a blob into `sink`, each byte once and in order, from a mirror or the registry.
    /// `progress` gets the number of new bytes.
    ///
    /// Resumes after a broken connection. Before an error, the bytes in `sink` are unverified and
    /// must be discarded.
    ///
    /// # Errors
    /// [`RegistryError::WrongDigest`] or [`RegistryError::WrongSize`] if the content is not the
    /// blob; [`RegistryError::Local`] if `sink` fails; otherwise the last server's error.
    pub fn pull_blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        sink: &mut dyn Write,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let what = format!("blob {} of {}", blob.digest, name.name());
        let mut transfer = BlobDownload::new(what, blob, sink, progress);
        // The next server resumes where the last one failed.
        self.try_each_endpoint(name, |endpoint, retry_policy| {
            self.pull_from(endpoint, retry_policy, name.repository(), &mut transfer)
        })?;
        transfer.finish()
    }

    /// Returns whether the registry itself, not a mirror, has the blob in `name`'s repository. It is asked
    /// once.
    ///
    /// # Errors
    /// The registry's error, except [`RegistryError::NotFound`].
    pub fn blob_exists(&self, name: &Reference, digest: Digest) -> Result<bool, RegistryError> {
        if self.blob_locations.has(name, digest) {
            return Ok(true);
        }
        let scope = Scope::pull(name.repository());
        let exists = self.has_blob(&Endpoint::of(name, &self.options), &scope, name, digest)?;
        if exists {
            self.blob_locations.note(name, digest);
        }
        Ok(exists)
    }

    pub(super) fn has_blob(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        name: &Reference,
        digest: Digest,
    ) -> Result<bool, RegistryError> {
        let what = format!("blob {digest} of {}", name.name());
        self.retry_policy.run(|| {
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
        retry_policy: &RetryPolicy,
        repository: &str,
        transfer: &mut BlobDownload<'_>,
    ) -> Result<(), RegistryError> {
        let mut attempts = retry_policy.attempts();
        loop {
            let before = transfer.hasher.n_bytes();
            let Err(error) = self.pull_rest(endpoint, repository, transfer) else { return Ok(()) };
            if transfer.hasher.n_bytes() - before >= PROGRESS_BYTES {
                attempts.progressed();
            }
            attempts.failed(error)?;
        }
    }

    /// Sends one request for the rest of the blob.
    fn pull_rest(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        transfer: &mut BlobDownload<'_>,
    ) -> Result<(), RegistryError> {
        if transfer.is_complete() {
            return Ok(());
        }
        let _permit = self.transfer_limit.acquire(endpoint.base.origin(), TransferDirection::Down);
        let offset = transfer.n_bytes();
        let url = endpoint.url(repository, &format!("blobs/{}", transfer.blob.digest));
        // With a content coding, length and ranges would be those of the encoded bytes (RFC 9110,
        // section 14.1.2).
        let mut request = Request::new(Method::Get, url).header("accept-encoding", "identity");
        if offset > 0 {
            request = request.header("range", format!("bytes={offset}-"));
        }
        let scope = Scope::pull(&endpoint.repository(repository));
        let response = self.call(endpoint, &scope, &transfer.what, request)?;
        transfer.receive(response)
    }
}

/// Checks that a partial response starts at `offset` (RFC 9110, section 15.3.7).
fn check_range(response: &Response, offset: u64) -> Result<(), RegistryError> {
    let range = response.header("content-range").unwrap_or_default();
    let start = range.strip_prefix("bytes ").and_then(|range| range.split_once('-'));
    if start.and_then(|(start, _)| start.trim().parse().ok()) == Some(offset) {
        return Ok(());
    }
    let why = "it sent another range of the blob than requested".to_owned();
    Err(protocol(response.url(), why))
}

impl<'a> BlobDownload<'a> {
    pub(super) fn new(
        what: String,
        blob: &'a Descriptor,
        sink: &'a mut dyn Write,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        let (hasher, buffer) = (Hasher::new(), vec![0; BUFFER_BYTES]);
        Self { what, blob, sink, progress, hasher, buffer }
    }

    /// Returns the number of bytes received so far.
    pub(super) const fn n_bytes(&self) -> u64 {
        self.hasher.n_bytes()
    }

    /// Returns whether all bytes were received.
    pub(super) const fn is_complete(&self) -> bool {
        self.n_bytes() == self.blob.size && self.blob.size > 0
    }

    /// Reads the response to a request for the rest of the blob.
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

    /// Checks the length of the body from `offset` on, if the server sent it.
    fn check_length(&self, response: &Response, offset: u64) -> Result<(), RegistryError> {
        let stated = response.content_length().map(|length| length.saturating_add(offset));
        match stated.filter(|got| *got != self.blob.size) {
            Some(got) => Err(self.wrong_size(got)),
            None => Ok(()),
        }
    }

    /// Skips bytes that were received before, for servers without support of ranges (RFC 9110,
    /// section 14.2).
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

    /// Copies the body to the sink, up to the blob's size.
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

    /// Checks the digest of all received bytes.
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

pub(super) fn as_u64(n: usize) -> u64 {
    u64::try_from(n).expect("a buffer is shorter than 2^64")
}
