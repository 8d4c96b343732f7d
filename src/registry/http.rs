//! Sends all requests: redirects, time limits, and translation of the HTTP library's errors.
//!
//! One call is one attempt. `retry` decides about further ones, and `auth` about the
//! `Authorization` header.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http;

use crate::limits::{MAX_ERROR_BODY_BYTES, MAX_REDIRECTS};

use super::RegistryError;
use super::auth::Secret;
use super::cancel::Cancellation;
use super::connection_pool::ConnectionPools;
use super::date::parse_http_date;
use super::error::message_of;
use super::options::Options;
use super::pending_requests::PendingRequests;
use super::retry::MAX_REQUESTED_PAUSE;
use super::url::{Scheme, Url};

/// The request methods of the distribution API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

/// The body of a request.
pub(super) enum Body<'a> {
    Empty,
    Bytes(&'a [u8]),
    /// Exactly `n_bytes` of a reader, or all of it. Such a request cannot be repeated.
    Stream {
        reader: &'a mut dyn Read,
        n_bytes: Option<u64>,
    },
}

/// One request, without credentials.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body<'a>,
}

impl Request<'_> {
    /// Creates a request without a body.
    pub(super) const fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: Vec::new(), body: Body::Empty }
    }

    /// Adds a header to the request.
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Replaces the body of the request.
    pub(super) fn with_body(self, body: Body<'_>) -> Request<'_> {
        Request { method: self.method, url: self.url, headers: self.headers, body }
    }
}

/// A response, whose body is read on demand.
pub(super) struct Response {
    url: Url,
    head: http::response::Parts,
    body: ureq::BodyReader<'static>,
}

/// The HTTP client of all registries.
pub(super) struct Http {
    pools: ConnectionPools,
    /// True if every request is refused (`--offline`).
    offline: bool,
    pending: PendingRequests,
}

impl Http {
    pub(super) fn new(options: &Options, cancellation: &Cancellation) -> Self {
        let (pools, pending) =
            (ConnectionPools::new(options, cancellation), PendingRequests::default());
        Self { pools, offline: options.offline, pending }
    }

    /// Returns the requests that wait for a response.
    pub(super) const fn pending_requests(&self) -> &PendingRequests {
        &self.pending
    }

    /// Sends `request` and follows redirects of GET and HEAD. `secret` is sent to the host that the
    /// request names, and to no other.
    pub(super) fn send(
        &self,
        request: &mut Request<'_>,
        secret: Option<&Secret>,
    ) -> Result<Response, RegistryError> {
        self.send_for("", request, secret)
    }

    /// Sends `request` like [`Self::send`], with the TLS options of the registry `account`.
    pub(super) fn send_for(
        &self,
        account: &str,
        request: &mut Request<'_>,
        secret: Option<&Secret>,
    ) -> Result<Response, RegistryError> {
        let origin = request.url.origin();
        let mut url = request.url.clone();
        // After a redirect to another host the secret is dropped for good: that host could send it
        // back to any path.
        let mut secret = secret;
        for _ in 0..=MAX_REDIRECTS {
            let mut response = self.send_once(request, &url, secret, account)?;
            let follows = matches!(request.method, Method::Get | Method::Head)
                && matches!(response.status(), 301 | 302 | 303 | 307 | 308);
            if !follows {
                return Ok(response);
            }
            let next = response.location()?;
            response.discard();
            url = next;
            secret = secret.filter(|_| url.origin() == origin);
        }
        Err(protocol(&request.url, format!("more than {MAX_REDIRECTS} redirects")))
    }

    fn send_once(
        &self,
        request: &mut Request<'_>,
        url: &Url,
        secret: Option<&Secret>,
        account: &str,
    ) -> Result<Response, RegistryError> {
        if self.offline {
            return Err(RegistryError::Offline { what: url.origin() });
        }
        let mut builder =
            http::Request::builder().uri(url.for_wire()).method(match request.method {
                Method::Get => http::Method::GET,
                Method::Head => http::Method::HEAD,
                Method::Post => http::Method::POST,
                Method::Put => http::Method::PUT,
                Method::Patch => http::Method::PATCH,
                Method::Delete => http::Method::DELETE,
            });
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(secret) = secret {
            builder = builder.header("authorization", secret.for_wire());
        }
        if let Body::Stream { n_bytes: Some(n_bytes), .. } = request.body {
            builder = builder.header("content-length", n_bytes.to_string());
        }
        let agent = self.pools.of(url, account)?;
        let invalid = |_invalid: http::Error| {
            // The text of the error may quote the header, and so the secret.
            protocol(url, "the address or a header is invalid".to_owned())
        };
        // A streamed body reports its own progress.
        let is_stream = matches!(request.body, Body::Stream { .. });
        let _pending = (!is_stream).then(|| self.pending.begin(url.host().to_owned()));
        let started = Instant::now();
        let response = match &mut request.body {
            Body::Empty
                if matches!(request.method, Method::Get | Method::Head | Method::Delete) =>
            {
                agent.run(builder.body(()).map_err(invalid)?)
            }
            Body::Empty => agent.run(builder.body(b"".as_slice()).map_err(invalid)?),
            Body::Bytes(bytes) => agent.run(builder.body(*bytes).map_err(invalid)?),
            Body::Stream { reader, .. } => {
                let body = ureq::SendBody::from_reader(*reader);
                agent.run(builder.body(body).map_err(invalid)?)
            }
        };
        let response = response.map_err(|error| failure(url, error));
        log_answer(&request.method, url, &response, started);
        let (head, body) = response?.into_parts();
        Ok(Response { url: url.clone(), head, body: body.into_reader() })
    }
}

/// Logs a request and its answer. Addresses are shown without queries, which may hold signatures.
fn log_answer(
    method: &Method,
    url: &Url,
    answer: &Result<http::Response<ureq::Body>, RegistryError>,
    started: Instant,
) {
    match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            tracing::debug!(?method, %url, status, took = ?started.elapsed(), "request");
        }
        Err(error) => {
            tracing::debug!(?method, %url, %error, took = ?started.elapsed(), "request failed");
        }
    }
}

impl Response {
    pub(super) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// Returns the address of the response, after redirects.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn host(&self) -> String {
        self.url.host().to_owned()
    }

    /// Returns the first value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// Returns all values of a header.
    pub(super) fn headers(&self, name: &str) -> Vec<&str> {
        self.head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }

    /// Returns whether a `WWW-Authenticate` header contains `word`.
    pub(super) fn challenge_contains(&self, word: &str) -> bool {
        self.headers("www-authenticate").iter().any(|value| value.contains(word))
    }

    /// Returns the length of the body, if the server sent it.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Returns the address in `Location`, resolved (RFC 9110, section 10.2.2).
    pub(super) fn location(&self) -> Result<Url, RegistryError> {
        let text = self.header("location").unwrap_or_default();
        let next = self.url.join(text).filter(|_| !text.is_empty());
        let next = next.ok_or_else(|| {
            protocol(
                &self.url,
                format!("its response {} has no valid Location header", self.status()),
            )
        })?;
        if self.url.may_lead_to(&next) {
            return Ok(next);
        }
        let why = format!("it redirects from https to plain http, to {next}, which is not secure");
        Err(protocol(&self.url, why))
    }

    /// Reads the whole body, at most `max_bytes`.
    pub(super) fn read_all(
        &mut self,
        what: &str,
        max_bytes: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        let result = (&mut self.body).take(max_bytes.saturating_add(1)).read_to_end(&mut bytes);
        result.map_err(|error| broken(&self.url, error))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max_bytes {
            return Err(RegistryError::TooLarge { what: what.to_owned(), max_bytes });
        }
        Ok(bytes)
    }

    /// Reads some bytes of the body. Returns 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        loop {
            match self.body.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|error| broken(&self.url, error)),
            }
        }
    }

    /// Reads the rest of a small body, so that the connection can be reused (RFC 9112, section
    /// 9.3).
    pub(super) fn discard(&mut self) {
        // A failure that matters shows up again with the next request.
        drop(io::copy(&mut (&mut self.body).take(MAX_ERROR_BODY_BYTES), &mut io::sink()));
    }

    /// Returns the message in the body of an error response. May be empty.
    pub(super) fn error_message(mut self) -> String {
        let mut bytes = Vec::new();
        // A truncated message is better than none.
        drop((&mut self.body).take(MAX_ERROR_BODY_BYTES).read_to_end(&mut bytes));
        message_of(&bytes)
    }

    /// Returns the delay in `Retry-After` (RFC 9110, section 10.2.3). A date is compared with the
    /// server's `Date`, because the local clock may be wrong.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let (then, now) = (parse_http_date(text)?, parse_http_date(self.header("date")?)?);
        u64::try_from(then.saturating_sub(now)).ok().map(Duration::from_secs)
    }

    /// Makes the error of this response to a request for `what`.
    pub(super) fn into_error(self, what: &str) -> RegistryError {
        let (host, what, status) = (self.host(), what.to_owned(), self.status());
        let retry_after = self.retry_after();
        let scheme = self.url.scheme();
        let message = self.error_message();
        let mut why = if message.is_empty() { "no reason given".to_owned() } else { message };
        if status == 400 && scheme == Scheme::Http && why.contains("HTTPS") {
            why = format!(
                "it requires https; use --registry {host},http=false, or configure its TLS"
            );
        }
        if let Some(pause) = retry_after.filter(|pause| *pause > MAX_REQUESTED_PAUSE) {
            why.push_str(&format!("; it asks for a pause of {} s", pause.as_secs()));
        }
        match status {
            404 => RegistryError::NotFound { what },
            401 => RegistryError::Unauthorized { host, what, status, why },
            403 => RegistryError::Denied { host, what, why },
            _ => RegistryError::Status { host, what, status, message: why, retry_after },
        }
    }
}

pub(super) fn protocol(url: &Url, why: String) -> RegistryError {
    RegistryError::Protocol { host: url.host().to_owned(), why }
}

fn broken(url: &Url, source: io::Error) -> RegistryError {
    RegistryError::Broken { host: url.host().to_owned(), source }
}

/// Returns whether an error of this kind interrupts a connection, rather than preventing it.
fn interrupts_connection(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        kind,
        Kind::BrokenPipe
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::UnexpectedEof
            | Kind::TimedOut
            | Kind::WouldBlock
            | Kind::Interrupted
    )
}

/// Translates an error of the HTTP library, whose types are not used outside.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum is not ours to exhaust")]
fn failure(url: &Url, error: ureq::Error) -> RegistryError {
    use io::ErrorKind as Kind;
    let host = url.host().to_owned();
    let timed_out = |text: &str| io::Error::new(Kind::TimedOut, text);
    let is_tls =
        |error: &io::Error| error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    match error {
        ureq::Error::Io(source) if is_tls(&source) => RegistryError::Tls { host, source },
        ureq::Error::Tls(why) => RegistryError::Tls { host, source: io::Error::other(why) },
        ureq::Error::Io(source) if interrupts_connection(source.kind()) => {
            RegistryError::Broken { host, source }
        }
        ureq::Error::Io(source) => RegistryError::Unreachable { host, source },
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            RegistryError::Unreachable { host, source: timed_out("it did not answer in time") }
        }
        ureq::Error::Timeout(_) => {
            RegistryError::Broken { host, source: timed_out("it was silent for too long") }
        }
        ureq::Error::HostNotFound => {
            let source = io::Error::new(Kind::NotFound, "no such host");
            RegistryError::Unreachable { host, source }
        }
        ureq::Error::ConnectionFailed => RegistryError::Unreachable {
            host,
            source: io::Error::other("no connection could be made"),
        },
        ureq::Error::ConnectProxyFailed(_) | ureq::Error::InvalidProxyUrl => {
            let source = io::Error::other("the proxy in the environment does not work");
            RegistryError::Unreachable { host, source }
        }
        // The texts of the other errors describe bytes that were received, not headers that were
        // sent.
        ureq::Error::Protocol(error) => {
            let hint = if url.scheme() == Scheme::Http { "; it may require https" } else { "" };
            RegistryError::Protocol { host, why: format!("{error}{hint}") }
        }
        _ => RegistryError::Protocol { host, why: "its response is not HTTP".to_owned() },
    }
}
