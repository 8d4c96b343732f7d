//! The one place that sends requests: redirects, time limits, and the end of the HTTP library.
//!
//! One call is one try; `retry` knows about more, and `auth` knows what goes into Authorization.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http;

use crate::limits::{MAX_ERROR_BODY_BYTES, MAX_REDIRECTS};

use super::RegistryError;
use super::auth::Secret;
use super::cancel::Halt;
use super::connection_pool::Agents;
use super::date::parse_http_date;
use super::error::message_of;
use super::options::Options;
use super::retry::MAX_ASKED;
use super::url::{Scheme, Url};
use super::waiting::Waiting;

/// The requests that a registry knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

/// What a request carries.
pub(super) enum Body<'a> {
    Empty,
    Bytes(&'a [u8]),
    /// Exactly `n_bytes` of a reader, or all that it gives; such a request cannot be repeated.
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
    /// A request without body.
    pub(super) const fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: Vec::new(), body: Body::Empty }
    }

    /// The same with one more header.
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with another body.
    pub(super) fn with_body(self, body: Body<'_>) -> Request<'_> {
        Request { method: self.method, url: self.url, headers: self.headers, body }
    }
}

/// An answer; its body is read from it.
pub(super) struct Response {
    url: Url,
    head: http::response::Parts,
    body: ureq::BodyReader<'static>,
}

/// Sends requests.
pub(super) struct Http {
    agents: Agents,
    /// Whether nothing is sent.
    offline: bool,
    waiting: Waiting,
}

impl Http {
    pub(super) fn new(options: &Options, halt: &Halt) -> Self {
        let (agents, waiting) = (Agents::new(options, halt), Waiting::default());
        Self { agents, offline: options.offline, waiting }
    }

    /// The requests that wait for an answer.
    pub(super) const fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Sends `request`, following redirects of GET and HEAD. `secret` goes to the host that the
    /// request names, and to no other.
    pub(super) fn send(
        &self,
        request: &mut Request<'_>,
        secret: Option<&Secret>,
    ) -> Result<Response, RegistryError> {
        self.send_for("", request, secret)
    }

    /// The same for the sake of the registry `account`.
    pub(super) fn send_for(
        &self,
        account: &str,
        request: &mut Request<'_>,
        secret: Option<&Secret>,
    ) -> Result<Response, RegistryError> {
        let origin = request.url.origin();
        let mut url = request.url.clone();
        // Once a redirect left the host, coming back to it does not bring the secret back.
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
        Err(protocol(&request.url, format!("it redirects more than {MAX_REDIRECTS} times")))
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
        let agent = self.agents.of(url, account)?;
        let invalid = |_invalid: http::Error| {
            // The text of the error may hold the header, and that the secret.
            protocol(url, "an address or a header cannot be sent".to_owned())
        };
        // A body that is sent shows its own progress.
        let is_stream = matches!(request.body, Body::Stream { .. });
        let _waits = (!is_stream).then(|| self.waiting.begin(url.host().to_owned()));
        let started = Instant::now();
        let answer = match &mut request.body {
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
        let answer = answer.map_err(|error| failure(url, error));
        log_answer(&request.method, url, &answer, started);
        let (head, body) = answer?.into_parts();
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

    /// Where the answer came from, after redirects.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn host(&self) -> String {
        self.url.host().to_owned()
    }

    /// A header's first value.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// All values of a header.
    pub(super) fn headers(&self, name: &str) -> Vec<&str> {
        self.head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }

    /// Whether the challenge of an answer 401 has this word in it.
    pub(super) fn says(&self, word: &str) -> bool {
        self.headers("www-authenticate").iter().any(|value| value.contains(word))
    }

    /// The length of the body, if the server says.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// The address in `Location`.
    pub(super) fn location(&self) -> Result<Url, RegistryError> {
        let text = self.header("location").unwrap_or_default();
        let next = self.url.join(text).filter(|_| !text.is_empty());
        let next = next.ok_or_else(|| {
            protocol(&self.url, format!("its answer {} has no good Location", self.status()))
        })?;
        if self.url.may_lead_to(&next) {
            return Ok(next);
        }
        let why = format!("it leads from https to plain http, to {next}, which is not safe");
        Err(protocol(&self.url, why))
    }

    /// Reads the whole body.
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

    /// Reads some of the body, 0 bytes at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        loop {
            match self.body.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|error| broken(&self.url, error)),
            }
        }
    }

    /// Reads what is left of a small body, so that the connection can be used again.
    pub(super) fn discard(&mut self) {
        // A failure here shows again, if it matters, with the next request.
        drop(io::copy(&mut (&mut self.body).take(MAX_ERROR_BODY_BYTES), &mut io::sink()));
    }

    /// What the server says in the body of an error; may be empty.
    pub(super) fn words(mut self) -> String {
        let mut bytes = Vec::new();
        // Half a message is better than none.
        drop((&mut self.body).take(MAX_ERROR_BODY_BYTES).read_to_end(&mut bytes));
        message_of(&bytes)
    }

    /// How long the server asks us to wait (RFC 9110, 10.2.3). A date is measured by the server's own
    /// clock: ours may be wrong.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let (then, now) = (parse_http_date(text)?, parse_http_date(self.header("date")?)?);
        u64::try_from(then.saturating_sub(now)).ok().map(Duration::from_secs)
    }

    /// The error that this answer means for `what`.
    pub(super) fn into_error(self, what: &str) -> RegistryError {
        let (host, what, status) = (self.host(), what.to_owned(), self.status());
        let retry_after = self.retry_after();
        let scheme = self.url.scheme();
        let words = self.words();
        let mut why = if words.is_empty() { "it gives no reason".to_owned() } else { words };
        if status == 400 && scheme == Scheme::Http && why.contains("HTTPS") {
            why = format!("it speaks https: say --registry {host},http=false, or more of its TLS");
        }
        if let Some(pause) = retry_after.filter(|pause| *pause > MAX_ASKED) {
            why.push_str(&format!("; it asks to be left alone for {} s", pause.as_secs()));
        }
        match status {
            404 => RegistryError::NotFound { what },
            401 => RegistryError::Unauthorized { host, what, why },
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

/// Whether an error of this kind is met on a connection rather than while making one.
fn is_mid_way(kind: io::ErrorKind) -> bool {
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

/// What the library's error means; its own types end here.
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
        ureq::Error::Io(source) if is_mid_way(source.kind()) => {
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
            let source = io::Error::new(Kind::NotFound, "there is no host of this name");
            RegistryError::Unreachable { host, source }
        }
        ureq::Error::ConnectionFailed => RegistryError::Unreachable {
            host,
            source: io::Error::other("no connection came about"),
        },
        ureq::Error::ConnectProxyFailed(_) | ureq::Error::InvalidProxyUrl => {
            let source = io::Error::other("the proxy that the environment names does not work");
            RegistryError::Unreachable { host, source }
        }
        // The texts of the others are about bytes on the wire, not about headers that we sent.
        ureq::Error::Protocol(error) => {
            let hint = if url.scheme() == Scheme::Http { "; does it want https?" } else { "" };
            RegistryError::Protocol { host, why: format!("{error}{hint}") }
        }
        _ => RegistryError::Protocol { host, why: "its answer is no HTTP".to_owned() },
    }
}
