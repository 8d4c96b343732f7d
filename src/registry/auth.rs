//! Who we are to a registry: Basic, or tokens that are fetched, kept by scope, and renewed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde::Deserialize;

use crate::limits::MAX_TOKEN_BYTES;

use super::RegistryError;
use super::challenge::{Bearer, Challenge, choose};
use super::credentials::{Credential, Credentials};
use super::endpoint::Endpoint;
use super::http::{Body, Http, Method, Request, Response, protocol};
use super::url::{Url, pair};

/// What a token lives if the server does not say (distribution, "Token Authentication").
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is renewed so long before its end, for clocks and slow requests.
const MARGIN: Duration = Duration::from_secs(5);
/// No server means more than a day.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The value of an Authorization header.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    fn bearer(token: &str) -> Self {
        Self(format!("Bearer {token}"))
    }

    /// A header as somebody wrote it.
    pub(super) const fn verbatim(value: String) -> Self {
        Self(value)
    }

    pub(super) fn basic(user: &str, password: &str) -> Self {
        let text = format!("{user}:{password}");
        Self(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text)))
    }

    pub(super) fn for_wire(&self) -> &str {
        &self.0
    }

    /// Whether it came from a token server, or could have.
    pub(super) fn is_token(&self) -> bool {
        self.0.starts_with("Bearer ")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a token is to allow: `repository:<name>:<actions>`, one for each repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    /// Nothing but to be let in.
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub(super) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// The same and reading `repository`, for a mount from it.
    pub(super) fn and_pull(mut self, repository: &str) -> Self {
        self.0.push(format!("repository:{repository}:pull"));
        self
    }
}

struct Token {
    secret: Secret,
    /// When to fetch another.
    until: Instant,
}

/// A token's place; its lock is held while the token is fetched, so that many threads that need
/// the same one fetch it once.
type Slot = Arc<Mutex<Option<Token>>>;

/// What is known about the way into each host.
pub(super) struct Auth {
    credentials: Credentials,
    /// By origin, as last heard.
    challenges: Mutex<BTreeMap<String, Challenge>>,
    /// By origin and scope.
    tokens: Mutex<BTreeMap<(String, Scope), Slot>>,
}

impl Auth {
    pub(super) fn new(credentials: Credentials) -> Self {
        let (challenges, tokens) = (Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::new()));
        Self { credentials, challenges, tokens }
    }

    /// The header for a request to `endpoint`; `None` until a challenge has been heard.
    pub(super) fn header(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        scope: &Scope,
    ) -> Result<Option<Secret>, RegistryError> {
        let challenge = locked(&self.challenges).get(&endpoint.base.origin()).cloned();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => self.basic(endpoint),
            Some(Challenge::Bearer(bearer)) => {
                let slot = self.slot(endpoint, scope);
                let mut token = locked(&slot);
                if let Some(token) = token.as_ref().filter(|token| Instant::now() < token.until) {
                    return Ok(Some(token.secret.clone()));
                }
                let fetched = self.fetch(http, endpoint, scope, &bearer)?;
                let secret = fetched.secret.clone();
                *token = Some(fetched);
                Ok(Some(secret))
            }
        }
    }

    /// The header to try after `refused`, an answer 401 to a request with `used`.
    pub(super) fn answer(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        scope: &Scope,
        what: &str,
        mut refused: Response,
        used: Option<&Secret>,
    ) -> Result<Secret, RegistryError> {
        let Some(challenge) = choose(&refused.headers("www-authenticate")) else {
            let why = "it offers no way to log in that rbuild knows".to_owned();
            return Err(unauthorized(refused, what, why));
        };
        locked(&self.challenges).insert(endpoint.base.origin(), challenge);
        {
            let slot = self.slot(endpoint, scope);
            let mut token = locked(&slot);
            if token.as_ref().is_some_and(|token| Some(&token.secret) == used) {
                *token = None;
            }
        }
        match self.header(http, endpoint, scope)? {
            None => Err(unauthorized(refused, what, advice(endpoint, false))),
            Some(secret) if Some(&secret) == used => {
                Err(self.refused_again(endpoint, what, refused))
            }
            Some(secret) => {
                refused.discard();
                Ok(secret)
            }
        }
    }

    /// The error for `refused`, an answer 401 to a request with a fresh header.
    pub(super) fn refused_again(
        &self,
        endpoint: &Endpoint,
        what: &str,
        refused: Response,
    ) -> RegistryError {
        let has_credential = matches!(self.credentials.of(&endpoint.account), Ok(Some(_)));
        unauthorized(refused, what, advice(endpoint, has_credential))
    }

    fn slot(&self, endpoint: &Endpoint, scope: &Scope) -> Slot {
        let key = (endpoint.base.origin(), scope.clone());
        Arc::clone(locked(&self.tokens).entry(key).or_default())
    }

    fn basic(&self, endpoint: &Endpoint) -> Result<Option<Secret>, RegistryError> {
        let Some(credential) = self.credentials.of(&endpoint.account)? else { return Ok(None) };
        Ok(Some(match credential {
            Credential::Password { user, password } => Secret::basic(&user, &password),
            Credential::Registry(token) => Secret::bearer(&token),
            Credential::Identity(_) => {
                return Err(RegistryError::Credentials {
                    host: endpoint.account.clone(),
                    why: "an identity token is stored, but the registry wants a password"
                        .to_owned(),
                });
            }
        }))
    }

    fn fetch(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        scope: &Scope,
        bearer: &Bearer,
    ) -> Result<Token, RegistryError> {
        let credential = self.credentials.of(&endpoint.account)?;
        if let Some(Credential::Registry(token)) = &credential {
            return Ok(Token { secret: Secret::bearer(token), until: Instant::now() + MAX_LIFE });
        }
        let base = &endpoint.base;
        let realm = Url::parse(&bearer.realm)
            .ok_or_else(|| protocol(base, "the token server's address is not one".to_owned()))?;
        if !base.may_lead_to(&realm) {
            let why = format!("its token server {realm} speaks plain http, which is not safe");
            return Err(protocol(base, why));
        }
        let mut scopes = scope.0.clone();
        let known = |text: &str| scope.0.iter().any(|own| covers(own, text));
        let others = bearer.scope.iter().flat_map(|wanted| wanted.split(' '));
        scopes.extend(others.filter(|text| !text.is_empty() && !known(text)).map(str::to_owned));
        let service = bearer.service.as_deref().unwrap_or_default();
        token_from(http, endpoint, &realm, service, &scopes, credential.as_ref())
    }
}

/// Whether the scope `own` allows all that `text` asks for.
fn covers(own: &str, text: &str) -> bool {
    let split = |scope: &str| {
        let (name, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
        (name.to_owned(), actions.split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    let ((own_name, own_actions), (name, actions)) = (split(own), split(text));
    own_name == name && actions.iter().all(|action| own_actions.contains(action))
}

/// Asks a token server (distribution, "Token Authentication" and "OAuth2 Token Authentication").
fn token_from(
    http: &Http,
    endpoint: &Endpoint,
    realm: &Url,
    service: &str,
    scopes: &[String],
    credential: Option<&Credential>,
) -> Result<Token, RegistryError> {
    let now = Instant::now();
    let form;
    let (mut request, secret) = match credential {
        Some(Credential::Identity(refresh)) => {
            form = [
                pair("grant_type", "refresh_token"),
                pair("service", service),
                pair("client_id", "rbuild"),
                pair("scope", &scopes.join(" ")),
                pair("refresh_token", refresh),
            ]
            .join("&");
            let mut request = Request::new(Method::Post, realm.clone())
                .header("content-type", "application/x-www-form-urlencoded");
            request.body = Body::Bytes(form.as_bytes());
            (request, None)
        }
        Some(Credential::Password { .. } | Credential::Registry(_)) | None => {
            let mut url = realm.clone();
            if !service.is_empty() {
                url = url.with_query("service", service);
            }
            url = scopes.iter().fold(url, |url, scope| url.with_query("scope", scope));
            let mut secret = None;
            if let Some(Credential::Password { user, password }) = credential {
                url = url.with_query("account", user);
                secret = Some(Secret::basic(user, password));
            }
            (Request::new(Method::Get, url), secret)
        }
    };
    let mut response = http.send_for(&endpoint.account, &mut request, secret.as_ref())?;
    if response.status() != 200 {
        return Err(refused(response, endpoint, credential.is_some(), scopes));
    }
    let answer = response.read_all("the answer of the token server", MAX_TOKEN_BYTES)?;
    read_token(&answer, now).ok_or_else(|| protocol(realm, "its answer has no token".to_owned()))
}

/// What to do about an answer 401.
fn advice(endpoint: &Endpoint, has_credential: bool) -> String {
    let account = &endpoint.account;
    if has_credential {
        return format!(
            "it does not accept the stored credentials; log in with `rbuild login {account}`"
        );
    }
    format!("no credentials are stored; check the name, or log in with `rbuild login {account}`")
}

/// An answer 401 as an error: the server's words, if any, and ours.
fn unauthorized(response: Response, what: &str, why: String) -> RegistryError {
    let host = response.host();
    let words = response.words();
    let why = if words.is_empty() { why } else { format!("{words}; {why}") };
    RegistryError::Unauthorized { host, what: what.to_owned(), why }
}

/// What it means that a token server gave no token.
fn refused(
    response: Response,
    endpoint: &Endpoint,
    has_credential: bool,
    scopes: &[String],
) -> RegistryError {
    let what = scopes.join(" ");
    match response.status() {
        401 | 403 => unauthorized(response, &what, advice(endpoint, has_credential)),
        // A refresh token that is no longer good.
        400 if has_credential => unauthorized(response, &what, advice(endpoint, true)),
        // A token server that is not there is no missing image.
        404 => {
            let why = format!("its token server {} answered 404", response.url());
            protocol(&endpoint.base, why)
        }
        _ => response.into_error(&what),
    }
}

/// The token in a server's answer, which was asked for at `now`.
fn read_token(answer: &[u8], now: Instant) -> Option<Token> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
        #[serde(default)]
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token)?;
    let good = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let life = answer.expires_in.filter(|life| *life > 0).map_or(DEFAULT_LIFE, Duration::from_secs);
    let life = life.min(MAX_LIFE);
    let until = now + life.saturating_sub(MARGIN.min(life / 2));
    good.then(|| Token { secret: Secret::bearer(&token), until })
}

/// A panic while a lock is held leaves these maps as good as they were.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_in_both_spellings_and_end_a_little_early() {
        let now = Instant::now();
        for (answer, want) in [
            (r#"{"token":"a"}"#, Some(("Bearer a", 55.0))),
            (r#"{"access_token":"b","expires_in":300}"#, Some(("Bearer b", 295.0))),
            (r#"{"token":"","access_token":"b","expires_in":2}"#, Some(("Bearer b", 1.0))),
            (r#"{"token":"a","expires_in":0}"#, Some(("Bearer a", 55.0))),
            (r#"{"token":"a","expires_in":99999999999}"#, Some(("Bearer a", 86_395.0))),
            (r#"{"token":"a\r\nX: y"}"#, None),
            (r#"{"token":""}"#, None),
            ("[]", None),
            ("", None),
        ] {
            let token = read_token(answer.as_bytes(), now);
            let got = token.as_ref().map(|t| (t.secret.for_wire(), (t.until - now).as_secs_f64()));
            assert_eq!(got, want, "{answer}");
        }
    }

    #[test]
    fn scopes_cover_what_they_contain() {
        let own = "repository:a:pull,push";
        for (text, want) in [
            ("repository:a:pull", true),
            ("repository:a:push,pull", true),
            ("repository:a:delete", false),
            ("repository:b:pull", false),
            ("registry:catalog:*", false),
        ] {
            assert_eq!(covers(own, text), want, "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(Secret::basic("u", "p").for_wire(), "Basic dTpw");
        assert_eq!(format!("{:?}", Secret::basic("u", "p")), "Secret(..)");
    }
}
