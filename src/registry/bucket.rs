//! Buckets of S3 and its likes: objects by key, and directories of blobs by digest.
//!
//! What is signed is the address of a request (AWS Signature Version 4, "query parameters"), so that
//! it is sent as any other; nothing but `http` sees the signed address. Blobs are checked against
//! their digests when they are read.

mod upload;

use std::fmt;
use std::io::Write;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rusty_s3::actions::{GetObject, HeadObject, PutObject};
use rusty_s3::{Credentials, S3Action, UrlStyle};

use super::date::parse_http_date;
use super::error::shown;
use super::http::{Body, Method, Request, Response, protocol};
use super::pull::{PROGRESS_BYTES, Transfer};
use super::url::Url;
use super::{Client, RegistryError};
use crate::limits::MAX_BUCKET_ANSWER_BYTES;
use crate::oci::{Descriptor, Digest};

/// How long a signed address is good: longer than any one request takes.
const VALID: Duration = Duration::from_secs(3600);
type Result<T> = std::result::Result<T, RegistryError>;

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketKeys {
    /// The public part.
    pub access_key_id: String,
    /// The secret part.
    pub secret_access_key: String,
    /// For keys that end by themselves.
    pub session_token: Option<String>,
}

impl fmt::Debug for BucketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BucketKeys")
    }
}

/// Where a bucket is, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketOptions {
    /// The bucket's name.
    pub name: String,
    /// As in `eu-central-1`.
    pub region: String,
    /// The server's address; `None` is AWS's own for the region.
    pub endpoint: Option<String>,
    /// Whether the name is in the path and not in the host.
    pub path_style: bool,
    /// Who asks.
    pub keys: BucketKeys,
}

/// A bucket that can be asked.
pub struct Bucket {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.bucket.base_url())
    }
}

/// A directory of blobs in a bucket, each under its digest.
#[derive(Debug)]
pub struct BucketDirectory {
    /// The bucket.
    pub bucket: Bucket,
    /// What keys begin with; a slash at its end if it is one.
    pub prefix: String,
}

impl fmt::Display for BucketDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket.bucket.name(), self.prefix)
    }
}

/// What is known of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Its length.
    pub n_bytes: u64,
    /// When it was written, seconds since 1970, if the server says.
    pub modified_s: Option<i64>,
}

impl Bucket {
    /// A bucket; nobody has been asked yet.
    ///
    /// # Errors
    /// [`RegistryError::BadOption`] when the options give no address.
    pub fn new(options: &BucketOptions) -> Result<Self> {
        let BucketOptions { name, region, endpoint, path_style, keys } = options;
        let bad = |option: &str, why| RegistryError::BadOption { option: option.to_owned(), why };
        let own = || {
            let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://s3.{region}.amazonaws.com{suffix}")
        };
        let address = endpoint.clone().unwrap_or_else(own);
        let url = Url::parse(&address).filter(|_| !address.contains('@'));
        let url = url.and_then(|url| url.for_wire().parse().ok());
        let url =
            url.ok_or_else(|| bad("endpoint_url", "it is no address such as https://s3.example"))?;
        // A certificate for *.host does not hold for a.b.host.
        let by_path = *path_style || name.contains('.');
        let style = if by_path { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let bucket = rusty_s3::Bucket::new(url, style, name.clone(), region.clone());
        let bucket = bucket.map_err(|_bad| {
            bad("bucket", "the endpoint cannot have it in its name; add use_path_style=true")
        })?;
        let BucketKeys { access_key_id: id, secret_access_key: secret, session_token } = keys;
        let credentials = match session_token {
            Some(token) => Credentials::new_with_token(id, secret, token),
            None => Credentials::new(id, secret),
        };
        Ok(Self { bucket, credentials })
    }

    fn what(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket.name())
    }

    /// The address of a signed request.
    fn sign<'a>(&'a self, action: &impl S3Action<'a>) -> Result<Url> {
        Url::parse(action.sign(VALID).as_str()).ok_or_else(|| {
            let host = self.bucket.base_url().host_str().unwrap_or_default().to_owned();
            RegistryError::Protocol { host, why: "the key gives no address".to_owned() }
        })
    }
}

impl BucketDirectory {
    /// The key of a blob.
    #[must_use]
    pub fn key(&self, digest: Digest) -> String {
        format!("{}{digest}", self.prefix)
    }

    /// The name that the store remembers it by: no registry's, and no path.
    #[must_use]
    pub fn place(&self) -> String {
        format!("s3:{}{}", self.bucket.bucket.base_url(), self.prefix)
    }
}

impl Client {
    /// Lets blobs be looked for in a directory, for as long as this client lives.
    pub fn know_directory(&self, directory: Arc<BucketDirectory>) {
        // A panic elsewhere leaves the map as good as it was.
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        directories.insert(directory.place(), directory);
    }

    /// The directory of that name, if this process knows how to ask for it.
    #[must_use]
    pub fn known_directory(&self, place: &str) -> Option<Arc<BucketDirectory>> {
        let directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        directories.get(place).cloned()
    }

    /// Looks for an object.
    ///
    /// # Errors
    /// The server's, but for "not found".
    pub fn find_object(&self, bucket: &Bucket, key: &str) -> Result<Option<Object>> {
        self.schedule.run(|| {
            let action = HeadObject::new(&bucket.bucket, Some(&bucket.credentials), key);
            let url = bucket.sign(&action)?;
            let response = self.http.send(&mut Request::new(Method::Head, url), None)?;
            match response.status() {
                200 => Ok(Some(Object {
                    n_bytes: response.content_length().unwrap_or(u64::MAX),
                    modified_s: response.header("last-modified").and_then(parse_http_date),
                })),
                404 => Ok(None),
                _ => Err(bucket.refusal(response, key)),
            }
        })
    }

    /// Reads a short object.
    ///
    /// # Errors
    /// `NotFound`; `TooLarge` when it is longer than `max_bytes`; else the server's.
    pub fn read_object(&self, bucket: &Bucket, key: &str, max_bytes: u64) -> Result<Vec<u8>> {
        self.schedule.run(|| {
            let mut response = self.get_object(bucket, key, 0)?;
            response.read_all(&bucket.what(key), max_bytes)
        })
    }

    /// Streams the blob that an object holds into `sink`; after a broken connection it goes on where
    /// it was. What was written before an error must be thrown away.
    ///
    /// # Errors
    /// `WrongDigest` or `WrongSize` when the blob is another; `Local` when `sink` fails; else the
    /// server's.
    pub fn pull_object(
        &self,
        directory: &BucketDirectory,
        blob: &Descriptor,
        sink: &mut dyn Write,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let (bucket, key) = (&directory.bucket, directory.key(blob.digest));
        let mut transfer = Transfer::new(bucket.what(&key), blob, sink, progress);
        let mut tries = self.schedule.tries();
        while !transfer.is_complete() {
            let before = transfer.n_bytes();
            let got = self
                .get_object(bucket, &key, before)
                .and_then(|response| transfer.receive(response));
            let Err(error) = got else { break };
            if transfer.n_bytes() - before >= PROGRESS_BYTES {
                tries.progressed();
            }
            tries.failed(error)?;
        }
        transfer.finish()
    }

    /// The answer to one request for an object from `offset` on.
    fn get_object(&self, bucket: &Bucket, key: &str, offset: u64) -> Result<Response> {
        let action = GetObject::new(&bucket.bucket, Some(&bucket.credentials), key);
        let mut request =
            Request::new(Method::Get, bucket.sign(&action)?).header("accept-encoding", "identity");
        if offset > 0 {
            request = request.header("range", format!("bytes={offset}-"));
        }
        let response = self.http.send(&mut request, None)?;
        match response.status() {
            200 | 206 => Ok(response),
            _ => Err(bucket.refusal(response, key)),
        }
    }

    /// Writes a short object.
    ///
    /// # Errors
    /// The server's.
    pub fn put_object(&self, bucket: &Bucket, key: &str, bytes: &[u8]) -> Result<()> {
        self.schedule.run(|| {
            let action = PutObject::new(&bucket.bucket, Some(&bucket.credentials), key);
            let mut request = Request::new(Method::Put, bucket.sign(&action)?);
            request.body = Body::Bytes(bytes);
            self.done(bucket, key, &mut request).map(drop)
        })
    }

    /// Makes an object as young as one that was just written, so that rules of the bucket which
    /// remove old ones leave it alone.
    ///
    /// # Errors
    /// The server's.
    pub fn touch_object(&self, bucket: &Bucket, key: &str) -> Result<()> {
        // An object may be copied onto itself if something about it is said anew.
        let source = bucket.bucket.object_url(key);
        let source = match bucket.bucket.base_url().path() {
            "/" => format!("/{}{}", bucket.bucket.name(), source.path()),
            _path_style => source.path().to_owned(),
        };
        let headers =
            [("x-amz-copy-source", source.as_str()), ("x-amz-metadata-directive", "REPLACE")];
        self.schedule.run(|| {
            let mut action = PutObject::new(&bucket.bucket, Some(&bucket.credentials), key);
            for (name, value) in headers {
                action.headers_mut().insert(name, value);
            }
            let mut request = Request::new(Method::Put, bucket.sign(&action)?);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let mut response = self.done(bucket, key, &mut request)?;
            // A copy that fails half-way is an error in an answer that began well.
            let text = response.read_all(&bucket.what(key), MAX_BUCKET_ANSWER_BYTES)?;
            bucket.check_answer(&response, key, &text)
        })
    }

    /// One request that must succeed.
    fn done(&self, bucket: &Bucket, key: &str, request: &mut Request<'_>) -> Result<Response> {
        let response = self.http.send(request, None)?;
        match response.status() {
            200..=204 => Ok(response),
            _ => Err(bucket.refusal(response, key)),
        }
    }
}

impl Bucket {
    /// The error in the text of an answer that is none by its status.
    fn check_answer(&self, response: &Response, key: &str, text: &[u8]) -> Result<()> {
        let text = String::from_utf8_lossy(text);
        if tag(&text, "Error").is_none() {
            return Ok(());
        }
        let message = reason(&text);
        let (host, what, status) = (response.host(), self.what(key), 500);
        Err(RegistryError::Status { host, what, status, message, retry_after: None })
    }

    /// What an answer means that is not the one that was hoped for (S3's "Error responses").
    fn refusal(&self, mut response: Response, key: &str) -> RegistryError {
        let (host, what, status) = (response.host(), self.what(key), response.status());
        let retry_after = response.retry_after();
        let region = response.header("x-amz-bucket-region").map(str::to_owned);
        if let Some(region) = region.filter(|region| region != self.bucket.region()) {
            return protocol(
                response.url(),
                format!("the bucket is in another region: say region={}", shown(&region)),
            );
        }
        let body = response.read_all(&what, MAX_BUCKET_ANSWER_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        let code = tag(&text, "Code").unwrap_or_default();
        match status {
            404 if code == "NoSuchBucket" => {
                RegistryError::NotFound { what: format!("the bucket {}", self.bucket.name()) }
            }
            404 => RegistryError::NotFound { what },
            401 | 403 => {
                // Who may not list a bucket is not told that an object is missing.
                let why = match reason(&text) {
                    none if none.is_empty() => {
                        "the keys must be right, and allow GetObject, PutObject and ListBucket"
                            .to_owned()
                    }
                    why => why,
                };
                RegistryError::Denied { host, what, why }
            }
            _ => {
                let message = match reason(&text) {
                    none if none.is_empty() => "it gives no reason".to_owned(),
                    message => message,
                };
                RegistryError::Status { host, what, status, message, retry_after }
            }
        }
    }
}

/// What an error says, fit for a terminal.
pub(super) fn reason(text: &str) -> String {
    let message = tag(text, "Message").unwrap_or_default();
    match tag(text, "Code") {
        Some(code) if message.is_empty() => shown(code),
        Some(code) => shown(&format!("{message} ({code})")),
        None => shown(message),
    }
}

/// The text of the first element of that name; errors of S3 are flat.
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(endpoint: Option<&str>, name: &str, path_style: bool) -> BucketOptions {
        BucketOptions {
            name: name.to_owned(),
            region: "eu-central-1".to_owned(),
            endpoint: endpoint.map(str::to_owned),
            path_style,
            keys: BucketKeys {
                access_key_id: "PUBLIC".to_owned(),
                secret_access_key: "geheim".to_owned(),
                session_token: Some("zeichen".to_owned()),
            },
        }
    }

    #[test]
    fn buckets_have_an_address() {
        for (endpoint, name, path_style, want) in [
            (None, "b", false, "s3:https://b.s3.eu-central-1.amazonaws.com/p/"),
            (None, "a.b", false, "s3:https://s3.eu-central-1.amazonaws.com/a.b/p/"),
            (Some("http://127.0.0.1:9000"), "b", true, "s3:http://127.0.0.1:9000/b/p/"),
            (Some("https://s3.example/x/"), "b", true, "s3:https://s3.example/x/b/p/"),
        ] {
            let bucket = Bucket::new(&options(endpoint, name, path_style)).unwrap();
            let directory = BucketDirectory { bucket, prefix: "p/".to_owned() };
            assert_eq!(directory.place(), want);
            let digest = Digest::of(b"");
            assert_eq!(directory.key(digest), format!("p/{digest}"));
        }
        for (endpoint, name, want) in [
            ("s3.example", "b", "endpoint_url: it is no address such as https://s3.example"),
            (
                "http://user:geheim@h",
                "b",
                "endpoint_url: it is no address such as https://s3.example",
            ),
            (
                "http://127.0.0.1",
                "b",
                "bucket: the endpoint cannot have it in its name; add use_path_style=true",
            ),
        ] {
            let error = Bucket::new(&options(Some(endpoint), name, false)).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot use the registry option {want}"));
        }
    }

    #[test]
    fn nothing_that_is_shown_has_a_secret() {
        let options = options(None, "b", false);
        let bucket = Bucket::new(&options).unwrap();
        let action = GetObject::new(&bucket.bucket, Some(&bucket.credentials), "k");
        let url = bucket.sign(&action).unwrap();
        let shown = format!("{options:?} {bucket:?} {url} {url:?}");
        for secret in ["geheim", "zeichen", "PUBLIC", "Signature"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(url.for_wire().contains("X-Amz-Signature="));
    }

    #[test]
    fn errors_are_read() {
        let text = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>No\u{1b}[31m\nentry</Message></Error>";
        assert_eq!(reason(text), "No [31m entry (AccessDenied)");
        assert_eq!(reason("<html>"), "");
    }
}
