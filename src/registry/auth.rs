//! Authorization: Basic credentials, or bearer tokens that are fetched, cached by scope and
//! renewed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde::Deserialize;

use crate::limits::MAX_TOKEN_BYTES;
use crate::pool;

use super::RegistryError;
use super::challenge::{Bearer, Challenge, choose};
use super::credentials::{Credential, Credentials};
use super::endpoint::Endpoint;
use super::http::{Body, Http, Method, Request, Response, protocol};
use super::url::{Url, pair};

/// Lifetime of a token whose server names none
/// (<https://distribution.github.io/distribution/spec/auth/token/>, `expires_in`).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// Time before its expiry at which a token is renewed, for clock differences and slow requests.
const RENEWAL_MARGIN: Duration = Duration::from_secs(5);
/// Upper bound of a token's lifetime, against absurd values of `expires_in`.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The value of an `Authorization` header (RFC 9110, section 11.6.2).
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    fn bearer(token: &str) -> Self {
        Self(format!("Bearer {token}"))
    }

    /// Takes a header value that the user wrote.
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

    /// Returns whether the value is a bearer token, which can expire.
    pub(super) fn is_token(&self) -> bool {
        self.0.starts_with("Bearer ")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The access that a token must grant: `repository:<name>:<actions>` for each repository
/// (<https://distribution.github.io/distribution/spec/auth/scope/>).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    /// Returns the empty scope, for a login check.
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub(super) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// Returns whether a token for this scope grants all of `other`.
    fn includes(&self, other: &Self) -> bool {
        let granted = |text: &String| self.0.iter().any(|own| covers(own, text));
        other.0.iter().all(granted)
    }

    /// Adds the access of `other`.
    fn add(&mut self, other: &Self) {
        for text in &other.0 {
            if !self.0.iter().any(|own| covers(own, text)) {
                self.0.retain(|own| !covers(text, own));
                self.0.push(text.clone());
            }
        }
    }

    /// Adds read access to `repository`, to mount a blob from it.
    pub(super) fn and_pull(mut self, repository: &str) -> Self {
        self.0.push(format!("repository:{repository}:pull"));
        self
    }
}

struct Token {
    secret: Secret,
    /// Time at which it is renewed.
    renew_at: Instant,
}

/// Cell of a token. Its lock is held during the fetch, so that threads which need the same token
/// fetch it once.
type TokenSlot = Arc<Mutex<Option<Token>>>;

/// Credentials, challenges and tokens of all hosts.
pub(super) struct Authenticator {
    credentials: Credentials,
    /// The last challenge of each origin.
    challenges: Mutex<BTreeMap<String, Challenge>>,
    /// Tokens by origin and scope.
    tokens: Mutex<BTreeMap<(String, Scope), TokenSlot>>,
    /// The access that will be needed, by origin: one token grants all of it. `None` if such a token was
    /// refused.
    expected: Mutex<BTreeMap<String, Option<Scope>>>,
}

impl Authenticator {
    pub(super) fn new(credentials: Credentials) -> Self {
        let challenges = Mutex::default();
        let (tokens, expected) = (Mutex::default(), Mutex::default());
        Self { credentials, challenges, tokens, expected }
    }

    /// Adds to the access that will be needed. A token that grants it serves every request that needs a part
    /// of it.
    pub(super) fn expect(&self, endpoint: &Endpoint, scope: &Scope) {
        let mut expected = locked(&self.expected);
        let all = expected.entry(endpoint.base.origin()).or_insert_with(|| Some(Scope::none()));
        if let Some(all) = all {
            all.add(scope);
        }
    }

    /// Returns the scope of the token for a request that needs `scope`.
    fn token_scope(&self, endpoint: &Endpoint, scope: &Scope) -> Scope {
        let expected = locked(&self.expected);
        let all = expected.get(&endpoint.base.origin()).and_then(Option::as_ref);
        all.filter(|all| all.includes(scope)).unwrap_or(scope).clone()
    }

    /// Returns whether the token for `scope` grants more than that.
    pub(super) fn has_expected(&self, endpoint: &Endpoint, scope: &Scope) -> bool {
        self.token_scope(endpoint, scope) != *scope
    }

    /// Gives up the token for all expected access: a token server may refuse a token for several
    /// repositories, or grant only a part.
    pub(super) fn give_up_expected(&self, endpoint: &Endpoint) {
        locked(&self.expected).insert(endpoint.base.origin(), None);
    }

    /// Returns the header for a request to `endpoint`. `None` until the endpoint has sent a
    /// challenge.
    pub(super) fn header(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        scope: &Scope,
    ) -> Result<Option<Secret>, RegistryError> {
        let challenge = locked(&self.challenges).get(&endpoint.base.origin()).cloned();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => self.basic(http, endpoint),
            Some(Challenge::Bearer(bearer)) => self.token(http, endpoint, scope, &bearer).map(Some),
        }
    }

    fn token(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        scope: &Scope,
        bearer: &Bearer,
    ) -> Result<Secret, RegistryError> {
        let wanted = self.token_scope(endpoint, scope);
        let slot = self.slot(endpoint, &wanted);
        let mut token = locked(&slot);
        if let Some(token) = token.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(token.secret.clone());
        }
        match self.fetch(http, endpoint, &wanted, bearer) {
            Ok(fetched) => {
                let secret = fetched.secret.clone();
                *token = Some(fetched);
                Ok(secret)
            }
            Err(RegistryError::Unauthorized { .. } | RegistryError::Denied { .. })
                if wanted != *scope =>
            {
                drop(token);
                self.give_up_expected(endpoint);
                self.token(http, endpoint, scope, bearer)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the header to retry with after `refused`, a response 401 to a request with `used`.
    pub(super) fn respond(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        scope: &Scope,
        what: &str,
        mut refused: Response,
        used: Option<&Secret>,
    ) -> Result<Secret, RegistryError> {
        let Some(challenge) = choose(&refused.headers("www-authenticate")) else {
            let why = "it offers no supported authentication scheme".to_owned();
            return Err(unauthorized(refused, what, why));
        };
        locked(&self.challenges).insert(endpoint.base.origin(), challenge);
        {
            let slot = self.slot(endpoint, &self.token_scope(endpoint, scope));
            let mut token = locked(&slot);
            if token.as_ref().is_some_and(|token| Some(&token.secret) == used) {
                *token = None;
            }
        }
        match self.header(http, endpoint, scope)? {
            None => Err(unauthorized(refused, what, self.advice(endpoint, false))),
            Some(secret) if Some(&secret) == used => {
                Err(self.refused_finally(http, endpoint, what, refused))
            }
            Some(secret) => {
                refused.discard();
                Ok(secret)
            }
        }
    }

    /// Makes the error for `refused`, a response 401 to a request with a fresh header.
    pub(super) fn refused_finally(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        what: &str,
        refused: Response,
    ) -> RegistryError {
        let has_credential = matches!(self.credentials.of(http, &endpoint.account), Ok(Some(_)));
        unauthorized(refused, what, self.advice(endpoint, has_credential))
    }

    /// Says what the user can do about a response 401.
    fn advice(&self, endpoint: &Endpoint, has_credential: bool) -> String {
        match self.credentials.failure(&endpoint.account) {
            Some(why) => why,
            None => advice(endpoint, has_credential),
        }
    }

    fn slot(&self, endpoint: &Endpoint, scope: &Scope) -> TokenSlot {
        let key = (endpoint.base.origin(), scope.clone());
        Arc::clone(locked(&self.tokens).entry(key).or_default())
    }

    fn basic(&self, http: &Http, endpoint: &Endpoint) -> Result<Option<Secret>, RegistryError> {
        let Some(credential) = self.credentials.of(http, &endpoint.account)? else {
            return Ok(None);
        };
        Ok(Some(match credential {
            Credential::Password { user, password } => Secret::basic(&user, &password),
            Credential::Registry(token) => Secret::bearer(&token),
            Credential::Identity(_) => {
                return Err(RegistryError::Credentials {
                    host: endpoint.account.clone(),
                    why: "an identity token is stored, but the registry requires a password"
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
        let credential = self.credentials.of(http, &endpoint.account)?;
        if let Some(Credential::Registry(token)) = &credential {
            return Ok(Token {
                secret: Secret::bearer(token),
                renew_at: Instant::now() + MAX_LIFETIME,
            });
        }
        let base = &endpoint.base;
        let realm = Url::parse(&bearer.realm).ok_or_else(|| {
            protocol(base, "the address of its token server is invalid".to_owned())
        })?;
        if !base.may_lead_to(&realm) {
            let why = format!("its token server {realm} uses plain http, which is not secure");
            return Err(protocol(base, why));
        }
        let mut scopes = scope.0.clone();
        let known = |text: &str| scope.0.iter().any(|own| covers(own, text));
        let others = bearer.scope.iter().flat_map(|wanted| wanted.split(' '));
        scopes.extend(others.filter(|text| !text.is_empty() && !known(text)).map(str::to_owned));
        let service = bearer.service.as_deref().unwrap_or_default();
        let failed =
            |error: RegistryError| match (error, self.credentials.failure(&endpoint.account)) {
                (RegistryError::Unauthorized { host, what, status, .. }, Some(why)) => {
                    RegistryError::Unauthorized { host, what, status, why }
                }
                (error, _) => error,
            };
        token_from(http, endpoint, &realm, service, &scopes, credential.as_ref()).map_err(failed)
    }
}

/// Returns whether the scope `own` includes all access of the scope `text`.
fn covers(own: &str, text: &str) -> bool {
    let split = |scope: &str| {
        let (name, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
        (name.to_owned(), actions.split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    let ((own_name, own_actions), (name, actions)) = (split(own), split(text));
    own_name == name && actions.iter().all(|action| own_actions.contains(action))
}

/// Requests a token (<https://distribution.github.io/distribution/spec/auth/token/>). An identity
/// token is exchanged as an OAuth2 refresh token
/// (<https://distribution.github.io/distribution/spec/auth/oauth/>).
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
    let answer = response.read_all("the response of the token server", MAX_TOKEN_BYTES)?;
    read_token(&answer, now).ok_or_else(|| protocol(realm, "its response has no token".to_owned()))
}

/// Says what the user can do about a response 401.
fn advice(endpoint: &Endpoint, has_credential: bool) -> String {
    let account = &endpoint.account;
    if has_credential {
        return format!("it rejected the stored credentials; log in with `rbuild login {account}`");
    }
    format!("no credentials are stored; check the name, or log in with `rbuild login {account}`")
}

/// Makes the error for a response 401: the server's message, if any, and `why`.
fn unauthorized(response: Response, what: &str, why: String) -> RegistryError {
    let host = response.host();
    let status = response.status();
    let message = response.error_message();
    let why = if message.is_empty() { why } else { format!("{message}; {why}") };
    RegistryError::Unauthorized { host, what: what.to_owned(), status, why }
}

/// Makes the error for a response of a token server without a token.
fn refused(
    response: Response,
    endpoint: &Endpoint,
    has_credential: bool,
    scopes: &[String],
) -> RegistryError {
    let what = scopes.join(" ");
    match response.status() {
        401 | 403 => unauthorized(response, &what, advice(endpoint, has_credential)),
        // The refresh token expired or was revoked: `invalid_grant` (RFC 6749, section 5.2).
        400 if has_credential => unauthorized(response, &what, advice(endpoint, true)),
        // A 404 from the token server must not be reported as a missing image.
        404 => {
            let why = format!("its token server {} answered 404", response.url());
            protocol(&endpoint.base, why)
        }
        _ => response.into_error(&what),
    }
}

/// Reads the token from the response to a request that was sent at `now`.
fn read_token(answer: &[u8], now: Instant) -> Option<Token> {
    #[derive(Deserialize)]
    struct TokenResponse {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
        #[serde(default)]
        expires_in: Option<u64>,
    }
    let answer: TokenResponse = serde_json::from_slice(answer).ok()?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token)?;
    let good = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let lifetime = answer
        .expires_in
        .filter(|lifetime| *lifetime > 0)
        .map_or(DEFAULT_LIFETIME, Duration::from_secs);
    let lifetime = lifetime.min(MAX_LIFETIME);
    let renew_at = now + lifetime.saturating_sub(RENEWAL_MARGIN.min(lifetime / 2));
    good.then(|| Token { secret: Secret::bearer(&token), renew_at })
}

/// Locks `mutex`. A panic elsewhere leaves these maps consistent.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    pool::lock(mutex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_from_both_members_and_renewed_early() {
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
            let got =
                token.as_ref().map(|t| (t.secret.for_wire(), (t.renew_at - now).as_secs_f64()));
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
    fn scopes_are_added_without_what_they_include() {
        let mut all = Scope::none();
        all.add(&Scope::pull("a"));
        all.add(&Scope::push("a"));
        all.add(&Scope::pull("a").and_pull("b"));
        assert_eq!(all.0, ["repository:a:pull,push", "repository:b:pull"]);
        assert!(all.includes(&Scope::push("a").and_pull("b")) && !all.includes(&Scope::push("b")));
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(Secret::basic("u", "p").for_wire(), "Basic dTpw");
        assert_eq!(format!("{:?}", Secret::basic("u", "p")), "Secret(..)");
    }
}
