//! Contents of entries: uploaded in blocks, downloaded in ranges, at signed addresses
//! (<https://learn.microsoft.com/rest/api/storageservices/put-block>).

use std::io::{self, Cursor, Read, Seek as _, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{ActionsCache, ActionsEntry, BLOB_PREFIX, Reservation, ReservedEntry, Result};
use crate::oci::{Descriptor, Digest};
use crate::pool;
use crate::registry::blob_directory::{BlobDirectory, ObjectInfo, OpenFile};
use crate::registry::http::{Body, Method, Request, Response};
use crate::registry::pull::{BlobDownload, PROGRESS_BYTES, as_u64};
use crate::registry::ranges::{BlobServer, part_request};
use crate::registry::transfer_limit::TransferDirection;
use crate::registry::url::Url;
use crate::registry::{Client, RegistryError};

/// Size of a block, and of the largest content that is sent in one request. Only the failed block is sent
/// again.
const BLOCK_BYTES: u64 = 16 << 20;
/// Maximum number of blocks
/// (<https://learn.microsoft.com/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs>).
const MAX_BLOCKS: u64 = 50_000;
/// Number of blocks of one content that are sent at once.
const PARALLEL_BLOCKS: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");
/// Number of keys that are tried for a blob. Broken uploads leave a key reserved.
const MAX_KEYS: u64 = 5;
/// Pause before a blob that another job reserved is looked up again.
const OTHER_JOB: Duration = Duration::from_secs(2);

/// Opens a content from an offset on, once for each request.
type OpenAt<'a> = &'a (dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync);

impl ActionsCache {
    /// Writes a small entry that is reserved.
    ///
    /// # Errors
    /// The server's error.
    pub fn write(&self, client: &Client, entry: ReservedEntry, bytes: &[u8]) -> Result<()> {
        let open = |from: u64| -> io::Result<Box<dyn Read + Send>> {
            let mut reader = Cursor::new(bytes.to_vec());
            reader.set_position(from);
            Ok(Box::new(reader))
        };
        self.fill(client, &entry, as_u64(bytes.len()), &open)
    }

    /// Writes a small blob, unless it is there.
    ///
    /// # Errors
    /// The server's error.
    pub fn write_blob(&self, client: &Client, digest: Digest, bytes: &[u8]) -> Result<()> {
        let open = |from: u64| -> io::Result<Box<dyn Read + Send>> {
            let mut reader = Cursor::new(bytes.to_vec());
            reader.set_position(from);
            Ok(Box::new(reader))
        };
        self.ensure(client, digest, as_u64(bytes.len()), &open)
    }

    /// Reads a small entry that [`Self::find`] has just found by `prefix`.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::TooLarge`] if it is longer than `max_bytes`; otherwise
    /// the server's error.
    pub fn read(&self, client: &Client, prefix: &str, max_bytes: u64) -> Result<Vec<u8>> {
        let what = format!("the cache entry {prefix}");
        client.retry_policy.run(|| {
            let mut response = self.get(client, prefix, &what, None)?;
            match response.status() {
                200 => response.read_all(&what, max_bytes),
                _ => Err(response.into_error(&what)),
            }
        })
    }

    /// Ensures that there is an entry for a blob. Another job may write it at the same time.
    fn ensure(
        &self,
        client: &Client,
        digest: Digest,
        n_bytes: u64,
        open: OpenAt<'_>,
    ) -> Result<()> {
        let prefix = blob_prefix(digest);
        let mut last = None;
        for number in 0..MAX_KEYS {
            match self.reserve(client, &prefix, number)? {
                Reservation::Granted(entry) => match self.fill(client, &entry, n_bytes, open) {
                    Err(error) if is_expired(&error) => last = Some(error),
                    filled => return filled,
                },
                Reservation::Taken => {
                    if self.is_there_soon(client, &prefix)? {
                        return Ok(());
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            let what = format!("blob {digest}");
            let why = "other jobs have reserved it, but not written it".to_owned();
            RegistryError::Denied { host: self.base.host().to_owned(), what, why }
        }))
    }

    /// Returns whether another job has written an entry, or does it now.
    fn is_there_soon(&self, client: &Client, prefix: &str) -> Result<bool> {
        if self.find(client, prefix)?.is_some() {
            return Ok(true);
        }
        client.cancellation.sleep_while(OTHER_JOB, &|| true);
        Ok(self.find(client, prefix)?.is_some())
    }

    /// Uploads the content of a reserved entry, and completes it.
    fn fill(
        &self,
        client: &Client,
        entry: &ReservedEntry,
        n_bytes: u64,
        open: OpenAt<'_>,
    ) -> Result<()> {
        let what = format!("the cache entry {}", entry.key);
        let upload = Upload { client, address: &entry.address, what: &what, open };
        upload.send(n_bytes)?;
        self.complete(client, &entry.key, n_bytes)
    }

    /// Requests the content of an entry. An address that expired is replaced once.
    fn get(
        &self,
        client: &Client,
        prefix: &str,
        what: &str,
        range: Option<String>,
    ) -> Result<Response> {
        if let Some(address) = self.known_address(prefix) {
            let mut request = part_request(address, range.clone());
            let response = client.http.send(&mut request, None)?;
            if !matches!(response.status(), 401 | 403 | 404) {
                return Ok(response);
            }
            pool::lock(&self.addresses).remove(prefix);
        }
        let found = self.find(client, prefix)?;
        let address = found.and_then(|_entry| self.known_address(prefix));
        let missing = || RegistryError::NotFound { what: what.to_owned() };
        client.http.send(&mut part_request(address.ok_or_else(missing)?, range), None)
    }

    fn known_address(&self, prefix: &str) -> Option<Url> {
        pool::lock(&self.addresses).get(prefix).cloned()
    }
}

fn blob_prefix(digest: Digest) -> String {
    format!("{BLOB_PREFIX}{digest}")
}

/// Returns whether an upload failed because its address expired.
fn is_expired(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Denied { .. } | RegistryError::Unauthorized { .. })
}

/// An upload to a signed address.
struct Upload<'a> {
    client: &'a Client,
    address: &'a Url,
    what: &'a str,
    open: OpenAt<'a>,
}

impl Upload<'_> {
    /// Sends the content, a large one in blocks.
    fn send(&self, n_bytes: u64) -> Result<()> {
        let block_bytes = BLOCK_BYTES.max(n_bytes.div_ceil(MAX_BLOCKS));
        if n_bytes <= block_bytes {
            return self.put(self.address.clone(), 0, n_bytes, true);
        }
        let starts: Vec<u64> =
            (0..n_bytes.div_ceil(block_bytes)).map(|n| n * block_bytes).collect();
        let sent = pool::map_in_order(&starts, PARALLEL_BLOCKS, |from| {
            let id = block_id(*from);
            let url = self.address.clone().with_query("comp", "block").with_query("blockid", &id);
            self.put(url, *from, block_bytes.min(n_bytes - from), false)?;
            Ok(id)
        });
        let ids: Vec<String> = sent.into_iter().collect::<Result<_>>()?;
        self.put_list(&ids)
    }

    /// Sends a range of the content, as a block or as the whole blob.
    fn put(&self, url: Url, from: u64, n_bytes: u64, is_whole: bool) -> Result<()> {
        let local =
            |source| RegistryError::Local { verb: "read", what: self.what.to_owned(), source };
        self.client.retry_policy.run(|| {
            let limit = &self.client.transfer_limit;
            let _permit = limit.acquire(self.address.origin(), TransferDirection::Up);
            let mut reader = (self.open)(from).map_err(local)?.take(n_bytes);
            let mut request = Request::new(Method::Put, url.clone());
            if is_whole {
                request = request.header("x-ms-blob-type", "BlockBlob");
            }
            request.body = Body::Stream { reader: &mut reader, n_bytes: Some(n_bytes) };
            self.sent(request)
        })
    }

    /// Makes the blob out of the blocks
    /// (<https://learn.microsoft.com/rest/api/storageservices/put-block-list>).
    fn put_list(&self, ids: &[String]) -> Result<()> {
        let ids: String = ids.iter().map(|id| format!("<Latest>{id}</Latest>")).collect();
        let list =
            format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{ids}</BlockList>");
        self.client.retry_policy.run(|| {
            let url = self.address.clone().with_query("comp", "blocklist");
            let mut request =
                Request::new(Method::Put, url).header("content-type", "application/xml");
            request.body = Body::Bytes(list.as_bytes());
            self.sent(request)
        })
    }

    fn sent(&self, mut request: Request<'_>) -> Result<()> {
        let mut response = self.client.http.send(&mut request, None)?;
        if response.status() == 201 {
            response.discard();
            return Ok(());
        }
        Err(response.into_error(self.what))
    }
}

/// Returns the name of a block. All names of a blob have the same length.
fn block_id(from: u64) -> String {
    BASE64.encode(format!("{from:020}"))
}

/// The content of a blob's entry.
struct EntryContent<'a> {
    cache: &'a ActionsCache,
    prefix: String,
}

impl BlobServer for EntryContent<'_> {
    fn origin(&self) -> String {
        let address = self.cache.known_address(&self.prefix);
        address.unwrap_or_else(|| self.cache.base.clone()).origin()
    }

    fn request(&self, client: &Client, what: &str, range: Option<String>) -> Result<Response> {
        self.cache.get(client, &self.prefix, what, range)
    }
}

impl BlobDirectory for ActionsCache {
    fn location(&self) -> String {
        self.location.clone()
    }

    /// The search also counts as a use, after which GitHub keeps an entry for a week.
    fn find_blob(&self, client: &Client, blob: &Descriptor) -> Result<Option<ObjectInfo>> {
        let found: Option<ActionsEntry> = self.find(client, &blob_prefix(blob.digest))?;
        Ok(found.map(|_entry| ObjectInfo { n_bytes: blob.size, modified_s: None }))
    }

    /// Does nothing: see [`Self::find_blob`].
    fn renew_blob(&self, _client: &Client, _digest: Digest) -> Result<()> {
        Ok(())
    }

    fn push_blob(&self, client: &Client, blob: &Descriptor, open: OpenFile<'_>) -> Result<()> {
        let open_at = |from: u64| -> io::Result<Box<dyn Read + Send>> {
            let mut file = open()?;
            file.seek(SeekFrom::Start(from))?;
            Ok(Box::new(file))
        };
        self.ensure(client, blob.digest, blob.size, &open_at)
    }

    fn pull_blob(
        &self,
        client: &Client,
        blob: &Descriptor,
        sink: &mut dyn Write,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let prefix = blob_prefix(blob.digest);
        let what = format!("blob {} of {self}", blob.digest);
        let mut transfer = BlobDownload::new(what.clone(), blob, sink, progress);
        let mut attempts = client.retry_policy.attempts();
        while !transfer.is_complete() {
            let before = transfer.n_bytes();
            let range = (before > 0).then(|| format!("bytes={before}-"));
            let got = self
                .get(client, &prefix, &what, range)
                .and_then(|response| transfer.receive(response));
            let Err(error) = got else { break };
            if transfer.n_bytes() - before >= PROGRESS_BYTES {
                attempts.progressed();
            }
            attempts.failed(error)?;
        }
        transfer.finish()
    }

    fn pull_blob_in_parts(
        &self,
        client: &Client,
        blob: &Descriptor,
        write_at: &(dyn Fn(u64, &[u8]) -> io::Result<()> + Sync),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let server = EntryContent { cache: self, prefix: blob_prefix(blob.digest) };
        let what = format!("blob {} of {self}", blob.digest);
        client.pull_parts_from(&server, what, blob, write_at, progress)
    }
}
