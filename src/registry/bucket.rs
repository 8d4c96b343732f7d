//! S3-compatible buckets: objects by key, and directories of blobs by digest.
//!
//! Requests are authenticated by their addresses: AWS Signature Version 4 in query parameters
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>). So they are
//! sent like all others, and only `http` sees the signed address. Blobs are checked against their
//! digests when they are read.

mod upload;

use std::fmt;
use std::io::Write;
use std::time::Duration;

use rusty_s3::actions::{GetObject, HeadObject, PutObject};
use rusty_s3::{Credentials, S3Action, UrlStyle};

use super::blob_directory::{BlobDirectory, ObjectInfo, OpenFile};
use super::date::parse_http_date;
use super::error::shown;
use super::http::{Body, Method, Request, Response, protocol};
use super::pull::{BlobDownload, PROGRESS_BYTES};
use super::url::Url;
use super::{Client, RegistryError};
use crate::limits::MAX_BUCKET_ANSWER_BYTES;
use crate::oci::{Descriptor, Digest};

/// Lifetime of a signed address. Longer than any single request takes.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(3600);
type Result<T> = std::result::Result<T, RegistryError>;

/// The access key of the caller.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketKeys {
    /// Public part of the key.
    pub access_key_id: String,
    /// Secret part of the key.
    pub secret_access_key: String,
    /// Session token of temporary credentials (AWS STS).
    pub session_token: Option<String>,
}

impl fmt::Debug for BucketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BucketKeys")
    }
}

/// Location of a bucket, and the key to access it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketOptions {
    /// The bucket's name, without the endpoint.
    pub name: String,
    /// The AWS region, as in `eu-central-1`. Part of every signature.
    pub region: String,
    /// The server's address. `None` is the AWS endpoint of the region.
    pub endpoint: Option<String>,
    /// True if the bucket's name is part of the path instead of the host name.
    pub path_style: bool,
    /// The access key of the caller.
    pub keys: BucketKeys,
}

/// A bucket and the key to access it.
pub struct Bucket {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.bucket.base_url())
    }
}

/// A directory of blobs in a bucket. The digest is part of each key.
#[derive(Debug)]
pub struct BucketDirectory {
    /// The bucket that contains the directory.
    pub bucket: Bucket,
    /// Prefix of the keys. Ends with a slash if it names a directory.
    pub prefix: String,
}

impl fmt::Display for BucketDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket.bucket.name(), self.prefix)
    }
}

impl Bucket {
    /// Creates a bucket handle. No request is sent.
    ///
    /// # Errors
    /// [`RegistryError::BadOption`] if the options do not form an address.
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
        let url = url.ok_or_else(|| {
            bad("endpoint_url", "it must be an address such as https://s3.example")
        })?;
        // A wildcard certificate covers one label (RFC 6125, section 6.4.3), so not `a.b` in
        // `a.b.s3.example`.
        let by_path = *path_style || name.contains('.');
        let style = if by_path { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let bucket = rusty_s3::Bucket::new(url, style, name.clone(), region.clone());
        let bucket = bucket.map_err(|_bad| {
            bad(
                "bucket",
                "the name cannot be part of this endpoint's host name; add use_path_style=true",
            )
        })?;
        let BucketKeys { access_key_id: id, secret_access_key: secret, session_token } = keys;
        let credentials = match session_token {
            Some(token) => Credentials::new_with_token(id, secret, token),
            None => Credentials::new(id, secret),
        };
        Ok(Self { bucket, credentials })
    }

    fn shown_object(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket.name())
    }

    /// Signs a request and returns its address.
    fn sign<'a>(&'a self, action: &impl S3Action<'a>) -> Result<Url> {
        Url::parse(action.sign(SIGNATURE_LIFETIME).as_str()).ok_or_else(|| {
            let host = self.bucket.base_url().host_str().unwrap_or_default().to_owned();
            RegistryError::Protocol { host, why: "the key does not form an address".to_owned() }
        })
    }
}

impl BucketDirectory {
    /// Returns the key of a blob.
    #[must_use]
    pub fn key(&self, digest: Digest) -> String {
        format!("{}{digest}", self.prefix)
    }
}

impl BlobDirectory for BucketDirectory {
    fn location(&self) -> String {
        format!("s3:{}{}", self.bucket.bucket.base_url(), self.prefix)
    }

    fn find_blob(&self, client: &Client, blob: &Descriptor) -> Result<Option<ObjectInfo>> {
        self.bucket.find_object(client, &self.key(blob.digest))
    }

    fn renew_blob(&self, client: &Client, digest: Digest) -> Result<()> {
        self.bucket.touch_object(client, &self.key(digest))
    }

    fn push_blob(&self, client: &Client, blob: &Descriptor, open: OpenFile<'_>) -> Result<()> {
        self.upload_blob(client, blob, open)
    }

    fn pull_blob(
        &self,
        client: &Client,
        blob: &Descriptor,
        sink: &mut dyn Write,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let (bucket, key) = (&self.bucket, self.key(blob.digest));
        let mut transfer = BlobDownload::new(bucket.shown_object(&key), blob, sink, progress);
        let mut attempts = client.retry_policy.attempts();
        while !transfer.is_complete() {
            let before = transfer.n_bytes();
            let got = bucket
                .get_object(client, &key, before)
                .and_then(|response| transfer.receive(response));
            let Err(error) = got else { break };
            if transfer.n_bytes() - before >= PROGRESS_BYTES {
                attempts.progressed();
            }
            attempts.failed(error)?;
        }
        transfer.finish()
    }
}

impl Bucket {
    /// Returns size and age of an object, or `None` if it does not exist.
    ///
    /// # Errors
    /// The server's error, except [`RegistryError::NotFound`].
    pub fn find_object(&self, client: &Client, key: &str) -> Result<Option<ObjectInfo>> {
        client.retry_policy.run(|| {
            let action = HeadObject::new(&self.bucket, Some(&self.credentials), key);
            let url = self.sign(&action)?;
            let response = client.http.send(&mut Request::new(Method::Head, url), None)?;
            match response.status() {
                200 => Ok(Some(ObjectInfo {
                    n_bytes: response.content_length().unwrap_or(u64::MAX),
                    modified_s: response.header("last-modified").and_then(parse_http_date),
                })),
                404 => Ok(None),
                _ => Err(self.refusal(response, key)),
            }
        })
    }

    /// Reads a small object.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::TooLarge`] if it is longer than `max_bytes`;
    /// otherwise the server's error.
    pub fn read_object(&self, client: &Client, key: &str, max_bytes: u64) -> Result<Vec<u8>> {
        client.retry_policy.run(|| {
            let mut response = self.get_object(client, key, 0)?;
            response.read_all(&self.shown_object(key), max_bytes)
        })
    }

    /// Requests an object from `offset` on.
    fn get_object(&self, client: &Client, key: &str, offset: u64) -> Result<Response> {
        let action = GetObject::new(&self.bucket, Some(&self.credentials), key);
        let mut request =
            Request::new(Method::Get, self.sign(&action)?).header("accept-encoding", "identity");
        if offset > 0 {
            request = request.header("range", format!("bytes={offset}-"));
        }
        let response = client.http.send(&mut request, None)?;
        match response.status() {
            200 | 206 => Ok(response),
            _ => Err(self.refusal(response, key)),
        }
    }

    /// Returns an address from which anyone can download the object for an hour. It is secret.
    ///
    /// # Errors
    /// [`RegistryError::Protocol`] if the key does not form an address.
    pub fn download_address(&self, key: &str) -> Result<String> {
        let action = GetObject::new(&self.bucket, Some(&self.credentials), key);
        self.sign(&action).map(|url| url.for_wire())
    }

    /// Writes a small object.
    ///
    /// # Errors
    /// [`RegistryError::Denied`]; [`RegistryError::Status`]; errors of the connection.
    pub fn put_object(&self, client: &Client, key: &str, bytes: &[u8]) -> Result<()> {
        client.retry_policy.run(|| {
            let action = PutObject::new(&self.bucket, Some(&self.credentials), key);
            let mut request = Request::new(Method::Put, self.sign(&action)?);
            request.body = Body::Bytes(bytes);
            self.send_checked(client, key, &mut request).map(drop)
        })
    }

    /// Renews the modification time of an object, so that lifecycle rules of the bucket do not
    /// expire it.
    ///
    /// # Errors
    /// [`RegistryError::Denied`]; [`RegistryError::Status`]; errors of the connection.
    pub fn touch_object(&self, client: &Client, key: &str) -> Result<()> {
        // S3 refuses a copy of an object onto itself unless its metadata are replaced
        // (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>).
        let source = self.bucket.object_url(key);
        let source = match self.bucket.base_url().path() {
            "/" => format!("/{}{}", self.bucket.name(), source.path()),
            _path_style => source.path().to_owned(),
        };
        let headers =
            [("x-amz-copy-source", source.as_str()), ("x-amz-metadata-directive", "REPLACE")];
        client.retry_policy.run(|| {
            let mut action = PutObject::new(&self.bucket, Some(&self.credentials), key);
            for (name, value) in headers {
                action.headers_mut().insert(name, value);
            }
            let mut request = Request::new(Method::Put, self.sign(&action)?);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let mut response = self.send_checked(client, key, &mut request)?;
            // A copy that fails after its start sends status 200 with an error in the body
            // (API_CopyObject, "Response and special errors").
            let text = response.read_all(&self.shown_object(key), MAX_BUCKET_ANSWER_BYTES)?;
            self.check_answer(&response, key, &text)
        })
    }

    /// Sends a request and turns any other status than success into an error.
    fn send_checked(
        &self,
        client: &Client,
        key: &str,
        request: &mut Request<'_>,
    ) -> Result<Response> {
        let response = client.http.send(request, None)?;
        match response.status() {
            200..=204 => Ok(response),
            _ => Err(self.refusal(response, key)),
        }
    }

    /// Returns the error in the body of a response with a success status.
    fn check_answer(&self, response: &Response, key: &str, text: &[u8]) -> Result<()> {
        let text = String::from_utf8_lossy(text);
        if tag(&text, "Error").is_none() {
            return Ok(());
        }
        let message = reason(&text);
        let (host, what, status) = (response.host(), self.shown_object(key), 500);
        Err(RegistryError::Status { host, what, status, message, retry_after: None })
    }

    /// Makes the error for a failed request
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>).
    fn refusal(&self, mut response: Response, key: &str) -> RegistryError {
        let (host, what, status) = (response.host(), self.shown_object(key), response.status());
        let retry_after = response.retry_after();
        let region = response.header("x-amz-bucket-region").map(str::to_owned);
        if let Some(region) = region.filter(|region| region != self.bucket.region()) {
            return protocol(
                response.url(),
                format!("the bucket is in another region; use region={}", shown(&region)),
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
                // Without ListBucket permission, S3 answers 403 for a missing object
                // (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>).
                let why = match reason(&text) {
                    none if none.is_empty() => {
                        "check the keys; they must permit GetObject, PutObject and ListBucket"
                            .to_owned()
                    }
                    why => why,
                };
                RegistryError::Denied { host, what, why }
            }
            _ => {
                let message = match reason(&text) {
                    none if none.is_empty() => "no reason given".to_owned(),
                    message => message,
                };
                RegistryError::Status { host, what, status, message, retry_after }
            }
        }
    }
}

/// Returns the message and code of an error document, prepared for a terminal.
pub(super) fn reason(text: &str) -> String {
    let message = tag(text, "Message").unwrap_or_default();
    match tag(text, "Code") {
        Some(code) if message.is_empty() => shown(code),
        Some(code) => shown(&format!("{message} ({code})")),
        None => shown(message),
    }
}

/// Returns the text of the first element called `name`. Error documents of S3 are not nested.
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
    fn bucket_options_form_addresses() {
        for (endpoint, name, path_style, want) in [
            (None, "b", false, "s3:https://b.s3.eu-central-1.amazonaws.com/p/"),
            (None, "a.b", false, "s3:https://s3.eu-central-1.amazonaws.com/a.b/p/"),
            (Some("http://127.0.0.1:9000"), "b", true, "s3:http://127.0.0.1:9000/b/p/"),
            (Some("https://s3.example/x/"), "b", true, "s3:https://s3.example/x/b/p/"),
        ] {
            let bucket = Bucket::new(&options(endpoint, name, path_style)).unwrap();
            let directory = BucketDirectory { bucket, prefix: "p/".to_owned() };
            assert_eq!(directory.location(), want);
            let digest = Digest::of(b"");
            assert_eq!(directory.key(digest), format!("p/{digest}"));
        }
        for (endpoint, name, want) in [
            ("s3.example", "b", "endpoint_url: it must be an address such as https://s3.example"),
            (
                "http://user:geheim@h",
                "b",
                "endpoint_url: it must be an address such as https://s3.example",
            ),
            (
                "http://127.0.0.1",
                "b",
                "bucket: the name cannot be part of this endpoint's host name; add use_path_style=true",
            ),
        ] {
            let error = Bucket::new(&options(Some(endpoint), name, false)).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid registry option {want}"));
        }
    }

    #[test]
    fn debug_output_has_no_secrets() {
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
    fn error_documents_are_parsed() {
        let text = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>No\u{1b}[31m\nentry</Message></Error>";
        assert_eq!(reason(text), "No [31m entry (AccessDenied)");
        assert_eq!(reason("<html>"), "");
    }
}
