//! The cache of GitHub Actions: entries under keys that are never written twice, behind a service that
//! signs the addresses of their contents.
//!
//! GitHub publishes no specification. The reference clients of version 2 of the interface are
//! <https://github.com/actions/toolkit/tree/main/packages/cache> and
//! <https://github.com/tonistiigi/go-actions-cache>. Three calls of a Twirp service
//! (<https://twitchtv.github.io/twirp/docs/spec_v7.html>) reserve, complete and find an entry; contents
//! go to and come from block blobs of Azure's storage.
//!
//! An upload that broke leaves its key reserved, without an entry. So an entry is found by a prefix: its
//! key, or the key with `#` and a number.

mod token;
mod transfer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Secret;
use super::error::shown;
use super::http::{Body, Method, Request, protocol};
use super::retry::RetryPolicy;
use super::url::Url;
use super::{Client, RegistryError};
use crate::limits::MAX_ACTIONS_ANSWER_BYTES;
use crate::oci::Digest;
use crate::pool;

use token::TokenScope;

/// Path of the service.
const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";
/// Separates the number of a key from the rest.
const NUMBER: char = '#';
/// Prefix of the keys of blobs.
const BLOB_PREFIX: &str = "rbuild-1-";

type Result<T> = std::result::Result<T, RegistryError>;

/// Address of the service, and the token of the job.
#[derive(Clone, PartialEq, Eq)]
pub struct ActionsOptions {
    /// Address of the service; `None` if the environment does not have it.
    pub url: Option<String>,
    /// Token of the job; `None` if the environment does not have it.
    pub token: Option<String>,
    /// The repository of the job, as in `owner/name`; empty if unknown.
    pub repository: String,
    /// Name of the cache in the repository.
    pub scope: String,
    /// Maximum time in which a request is repeated because there were too many.
    pub timeout: Duration,
}

impl fmt::Debug for ActionsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, repository, scope, .. } = self;
        write!(f, "ActionsOptions({url:?} {repository} {scope})")
    }
}

/// The cache of a repository, as the token of a job may use it.
pub struct ActionsCache {
    base: Url,
    secret: Secret,
    scopes: Vec<TokenScope>,
    name: String,
    location: String,
    timeout: Duration,
    /// Signed addresses of entries, by the prefix that they were found by.
    addresses: Mutex<BTreeMap<String, Url>>,
}

impl fmt::Debug for ActionsCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActionsCache({})", self.location)
    }
}

impl fmt::Display for ActionsCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the cache of GitHub Actions (scope {})", self.name)
    }
}

/// An entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionsEntry {
    /// Its key.
    pub key: String,
    /// The number at the end of the key, or 0.
    pub number: u64,
}

impl ActionsEntry {
    /// Returns the entry with a number, as [`ActionsCache::reserve`] names it.
    #[must_use]
    pub fn of(prefix: &str, number: u64) -> Self {
        let key = if number == 0 { prefix.to_owned() } else { format!("{prefix}{NUMBER}{number}") };
        Self { key, number }
    }
}

/// The answer to a reservation.
#[derive(Debug)]
pub enum Reservation {
    /// The key is reserved for this job.
    Granted(ReservedEntry),
    /// Another job has reserved or written it.
    Taken,
}

/// A key that is reserved for this job, with the signed address of its content.
#[derive(Debug)]
pub struct ReservedEntry {
    key: String,
    address: Url,
}

/// The error of a Twirp service.
#[derive(Deserialize)]
struct TwirpError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    msg: String,
}

/// The answer to a call, with the members of all calls.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    message: String,
    #[serde(default)]
    signed_upload_url: String,
    #[serde(default)]
    signed_download_url: String,
    #[serde(default)]
    matched_key: String,
}

impl ActionsCache {
    /// Creates a handle. No request is sent.
    ///
    /// # Errors
    /// [`RegistryError::BadOption`] if address or token are missing or not valid.
    pub fn new(options: &ActionsOptions) -> Result<Self> {
        let bad = |option: &str, why| RegistryError::BadOption { option: option.to_owned(), why };
        let ActionsOptions { url, token, repository, scope, timeout } = options;
        let url = url.as_deref().ok_or_else(|| {
            bad(
                "type=gha",
                "it needs ACTIONS_RESULTS_URL, which only actions get; see `rbuild help caches`",
            )
        })?;
        let base = Url::parse(url);
        let base = base.ok_or_else(|| bad("url", "it must be an address such as https://host/"))?;
        let token = token.as_deref().ok_or_else(|| {
            bad(
                "type=gha",
                "it needs ACTIONS_RUNTIME_TOKEN, which only actions get; see `rbuild help caches`",
            )
        })?;
        let scopes = token::scopes(token);
        let readable: Vec<&str> = scopes.iter().map(|scope| scope.name.as_str()).collect();
        // A store that jobs of several branches use must not mix what GitHub keeps apart.
        let location = format!("gha:{base}#{repository};{scope};{}", readable.join(","));
        Ok(Self {
            base,
            secret: Secret::verbatim(format!("Bearer {token}")),
            scopes,
            name: scope.clone(),
            location,
            timeout: *timeout,
            addresses: Mutex::default(),
        })
    }

    /// Returns the prefixes of the keys of documents that the token may read, the one that it may write
    /// first.
    #[must_use]
    pub fn document_prefixes(&self) -> Vec<String> {
        let mut scopes: Vec<&TokenScope> = self.scopes.iter().collect();
        scopes.sort_by_key(|scope| !scope.is_writable);
        scopes.into_iter().map(|scope| self.document_prefix(scope)).collect()
    }

    /// Returns the prefix of the keys of documents that this job writes.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] if the token does not permit writing.
    pub fn own_prefix(&self) -> Result<String> {
        // As BuildKit chooses it (cache/remotecache/gha).
        let writable = self.scopes.iter().rfind(|scope| scope.is_writable);
        writable.map(|scope| self.document_prefix(scope)).ok_or_else(|| RegistryError::Denied {
            host: self.base.host().to_owned(),
            what: self.to_string(),
            why: "the token of this job permits reading only, as for pull requests from forks"
                .to_owned(),
        })
    }

    /// Branches have documents of their own: GitHub would otherwise prefer that of the branch, even if the
    /// main branch has a newer one.
    fn document_prefix(&self, scope: &TokenScope) -> String {
        let hex = Digest::of(scope.name.as_bytes()).hex();
        let short: String = hex.chars().take(8).collect();
        format!("rbuild-index-1-{}-{short}", self.name)
    }

    /// Finds the newest entry whose key is `prefix`, or begins with it and has a number.
    ///
    /// # Errors
    /// The server's error.
    pub fn find(&self, client: &Client, prefix: &str) -> Result<Option<ActionsEntry>> {
        // A restore key matches all keys that begin with it, and the newest of them is found.
        let restore_keys = [format!("{prefix}{NUMBER}")];
        let body = json!({ "key": prefix, "version": version(), "restore_keys": restore_keys });
        let Some(answer) = self.call(client, "GetCacheEntryDownloadURL", prefix, &body)? else {
            return Ok(None);
        };
        let key = answer.matched_key;
        let number = match key.strip_prefix(prefix) {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix(NUMBER).and_then(|number| number.parse().ok()),
            None => None,
        };
        let Some(number) = number.filter(|_| answer.ok) else { return Ok(None) };
        let address = self.signed(&answer.signed_download_url)?;
        pool::lock(&self.addresses).insert(prefix.to_owned(), address);
        Ok(Some(ActionsEntry { key, number }))
    }

    /// Reserves the key of `prefix` with a number.
    ///
    /// # Errors
    /// The server's error; [`RegistryError::Denied`] if it refuses for another reason than the key.
    pub fn reserve(&self, client: &Client, prefix: &str, number: u64) -> Result<Reservation> {
        let ActionsEntry { key, .. } = ActionsEntry::of(prefix, number);
        let body = json!({ "key": key, "version": version() });
        let Some(answer) = self.call(client, "CreateCacheEntry", &key, &body)? else {
            return Ok(Reservation::Taken);
        };
        if answer.ok {
            let address = self.signed(&answer.signed_upload_url)?;
            return Ok(Reservation::Granted(ReservedEntry { key, address }));
        }
        if answer.message.is_empty() || answer.message.contains("already exists") {
            return Ok(Reservation::Taken);
        }
        let (host, why) = (self.base.host().to_owned(), shown(&answer.message));
        Err(RegistryError::Denied { host, what: self.to_string(), why })
    }

    /// Completes an entry whose content was uploaded.
    fn complete(&self, client: &Client, key: &str, n_bytes: u64) -> Result<()> {
        // A 64-bit number is a text in the JSON of protocol buffers
        // (<https://protobuf.dev/programming-guides/json/>).
        let body = json!({ "key": key, "version": version(), "size_bytes": n_bytes.to_string() });
        let answer = self.call(client, "FinalizeCacheEntryUpload", key, &body)?;
        if answer.as_ref().is_some_and(|answer| answer.ok) {
            return Ok(());
        }
        // An attempt whose answer was lost may have completed it.
        if self.find(client, key)?.is_some() {
            return Ok(());
        }
        let why = answer.map(|answer| shown(&answer.message)).unwrap_or_default();
        Err(protocol(&self.base, format!("it did not complete the entry {key} {why}")))
    }

    /// Calls the service. Returns `None` if it answers that the key is missing or taken. Waits while there
    /// are too many requests, up to the time limit.
    fn call(&self, client: &Client, name: &str, key: &str, body: &Value) -> Result<Option<Answer>> {
        let patient = RetryPolicy { retries: u32::MAX, ..client.retry_policy.clone() };
        let (mut attempts, mut waits) = (client.retry_policy.attempts(), patient.attempts());
        let (started, body) = (Instant::now(), body.to_string());
        loop {
            let error = match self.call_once(client, name, key, body.as_bytes()) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if matches!(error, RegistryError::Status { status: 429, .. }) {
                waits.failed_while(error, &|| started.elapsed() < self.timeout)?;
            } else {
                attempts.failed(error)?;
            }
        }
    }

    fn call_once(
        &self,
        client: &Client,
        name: &str,
        key: &str,
        body: &[u8],
    ) -> Result<Option<Answer>> {
        let what = format!("the cache entry {key}");
        let url = self.base.below(&format!("{SERVICE}/{name}"));
        let mut request =
            Request::new(Method::Post, url).header("content-type", "application/json");
        request.body = Body::Bytes(body);
        let mut response = client.http.send(&mut request, Some(&self.secret))?;
        let (status, host) = (response.status(), response.host());
        let retry_after = response.retry_after();
        let bytes = response.read_all(&what, MAX_ACTIONS_ANSWER_BYTES)?;
        if status == 200 {
            let answer = serde_json::from_slice(&bytes);
            return answer.map(Some).map_err(|_bad| {
                protocol(response.url(), format!("its answer to {name} is not valid"))
            });
        }
        let error = serde_json::from_slice(&bytes);
        let TwirpError { code, msg } =
            error.unwrap_or(TwirpError { code: String::new(), msg: String::new() });
        if matches!(code.as_str(), "already_exists" | "not_found") || status == 409 {
            return Ok(None);
        }
        if status == 404 {
            let why = "it does not have version 2 of the interface of caches";
            return Err(protocol(response.url(), why.to_owned()));
        }
        let message = if msg.is_empty() { "no reason given".to_owned() } else { shown(&msg) };
        Err(match status {
            401 => {
                let why = format!("{message}; the token is valid until its job ends");
                RegistryError::Unauthorized { host, what, status, why }
            }
            403 => RegistryError::Denied { host, what, why: message },
            _ => RegistryError::Status { host, what, status, message, retry_after },
        })
    }

    /// Parses an address that the service signed.
    fn signed(&self, text: &str) -> Result<Url> {
        let url = Url::parse(text).filter(|url| self.base.may_lead_to(url));
        // The text may have a signature.
        url.ok_or_else(|| protocol(&self.base, "its address of an entry is not valid".to_owned()))
    }
}

/// Returns the version of all entries: those of other programs differ, even under the same key.
fn version() -> String {
    Digest::of(b"rbuild-cache-1").hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(token: &str) -> ActionsOptions {
        ActionsOptions {
            url: Some("https://results.example/x/".to_owned()),
            token: Some(token.to_owned()),
            repository: "o/r".to_owned(),
            scope: "buildkit".to_owned(),
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn caches_need_an_address_and_a_token() {
        for (change, want) in [
            (ActionsOptions { url: None, ..options("t") }, "ACTIONS_RESULTS_URL"),
            (ActionsOptions { token: None, ..options("t") }, "ACTIONS_RUNTIME_TOKEN"),
            (ActionsOptions { url: Some("x".to_owned()), ..options("t") }, "must be an address"),
        ] {
            let error = ActionsCache::new(&change).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn location_keeps_branches_apart_and_debug_output_has_no_token() {
        let cache = ActionsCache::new(&options("geheim")).unwrap();
        assert_eq!(cache.location, "gha:https://results.example/x/#o/r;buildkit;");
        let shown = format!("{cache:?} {cache} {:?}", options("geheim"));
        assert!(!shown.contains("geheim"), "{shown}");
        assert_eq!(cache.document_prefixes(), ["rbuild-index-1-buildkit-e3b0c442"]);
        assert_eq!(cache.own_prefix().unwrap(), "rbuild-index-1-buildkit-e3b0c442");
        let token = token::tests::token(r#"[{"Scope":"refs/heads/main","Permission":1}]"#);
        let cache = ActionsCache::new(&options(&token)).unwrap();
        assert!(cache.location.ends_with(";buildkit;refs/heads/main"), "{}", cache.location);
        assert!(cache.own_prefix().is_err());
    }
}
