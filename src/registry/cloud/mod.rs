//! Logins that no file has: identities of cloud services, and variables of CI systems.
//!
//! A login is looked up for the hosts of its service only, so no secret is sent elsewhere. Each exchange is
//! a pure function of variables, files and responses; [`exchange`] is their interface. Endpoints are
//! overridden by the variables of the services' SDKs.
//!
//! - `ecr`: Amazon, with `aws_keys` (where the keys come from) and `signature`
//! - `google`: a service account's key, or the metadata server
//! - `acr`: Azure, by workload identity, managed identity or client secret
//! - `variables`: GitLab's jobs, and kaniko's variables

mod acr;
mod aws_keys;
mod ecr;
mod exchange;
mod google;
mod signature;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Instant;

use exchange::{Answer, Exchange, Login, Question};

use super::bucket::BucketKeys;
use super::credentials::TimedCredential;
use super::http::{Body, Http, Method, Request};
use super::url::Url;
use crate::limits::MAX_TOKEN_BYTES;
use crate::pathio;

/// Prefixes of the environment variables that [`CloudOptions`] may need.
pub const CLOUD_VARIABLES: [&str; 11] = [
    "AWS_",
    "AZURE_",
    "CI_REGISTRY",
    "CI_JOB_TOKEN",
    "CI_DEPENDENCY_PROXY_",
    "GCE_METADATA_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HOME",
    "IDENTITY_",
    "K_SERVICE",
    "KANIKO_",
];

/// A kind of login that is built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloudLogin {
    /// Variables `KANIKO_<HOST>_USER` and `KANIKO_<HOST>_PASSWORD`.
    Variables,
    /// Google's registries.
    Google,
    /// Amazon ECR.
    Ecr,
    /// Azure Container Registry.
    Acr,
    /// The registry of the GitLab instance that runs this job.
    GitLab,
}

impl CloudLogin {
    /// All logins, in the order in which they are tried.
    pub const ALL: [Self; 5] = [Self::Variables, Self::Google, Self::Ecr, Self::Acr, Self::GitLab];

    /// Returns the name in `--credential-helpers`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Variables => "env",
            Self::Google => "google",
            Self::Ecr => "ecr",
            Self::Acr => "acr",
            Self::GitLab => "gitlab",
        }
    }
}

/// The logins that are tried, and what they may use.
#[derive(Clone)]
pub struct CloudOptions {
    /// The logins, in this order.
    pub logins: Vec<CloudLogin>,
    /// Environment variables with one of the prefixes [`CLOUD_VARIABLES`].
    pub variables: BTreeMap<String, String>,
    /// The time when `started` was taken, in seconds since 1970.
    pub now_s: i64,
    /// The moment of `now_s`: signatures need the time of their request.
    pub started: Instant,
}

impl Default for CloudOptions {
    fn default() -> Self {
        let (logins, variables) = (Vec::new(), BTreeMap::new());
        Self { logins, variables, now_s: 0, started: Instant::now() }
    }
}

/// Omits the variables, which may be secret.
impl fmt::Debug for CloudOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudOptions").field("logins", &self.logins).finish_non_exhaustive()
    }
}

impl CloudOptions {
    /// Returns the login for a registry. The error says why an exchange failed.
    pub(super) fn login(&self, http: &Http, host: &str) -> Result<Option<TimedCredential>, String> {
        let ask = |question: &Question| send(http, question);
        let found = find(&self.logins, &self.exchange(&ask), host)?;
        Ok(found.map(|login| {
            let renew_at = login.lifetime.map(|lifetime| Instant::now() + lifetime / 2);
            TimedCredential { credential: login.credential, renew_at }
        }))
    }

    /// Returns the keys for AWS that its SDKs would find.
    pub(super) fn aws_keys(&self, http: &Http) -> Result<Option<BucketKeys>, String> {
        let ask = |question: &Question| send(http, question);
        aws_keys::find(&self.exchange(&ask))
    }

    fn exchange<'a>(
        &'a self,
        ask: &'a dyn Fn(&Question) -> Result<Answer, String>,
    ) -> Exchange<'a> {
        let elapsed = i64::try_from(self.started.elapsed().as_secs()).unwrap_or(0);
        let now_s = self.now_s.saturating_add(elapsed);
        Exchange { variables: &self.variables, now_s, read: &read, ask }
    }
}

/// Returns the first login for `host`.
fn find(
    logins: &[CloudLogin],
    exchange: &Exchange<'_>,
    host: &str,
) -> Result<Option<Login>, String> {
    for login in logins {
        let found = match login {
            CloudLogin::Variables => variables::own(exchange, host),
            CloudLogin::Google if google::serves(host) => google::login(exchange)?,
            CloudLogin::Ecr if ecr::serves(host) => ecr::login(exchange, host)?,
            CloudLogin::Acr if acr::serves(host) => acr::login(exchange, host)?,
            CloudLogin::GitLab => variables::gitlab(exchange, host),
            CloudLogin::Google | CloudLogin::Ecr | CloudLogin::Acr => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |why: &dyn fmt::Display| format!("cannot read {}: {why}", path.display());
    let bytes = pathio::read(path, MAX_TOKEN_BYTES).map_err(|error| failed(&error.kind()))?;
    String::from_utf8(bytes).map_err(|_invalid| failed(&"it is not text"))
}

fn send(http: &Http, question: &Question) -> Result<Answer, String> {
    let url = Url::parse(&question.url).ok_or("the address of a token endpoint is invalid")?;
    let method = match (question.posts, question.puts) {
        (true, _) => Method::Post,
        (false, true) => Method::Put,
        (false, false) => Method::Get,
    };
    let mut request = Request::new(method, url);
    request.headers.clone_from(&question.headers);
    request.body = Body::Bytes(&question.body);
    if method == Method::Get {
        request.body = Body::Empty;
    }
    let failed = |error: super::RegistryError| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let mut response = http.send(&mut request, None).map_err(failed)?;
    let body = response.read_all("the response of a token endpoint", MAX_TOKEN_BYTES);
    Ok(Answer { status: response.status(), body: body.map_err(failed)? })
}
