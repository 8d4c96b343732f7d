//! Inputs of an exchange of credentials: variables, files, and requests. Scripts replace them in tests.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::registry::credentials::Credential;
use crate::registry::error::shown;
use crate::registry::url::pair;

/// A request of an exchange.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// True for POST, false for GET, unless `puts`.
    pub(super) posts: bool,
    /// True for PUT.
    pub(super) puts: bool,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

/// Omits headers and body, which are secret.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Question {
    pub(super) fn get(url: impl Into<String>) -> Self {
        let (headers, body) = (Vec::new(), Vec::new());
        Self { posts: false, puts: false, url: url.into(), headers, body }
    }

    pub(super) fn post(url: impl Into<String>, body: Vec<u8>) -> Self {
        Self { posts: true, body, ..Self::get(url) }
    }

    pub(super) fn put(url: impl Into<String>) -> Self {
        Self { puts: true, ..Self::get(url) }
    }

    /// Creates a POST of a form (RFC 1866, section 8.2.1).
    pub(super) fn form(url: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let pairs: Vec<String> = fields.iter().map(|(name, value)| pair(name, value)).collect();
        Self::post(url, pairs.join("&").into_bytes())
            .header("content-type", "application/x-www-form-urlencoded")
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The response to a [`Question`].
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Returns the body as text. Invalid UTF-8 is replaced.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A login and the time for which it is valid.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) credential: Credential,
    pub(super) lifetime: Option<Duration>,
}

impl Login {
    pub(super) fn of_user(user: &str, password: &str, lifetime: Option<Duration>) -> Self {
        let (user, password) = (user.to_owned(), password.to_owned());
        Self { credential: Credential::Password { user, password }, lifetime }
    }
}

/// Everything outside of this process that an exchange may use.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) variables: &'a BTreeMap<String, String>,
    /// Seconds since 1970.
    pub(super) now_s: i64,
    /// Reads a small file, or says why it cannot be read.
    pub(super) read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// Sends a request, or says why there is no response.
    pub(super) ask: &'a dyn Fn(&Question) -> Result<Answer, String>,
}

impl Exchange<'_> {
    /// Returns a variable, unless it is unset or empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the first variable that is set.
    pub(super) fn first_variable(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.variable(name))
    }

    /// Reads the file that a variable names, without line ends.
    pub(super) fn read(&self, path: &str) -> Result<String, String> {
        Ok((self.read)(Path::new(path))?.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Sends a request and returns the body of a success. `what` names the service in the error.
    pub(super) fn success(&self, question: &Question, what: &str) -> Result<Answer, String> {
        let answer = (self.ask)(question)?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        Err(format!("{what} answered {}{}", answer.status, reason(&answer)))
    }

    /// Sends a request and returns the JSON document of a success.
    pub(super) fn json(&self, question: &Question, what: &str) -> Result<Value, String> {
        let answer = self.success(question, what)?;
        // A message of serde may quote a secret.
        serde_json::from_slice(&answer.body)
            .map_err(|_quotes| format!("the response of {what} is not JSON"))
    }
}

/// Returns the message of a refusal, prepared for a terminal. Only members that are meant for people are
/// shown.
fn reason(answer: &Answer) -> String {
    let document: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let member = |name: &str| document.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let text =
        ["error_description", "message", "Message", "error"].iter().find_map(|name| member(name));
    let text = text.or_else(|| tag(&answer.text(), "Message").map(str::to_owned));
    text.map_or_else(String::new, |text| format!(": {}", shown(&text)))
}

/// Returns the text of the first XML element called `name`.
pub(super) fn tag<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
}

/// Returns a text member of a document.
pub(super) fn text<'v>(document: &'v Value, name: &str) -> Option<&'v str> {
    document.get(name)?.as_str().filter(|text| !text.is_empty())
}
