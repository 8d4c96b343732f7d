//! Registry client: resolves, pulls and pushes, with authorization, mirrors and retries.
//!
//! The client speaks the OCI distribution API
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md>), blocking, over a pool
//! of connections. It knows digests and sizes and verifies them. It does not know the content of a
//! manifest, nor where a blob is stored. Only `http`, `connection_pool`, `name_lookup` and `tls`
//! use the HTTP library. `bucket` stores blobs in S3 buckets instead, `actions_cache` in the cache of GitHub
//! Actions.

mod actions_cache;
mod auth;
mod blob_directory;
mod blob_locations;
mod bucket;
mod cancel;
mod challenge;
mod chunks;
mod cloud;
mod config_file;
mod connection_pool;
mod credential_helper;
mod credentials;
mod date;
mod download;
mod endpoint;
mod error;
mod http;
mod login;
mod name_lookup;
mod options;
mod pending_requests;
#[doc(hidden)]
pub mod probes;
mod pull;
mod push;
mod ranges;
mod referrers;
mod resolve;
mod retry;
mod scheme_probe;
mod seen_tags;
mod tls;
mod transfer_limit;
mod upload;
mod upload_source;
mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

pub use actions_cache::{ActionsCache, ActionsEntry, ActionsOptions, Reservation};
pub use blob_directory::{BlobDirectory, ObjectInfo, OpenFile};
pub use blob_locations::SendingLock;
pub use bucket::{Bucket, BucketDirectory, BucketKeys, BucketOptions};
pub use cancel::Cancellation;
pub use cloud::{CLOUD_VARIABLES, CloudLogin, CloudOptions};
pub use config_file::{ConfigFileError, builder_alias, set_builder_alias};
pub use date::parse_http_date;
pub use download::{Download, Downloaded, FileHeaders};
pub use error::RegistryError;
pub use login::{CredentialStore, check_login, erase_login, store_login};
pub use options::{Options, RegistryOptions, Security};
pub use pending_requests::PendingRequests;
pub use push::PushOutcome;
pub use resolve::FetchedManifest;
pub use scheme_probe::SchemeProbe;
pub use seen_tags::SeenTag;
pub use tls::{ClientCertificate, read_certificates, system_roots};
pub use upload::Upload;

use auth::{Authenticator, Scope};
use blob_locations::BlobLocations;
use credentials::Credentials;
use endpoint::Endpoint;
use http::{Body, Http, Request, Response};
use retry::{Jitter, RetryPolicy};
use seen_tags::SeenTags;
use transfer_limit::TransferLimit;

use crate::oci::Reference;
use crate::pool;

/// A client of all registries. Share one, so that connections and tokens are reused.
pub struct Client {
    options: Options,
    retry_policy: RetryPolicy,
    http: Http,
    auth: Authenticator,
    transfer_limit: TransferLimit,
    cancellation: Cancellation,
    blob_locations: BlobLocations,
    seen_tags: SeenTags,
    /// Origins of mirrors that could not be reached, with the error text. Each costs one time
    /// limit, not one for every request.
    unresponsive: Mutex<BTreeMap<String, String>>,
    /// Directories that may hold blobs, by their locations.
    directories: Mutex<BTreeMap<String, Arc<dyn BlobDirectory>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Creates a client. No connection is made yet.
    ///
    /// # Errors
    /// [`RegistryError::BadOption`] if the address of a mirror is invalid.
    pub fn new(options: Options) -> Result<Self, RegistryError> {
        let credentials = Credentials::new(&options);
        Self::with(options, credentials)
    }

    /// Creates a client that uses this login and no stored credentials.
    ///
    /// # Errors
    /// The same as [`Client::new`].
    pub fn with_login(
        options: Options,
        registry: &str,
        user: &str,
        password: &str,
    ) -> Result<Self, RegistryError> {
        Self::with(options, Credentials::single(registry, user, password))
    }

    fn with(options: Options, credentials: Credentials) -> Result<Self, RegistryError> {
        for (registry, of_registry) in &options.registries {
            for mirror in &of_registry.mirrors {
                Endpoint::mirror(mirror, registry, &options)?;
            }
        }
        let (retries, first_delay) = (options.retries, options.first_delay);
        let jitter = Arc::new(Jitter::new(options.jitter_seed));
        let cancellation = Cancellation::default();
        let retry_policy = RetryPolicy {
            retries,
            first_delay,
            reconnects: true,
            jitter,
            cancellation: cancellation.clone(),
        };
        let transfer_limit = TransferLimit::new(options.transfers_per_host);
        let http = Http::new(&options, &cancellation);
        let auth = Authenticator::new(credentials);
        let (unresponsive, directories) = (Mutex::default(), Mutex::default());
        Ok(Self {
            options,
            retry_policy,
            http,
            auth,
            transfer_limit,
            cancellation,
            blob_locations: BlobLocations::default(),
            seen_tags: SeenTags::default(),
            unresponsive,
            directories,
        })
    }

    /// Returns the handle that cancels everything this client does.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        self.cancellation.clone()
    }

    /// Returns the requests that wait for a response, for progress reports.
    #[must_use]
    pub fn pending_requests(&self) -> PendingRequests {
        self.http.pending_requests().clone()
    }

    /// Returns the keys for AWS that its SDKs would find: in variables, files, or from a service of AWS.
    ///
    /// # Errors
    /// [`RegistryError::Credentials`] if an exchange fails.
    pub fn aws_keys(&self) -> Result<Option<BucketKeys>, RegistryError> {
        let host = "AWS".to_owned();
        let found = self.options.cloud.aws_keys(&self.http);
        found.map_err(|why| RegistryError::Credentials { host, why })
    }

    /// Returns whether every request is refused before it is sent.
    #[must_use]
    pub const fn is_offline(&self) -> bool {
        self.options.offline
    }

    /// Registers a directory that may hold blobs, for the lifetime of this client.
    pub fn add_blob_directory(&self, directory: Arc<dyn BlobDirectory>) {
        let mut directories = pool::lock(&self.directories);
        directories.insert(directory.location(), directory);
    }

    /// Returns the directory at this location, if it was registered.
    #[must_use]
    pub fn blob_directory(&self, location: &str) -> Option<Arc<dyn BlobDirectory>> {
        let directories = pool::lock(&self.directories);
        directories.get(location).cloned()
    }

    /// Tries the mirrors of `name`'s registry in order, then the registry, and returns the first
    /// success.
    ///
    /// A mirror that lacks an image, or cannot be reached, says nothing about the registry itself.
    /// The registry is tried last and its answer decides. Only a local failure ends the search
    /// early. If several servers failed, the error lists all answers.
    fn try_each_endpoint<T>(
        &self,
        name: &Reference,
        mut ask: impl FnMut(&Endpoint, &RetryPolicy) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let once = RetryPolicy { reconnects: false, ..self.retry_policy.clone() };
        let mut answers = Vec::new();
        for mirror in Endpoint::mirrors(name, &self.options)? {
            let origin = mirror.base.origin();
            let unresponsive = || pool::lock(&self.unresponsive);
            let known = unresponsive().get(&origin).cloned();
            if let Some(answer) = known {
                answers.push(answer);
                continue;
            }
            let error = match ask(&mirror, &once) {
                Err(error) if !error.is_local() => error,
                result => return result,
            };
            let answer = error.describe_at(&mirror.base.to_string());
            if error.is_unresponsive() {
                unresponsive().insert(origin, answer.clone());
            }
            answers.push(answer);
        }
        let options = self.options.registry(name.registry());
        if options.is_some_and(|options| options.only_mirrors && !options.mirrors.is_empty()) {
            let what = name.to_string();
            let own = Box::new(RegistryError::NotFound { what });
            return Err(RegistryError::AllFailed { answers, own });
        }
        let endpoint = Endpoint::of(name, &self.options);
        ask(&endpoint, &self.retry_policy).map_err(|own| {
            if answers.is_empty() || own.is_local() {
                return own;
            }
            answers.push(own.describe_at(&endpoint.base.to_string()));
            RegistryError::AllFailed { answers, own: Box::new(own) }
        })
    }

    /// Sends `request` to `endpoint`, authorized for `scope`. Not retried, except with a renewed
    /// token.
    ///
    /// A streamed body cannot be sent twice: status 401 is an error then, and the caller's next
    /// attempt uses the new token.
    fn call(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        what: &str,
        mut request: Request<'_>,
    ) -> Result<Response, RegistryError> {
        let is_wide = self.auth.has_expected(endpoint, scope);
        let response = self.call_with_token(endpoint, scope, what, &mut request);
        let is_refused = match &response {
            Ok(response) => matches!(response.status(), 401 | 403),
            Err(error) => error.is_unauthorized(),
        };
        // A token for several repositories may lack the access to one of them, without an error of its
        // server.
        if is_wide && is_refused && !matches!(request.body, Body::Stream { .. }) {
            self.auth.give_up_expected(endpoint);
            return self.call_with_token(endpoint, scope, what, &mut request);
        }
        response
    }

    fn call_with_token(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        what: &str,
        request: &mut Request<'_>,
    ) -> Result<Response, RegistryError> {
        let is_same_origin = endpoint.has_origin_of(&request.url);
        let used =
            if is_same_origin { self.auth.header(&self.http, endpoint, scope)? } else { None };
        let response = self.http.send_for(&endpoint.account, request, used.as_ref())?;
        if response.status() != 401 || !endpoint.has_origin_of(response.url()) {
            return Ok(response);
        }
        let host = response.host();
        let mut renewed =
            self.auth.respond(&self.http, endpoint, scope, what, response, used.as_ref())?;
        if matches!(request.body, Body::Stream { .. }) {
            let why = "the token expired during the upload".to_owned();
            return Err(RegistryError::Unauthorized {
                host,
                what: what.to_owned(),
                status: 401,
                why,
            });
        }
        let mut attempts = self.retry_policy.attempts();
        loop {
            let response = self.http.send_for(&endpoint.account, request, Some(&renewed))?;
            if response.status() != 401 || !endpoint.has_origin_of(response.url()) {
                return Ok(response);
            }
            if self.auth.has_expected(endpoint, scope) {
                return Ok(response);
            }
            let used = renewed;
            // The clocks of registry and token server may differ, so that a new token is not valid
            // yet. One retry is enough.
            if !used.is_token()
                || attempts.n_failures() > 0
                || response.challenge_contains("insufficient_scope")
            {
                return Err(self.auth.refused_finally(&self.http, endpoint, what, response));
            }
            renewed =
                self.auth.respond(&self.http, endpoint, scope, what, response, Some(&used))?;
            let why = "the registry rejected a new token".to_owned();
            let host = host.clone();
            let what = what.to_owned();
            attempts.wait(RegistryError::Unauthorized { host, what, status: 401, why })?;
        }
    }
}
