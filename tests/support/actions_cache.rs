//! A server of GitHub's cache for tests: version 2 of the interface, and block blobs at signed addresses.
//!
//! The npm package `@actions/cache`, which is GitHub's own client, is run against it by a test. So it is not
//! only what rbuild expects.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests panic on failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::registry::{Answer, Request, Scripted};

const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";

/// The branches of [`token`] for the main branch, and for a pull request.
pub(crate) const MAIN: &str = r#"[{"Scope":"refs/heads/main","Permission":3}]"#;
pub(crate) const PULL: &str =
    r#"[{"Scope":"refs/pull/7/merge","Permission":3},{"Scope":"refs/heads/main","Permission":1}]"#;

/// Answers a request in place of the server. Gets the number of requests before it.
type Fault = dyn Fn(&Request, usize) -> Option<Answer> + Send + Sync;

/// A cache of a repository.
pub(crate) struct ActionsServer {
    server: Scripted,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Host and port of the server itself.
    host: String,
    entries: Vec<Entry>,
    fault: Option<Box<Fault>>,
    /// Signatures with a smaller number have expired.
    first_valid: usize,
    n_signatures: usize,
}

struct Entry {
    key: String,
    version: String,
    scope: String,
    blocks: BTreeMap<String, Vec<u8>>,
    content: Option<Vec<u8>>,
    is_complete: bool,
}

/// Returns a job's token with these branches: a JWT, whose signature nobody checks here.
pub(crate) fn token(access: &str) -> String {
    let claims = json!({ "ac": access, "nbf": 1, "exp": 9_999_999_999_u64 }).to_string();
    format!("e30.{}.hidden-signature", URL_SAFE_NO_PAD.encode(claims))
}

/// Returns the names of the branches that a request may read, and the one that it writes.
fn scopes(request: &Request) -> Option<(Vec<String>, Option<String>)> {
    let token = request.header("authorization")?.strip_prefix("Bearer ")?;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let access: Value = serde_json::from_str(claims["ac"].as_str()?).ok()?;
    let access = access.as_array()?;
    let name = |scope: &Value| scope["Scope"].as_str().unwrap().to_owned();
    let writable = access.iter().rfind(|scope| scope["Permission"].as_u64().unwrap() & 2 != 0);
    Some((access.iter().map(name).collect(), writable.map(name)))
}

fn twirp(status: u16, code: &str, message: &str) -> Answer {
    let body = json!({ "code": code, "msg": message }).to_string();
    Answer::new(status, body).header("Content-Type", "application/json")
}

fn answer(body: &Value) -> Answer {
    Answer::new(200, body.to_string()).header("Content-Type", "application/json")
}

/// Returns a text of the query, decoded as far as names of blocks need it.
fn query(request: &Request, name: &str) -> Option<String> {
    let (_, query) = request.target.split_once('?')?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
    Some(value.replace("%3D", "=").replace("%2B", "+").replace("%2F", "/"))
}

impl State {
    fn call(&mut self, name: &str, request: &Request) -> Answer {
        let Some((readable, writable)) = scopes(request) else {
            return twirp(401, "unauthenticated", "no token");
        };
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let (key, version) = (text("key"), text("version"));
        assert!(!key.contains(',') && key.len() <= 512, "{key}");
        let own = |entry: &Entry, scope: &str| {
            entry.key == key && entry.version == version && entry.scope == scope
        };
        match name {
            "GetCacheEntryDownloadURL" => {
                let restore = body["restore_keys"].as_array().cloned().unwrap_or_default();
                self.find(&key, &restore, &version, &readable)
            }
            "CreateCacheEntry" => {
                let Some(scope) = writable else {
                    return answer(
                        &json!({ "ok": false, "message": "token has no writable scopes" }),
                    );
                };
                if self.entries.iter().any(|entry| own(entry, &scope)) {
                    return twirp(409, "already_exists", "cache entry with the same key exists");
                }
                let (blocks, content) = (BTreeMap::new(), None);
                let id = self.entries.len();
                self.entries.push(Entry {
                    key,
                    version,
                    scope,
                    blocks,
                    content,
                    is_complete: false,
                });
                answer(&json!({ "ok": true, "signed_upload_url": self.sign(id) }))
            }
            "FinalizeCacheEntryUpload" => {
                let size = &body["size_bytes"];
                let size = size.as_str().map_or(size.as_u64(), |text| text.parse().ok()).unwrap();
                let scope = writable.unwrap_or_default();
                let entry =
                    self.entries.iter_mut().enumerate().find(|(_, entry)| own(entry, &scope));
                let Some((id, entry)) = entry else { return twirp(404, "not_found", "no entry") };
                let n_bytes =
                    entry.content.as_ref().map(|content| u64::try_from(content.len()).unwrap());
                if n_bytes != Some(size) {
                    return twirp(400, "invalid_argument", "the size is another one");
                }
                entry.is_complete = true;
                answer(&json!({ "ok": true, "entry_id": id.to_string() }))
            }
            _ => twirp(404, "bad_route", "no such method"),
        }
    }

    /// Finds the entry of a key, or else the newest one that begins with one of `restore`: first in the
    /// first branch.
    fn find(&mut self, key: &str, restore: &[Value], version: &str, scopes: &[String]) -> Answer {
        for scope in scopes {
            let is_here = |entry: &Entry| {
                entry.is_complete && entry.version == version && entry.scope == *scope
            };
            let exact = |entry: &Entry| is_here(entry) && entry.key == key;
            let mut found = self.entries.iter().rposition(exact);
            for prefix in restore.iter().filter_map(Value::as_str) {
                let begins = |entry: &Entry| is_here(entry) && entry.key.starts_with(prefix);
                found = found.or_else(|| self.entries.iter().rposition(begins));
            }
            if let Some(id) = found {
                let (url, key) = (self.sign(id), &self.entries[id].key);
                return answer(
                    &json!({ "ok": true, "signed_download_url": url, "matched_key": key }),
                );
            }
        }
        answer(&json!({ "ok": false, "signed_download_url": "", "matched_key": "" }))
    }

    fn sign(&mut self, id: usize) -> String {
        self.n_signatures += 1;
        format!(
            "http://{}/blobs/{id}?se=2030&sig=secret%2Bsignature{}",
            self.host, self.n_signatures
        )
    }

    /// A block blob (<https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api>).
    fn blob(&mut self, id: usize, request: &Request) -> Answer {
        let number = query(request, "sig").unwrap_or_default();
        let number = number.strip_prefix("secret+signature").and_then(|number| number.parse().ok());
        if number.is_none_or(|number: usize| number <= self.first_valid) {
            let xml = "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code></Error>";
            return Answer::new(403, xml).header("x-ms-error-code", "AuthenticationFailed");
        }
        let created = || {
            Answer::new(201, "")
                .header("ETag", "\"0x1\"")
                .header("Last-Modified", "Mon, 30 Nov 2026 00:00:00 GMT")
                .header("x-ms-request-id", "1")
                .header("x-ms-request-server-encrypted", "true")
        };
        let entry = &mut self.entries[id];
        match (request.method.as_str(), query(request, "comp").as_deref()) {
            ("PUT", Some("block")) => {
                let name = query(request, "blockid").unwrap();
                let lengths: BTreeSet<usize> = entry.blocks.keys().map(String::len).collect();
                assert!(lengths.is_empty() || lengths == BTreeSet::from([name.len()]), "{name}");
                entry.blocks.insert(name, request.body.clone());
                created()
            }
            ("PUT", Some("blocklist")) => {
                let list = String::from_utf8(request.body.clone()).unwrap();
                let names =
                    list.split("<Latest>").skip(1).map(|rest| rest.split('<').next().unwrap());
                let content: Option<Vec<&Vec<u8>>> =
                    names.map(|name| entry.blocks.get(name)).collect();
                let Some(content) = content else { return Answer::new(400, "InvalidBlockList") };
                entry.content = Some(content.into_iter().flatten().copied().collect());
                created()
            }
            ("PUT", None) if request.header("x-ms-blob-type") == Some("BlockBlob") => {
                entry.content = Some(request.body.clone());
                created()
            }
            ("GET" | "HEAD", None) => download(entry.content.as_ref().unwrap(), request),
            _ => Answer::new(400, "UnsupportedHttpVerb"),
        }
    }
}

fn download(content: &[u8], request: &Request) -> Answer {
    let headers = |answer: Answer| {
        answer
            .header("Accept-Ranges", "bytes")
            .header("ETag", "\"0x1\"")
            .header("Last-Modified", "Mon, 30 Nov 2026 00:00:00 GMT")
            .header("Content-Type", "application/octet-stream")
            .header("x-ms-blob-type", "BlockBlob")
            .header("x-ms-request-id", "1")
    };
    let range = request.header("x-ms-range").or_else(|| request.header("range"));
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return headers(Answer::new(200, content));
    };
    let (start, last) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = last.parse().map_or(content.len(), |last: usize| content.len().min(last + 1));
    let total = content.len();
    headers(Answer::new(206, &content[start..end]))
        .header("Content-Range", format!("bytes {start}-{}/{total}", end - 1))
}

impl ActionsServer {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let server = Scripted::new(move |request, n_before| {
            let mut state = shared.lock().unwrap();
            if let Some(answer) = state.fault.as_ref().and_then(|fault| fault(request, n_before)) {
                return answer;
            }
            let path = request.target.split('?').next().unwrap();
            if let Some(name) = path.strip_prefix(SERVICE) {
                return state.call(name, request);
            }
            match path.strip_prefix("/blobs/").and_then(|id| id.parse().ok()) {
                Some(id) => state.blob(id, request),
                None => Answer::new(404, "no such path"),
            }
        });
        state.lock().unwrap().host = server.host();
        Self { server, state }
    }

    /// Returns the address that `ACTIONS_RESULTS_URL` has.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.server.host())
    }

    /// Answers requests with `fault` from now on, where it returns an answer.
    pub(crate) fn fault(
        &self,
        fault: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static,
    ) {
        self.state.lock().unwrap().fault = Some(Box::new(fault));
    }

    /// Makes all addresses invalid that were signed so far.
    pub(crate) fn expire_addresses(&self) {
        let mut state = self.state.lock().unwrap();
        state.first_valid = state.n_signatures;
    }

    /// Removes the entries whose key begins with `prefix`, as GitHub does with old ones.
    pub(crate) fn evict(&self, prefix: &str) {
        for entry in &mut self.state.lock().unwrap().entries {
            if entry.key.starts_with(prefix) {
                entry.is_complete = false;
                entry.key = "evicted".to_owned();
            }
        }
    }

    /// Reserves the keys of complete entries that begin with `prefix` anew, as after uploads that broke.
    pub(crate) fn break_uploads(&self, prefix: &str) {
        for entry in &mut self.state.lock().unwrap().entries {
            if entry.key.starts_with(prefix) {
                entry.is_complete = false;
            }
        }
    }

    /// Returns the keys of all complete entries, with their branches.
    pub(crate) fn keys(&self) -> Vec<(String, String)> {
        let state = self.state.lock().unwrap();
        let complete = state.entries.iter().filter(|entry| entry.is_complete);
        complete.map(|entry| (entry.key.clone(), entry.scope.clone())).collect()
    }

    /// Returns the requests since the first `n_before`, as the name of the call or method and kind.
    pub(crate) fn calls(&self, n_before: usize) -> Vec<String> {
        let requests = self.server.requests();
        let call = |request: &Request| match request.target.strip_prefix(SERVICE) {
            Some(name) => name.to_owned(),
            None => match query(request, "comp") {
                Some(kind) => format!("{} {kind}", request.method),
                None => request.method.clone(),
            },
        };
        requests[n_before..].iter().map(call).collect()
    }

    pub(crate) fn n_requests(&self) -> usize {
        self.server.requests().len()
    }
}
