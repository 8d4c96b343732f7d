//! Registries: resolve, pull, push, with authorization, mirrors and retries.
//!
//! The client speaks the OCI distribution API, blocking, over a pool of connections. It knows
//! digests and sizes, and verifies them; what is in a manifest, and where a blob goes, it does not
//! know. The HTTP library shows nowhere outside `http`, `agents` and `tls`. Buckets of S3 are another place for blobs.

mod auth;
mod bucket;
mod cancel;
mod challenge;
mod chunks;
mod connection_pool;
mod credentials;
mod date;
mod endpoint;
mod error;
mod fetch;
mod helper;
mod http;
mod login;
mod name_lookup;
mod options;
#[doc(hidden)]
pub mod probes;
mod pull;
mod push;
mod resolve;
mod retry;
mod source;
mod tls;
mod transfer_limit;
mod upload;
mod url;
mod waiting;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

pub use bucket::{Bucket, BucketDirectory, BucketKeys, BucketOptions, Object};
pub use cancel::Halt;
pub use date::parse_http_date;
pub use error::RegistryError;
pub use fetch::{Download, Downloaded, FileHeaders};
pub use login::{KeptIn, forget_login, keep_login};
pub use options::{Options, RegistryOptions, Security};
pub use push::Pushed;
pub use resolve::Fetched;
pub use tls::ClientCertificate;
pub use upload::Upload;
pub use waiting::Waiting;

use auth::{Auth, Scope};
use credentials::Credentials;
use endpoint::Endpoint;
use http::{Body, Http, Request, Response};
use retry::{Jitter, Schedule};
use transfer_limit::Gate;

use crate::oci::Reference;

/// A client of all registries; share one, so that connections and tokens are used again.
pub struct Client {
    options: Options,
    schedule: Schedule,
    http: Http,
    auth: Auth,
    gate: Gate,
    halt: Halt,
    /// Origins of mirrors that could not be reached, with what was said then: each costs one time
    /// limit, not many.
    silent: Mutex<BTreeMap<String, String>>,
    /// Directories of buckets that blobs may be in, by the store's name for them.
    directories: Mutex<BTreeMap<String, Arc<BucketDirectory>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// A client that has not spoken to anybody yet.
    ///
    /// # Errors
    /// [`RegistryError::BadOption`] when a mirror is no address.
    pub fn new(options: Options) -> Result<Self, RegistryError> {
        let credentials = Credentials::new(options.docker_config.clone());
        Self::with(options, credentials)
    }

    /// A client that knows one login, and none that is stored.
    ///
    /// # Errors
    /// As of [`Client::new`].
    pub fn with_login(
        options: Options,
        registry: &str,
        user: &str,
        password: &str,
    ) -> Result<Self, RegistryError> {
        Self::with(options, Credentials::just(registry, user, password))
    }

    fn with(options: Options, credentials: Credentials) -> Result<Self, RegistryError> {
        for (registry, of_registry) in &options.registries {
            for mirror in &of_registry.mirrors {
                Endpoint::mirror(mirror, registry)?;
            }
        }
        let (retries, first_delay) = (options.retries, options.first_delay);
        let jitter = Arc::new(Jitter::new(options.jitter_seed));
        let halt = Halt::default();
        let schedule =
            Schedule { retries, first_delay, reconnects: true, jitter, halt: halt.clone() };
        let gate = Gate::new(options.transfers_per_host);
        let http = Http::new(&options, &halt);
        let auth = Auth::new(credentials);
        let (silent, directories) = (Mutex::default(), Mutex::default());
        Ok(Self { options, schedule, http, auth, gate, halt, silent, directories })
    }

    /// What ends all that this client does, for others to use.
    #[must_use]
    pub fn halt(&self) -> Halt {
        self.halt.clone()
    }

    /// The requests that wait for an answer, for others to show.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.http.waiting().clone()
    }

    /// Whether every request is refused before it is sent.
    #[must_use]
    pub const fn is_offline(&self) -> bool {
        self.options.offline
    }

    /// What the first server that can gives: a mirror of `name`'s registry, or the registry.
    ///
    /// That a mirror does not have an image, or cannot be reached, says nothing about the registry
    /// itself, which is asked last and whose answer counts. Only a failure of our own side ends
    /// the search. The error of several servers has the answers of all.
    fn ask_each<T>(
        &self,
        name: &Reference,
        mut ask: impl FnMut(&Endpoint, &Schedule) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let once = Schedule { reconnects: false, ..self.schedule.clone() };
        let mut answers = Vec::new();
        for mirror in Endpoint::mirrors(name, &self.options)? {
            let origin = mirror.base.origin();
            // A panic elsewhere leaves the set as good as it was.
            let silent = || self.silent.lock().unwrap_or_else(PoisonError::into_inner);
            let known = silent().get(&origin).cloned();
            if let Some(answer) = known {
                answers.push(answer);
                continue;
            }
            let error = match ask(&mirror, &once) {
                Err(error) if !error.is_local() => error,
                result => return result,
            };
            let answer = error.at(&mirror.base.to_string());
            if error.is_silence() {
                silent().insert(origin, answer.clone());
            }
            answers.push(answer);
        }
        let endpoint = Endpoint::of(name, &self.options);
        ask(&endpoint, &self.schedule).map_err(|own| {
            if answers.is_empty() || own.is_local() {
                return own;
            }
            answers.push(own.at(&endpoint.base.to_string()));
            RegistryError::Everywhere { answers, own: Box::new(own) }
        })
    }

    /// Sends `request` to `endpoint` with what `scope` needs; one try, but for renewed tokens.
    ///
    /// A streamed body cannot be sent twice: then the answer 401 is an error, and the caller's
    /// next try will have the new token.
    fn call(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        what: &str,
        mut request: Request<'_>,
    ) -> Result<Response, RegistryError> {
        let ours = endpoint.has_origin_of(&request.url);
        let used = if ours { self.auth.header(&self.http, endpoint, scope)? } else { None };
        let response = self.http.send_for(&endpoint.account, &mut request, used.as_ref())?;
        if response.status() != 401 || !endpoint.has_origin_of(response.url()) {
            return Ok(response);
        }
        let host = response.host();
        let mut fresh =
            self.auth.answer(&self.http, endpoint, scope, what, response, used.as_ref())?;
        if matches!(request.body, Body::Stream { .. }) {
            let why = "the token ended during the upload".to_owned();
            return Err(RegistryError::Unauthorized { host, what: what.to_owned(), why });
        }
        let mut tries = self.schedule.tries();
        loop {
            let response = self.http.send_for(&endpoint.account, &mut request, Some(&fresh))?;
            if response.status() != 401 || !endpoint.has_origin_of(response.url()) {
                return Ok(response);
            }
            let used = fresh;
            // The clocks of registry and token server may differ by a little; once is enough.
            if !used.is_token() || tries.n_failures() > 0 || response.says("insufficient_scope") {
                return Err(self.auth.refused_again(endpoint, what, response));
            }
            fresh = self.auth.answer(&self.http, endpoint, scope, what, response, Some(&used))?;
            let why = "it does not accept a new token".to_owned();
            let host = host.clone();
            tries.wait(RegistryError::Unauthorized { host, what: what.to_owned(), why })?;
        }
    }
}
