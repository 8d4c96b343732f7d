//! The one error of this module: a variant for each thing that a caller may act on.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::oci::Digest;

/// Why a registry did not give or take what it was asked to.
///
/// No variant holds a secret: addresses come without their query, and text that a server sent is
/// cut and freed of control characters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry, and each of its mirrors, answered that there is no such thing.
    #[error("{what} does not exist; check the name, and that it was pushed")]
    NotFound {
        /// An image, or a blob of a repository.
        what: String,
    },
    /// Credentials are missing, or the registry does not accept them.
    #[error("{host} does not let us in for {what}: {why}")]
    Unauthorized {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The registry knows who asks, and refuses.
    #[error("{host} does not allow access to {what}: {why}")]
    Denied {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's words.
        why: String,
    },
    /// No connection came about.
    #[error("cannot reach {host}; is the registry running there, and is the network up?")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A connection ended, or fell silent, in the middle of a request or an answer.
    #[error("the connection to {host} broke")]
    Broken {
        /// Host and port.
        host: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The host is there, but no secure connection to it is possible.
    #[error(
        "no secure connection to {host} is possible; if it speaks plain http, say --registry \
         {host},http, and if its certificate or authority is your own, give that with --ca FILE"
    )]
    Tls {
        /// Host and port.
        host: String,
        /// What the handshake met.
        source: io::Error,
    },
    /// An answer that nothing else here stands for.
    #[error("{host} answered {status} for {what}: {message}")]
    Status {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The registry's words.
        message: String,
        /// How long the registry asks us to wait.
        retry_after: Option<Duration>,
    },
    /// Something was pushed, the answer was not the registry's, and it is not there.
    #[error(
        "{host} answered {status} and has not stored {what}; is a proxy between, which answers by itself?"
    )]
    NotStored {
        /// Host and port.
        host: String,
        /// The blob or manifest that was pushed.
        what: String,
        /// The HTTP status.
        status: u16,
    },
    /// The bytes are not those that the digest names.
    #[error("{what} has wrong content: want {want}, got {got}")]
    WrongDigest {
        /// What was read or written.
        what: String,
        /// What was asked for.
        want: Digest,
        /// What came.
        got: Digest,
    },
    /// There are fewer or more bytes than the descriptor says.
    #[error("{what} has the wrong size: want {want} bytes, got {got}")]
    WrongSize {
        /// What was read or written.
        what: String,
        /// What the descriptor says.
        want: u64,
        /// What came; reading stops soon after too many.
        got: u64,
    },
    /// A document is longer than rbuild reads.
    #[error("{what} is longer than the limit of {max_bytes} bytes")]
    TooLarge {
        /// Which document.
        what: String,
        /// The limit.
        max_bytes: u64,
    },
    /// The server, or an address in the options, does not keep to the protocol.
    #[error("{host} does not speak the registry protocol as it should: {why}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What is wrong.
        why: String,
    },
    /// A file with certificates or a key cannot be used.
    #[error("cannot use {} for TLS: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An option that cannot be used.
    #[error("cannot use the registry option {option}: {why}")]
    BadOption {
        /// Which one.
        option: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The stored credentials for a host cannot be had.
    #[error("cannot get the credentials for {host}: {why}")]
    Credentials {
        /// The registry's name.
        host: String,
        /// What is wrong, and where.
        why: String,
    },
    /// Mirrors and last the registry were asked, and none of them gave it.
    #[error("{}", answers.join("; "))]
    Everywhere {
        /// The answer of each place that was asked, in order, as in
        /// `http://mirror.example does not have it`.
        answers: Vec<String>,
        /// The registry's own, which counts.
        own: Box<RegistryError>,
    },
    /// The network is not to be used.
    #[error("{what} would have to be fetched, which --offline forbids")]
    Offline {
        /// What was wanted, or where from.
        what: String,
    },
    /// Reading or writing on our own side failed.
    #[error("cannot {verb} {what}")]
    Local {
        /// `store` or `read`.
        verb: &'static str,
        /// Which blob.
        what: String,
        /// The reader's or writer's answer.
        source: io::Error,
    },
}

impl RegistryError {
    /// The registry's own answer, where its mirrors were asked before it.
    #[must_use]
    pub fn own(&self) -> &Self {
        if let Self::Everywhere { own, .. } = self { own } else { self }
    }

    /// The answers of all places that were asked, if there were several.
    #[must_use]
    pub fn answers(&self) -> &[String] {
        if let Self::Everywhere { answers, .. } = self { answers } else { &[] }
    }

    /// True if the host did not answer, or not in time.
    pub(super) fn is_silence(&self) -> bool {
        let is_slow = |source: &io::Error| source.kind() == io::ErrorKind::TimedOut;
        matches!(self, Self::Unreachable { .. })
            || matches!(self, Self::Broken { source, .. } if is_slow(source))
    }

    /// The error as the answer of the server at the address `place`.
    pub(super) fn at(&self, place: &str) -> String {
        let place = place.trim_end_matches('/');
        match self {
            Self::NotFound { .. } => format!("{place} does not have it"),
            Self::Unreachable { source, .. } => format!("{place} cannot be reached: {source}"),
            Self::Broken { source, .. } => format!("the connection to {place} broke: {source}"),
            Self::Tls { source, .. } => {
                format!("no secure connection to {place} is possible: {source}")
            }
            Self::Unauthorized { why, .. } => format!("{place} does not let us in: {why}"),
            Self::Denied { why, .. } => format!("{place} does not allow access: {why}"),
            Self::Status { status, message, .. } => format!("{place} answered {status}: {message}"),
            other @ (Self::NotStored { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::TooLarge { .. }
            | Self::Protocol { .. }
            | Self::Certificate { .. }
            | Self::BadOption { .. }
            | Self::Credentials { .. }
            | Self::Everywhere { .. }
            | Self::Offline { .. }
            | Self::Local { .. }) => format!("{place}: {other}"),
        }
    }

    /// Returns whether the same request may succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        match self.own() {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => {
                matches!(*status, 408 | 429) || (*status >= 500 && !matches!(*status, 501 | 505))
            }
            Self::NotFound { .. }
            | Self::NotStored { .. }
            | Self::Unauthorized { .. }
            | Self::Denied { .. }
            | Self::Tls { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::TooLarge { .. }
            | Self::Protocol { .. }
            | Self::Certificate { .. }
            | Self::BadOption { .. }
            | Self::Credentials { .. }
            | Self::Everywhere { .. }
            | Self::Offline { .. }
            | Self::Local { .. } => false,
        }
    }

    /// Returns whether the registry itself answered that it does not have it.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.own(), Self::NotFound { .. })
    }

    pub(super) const fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Unauthorized { .. })
    }

    /// Whether there was too much in one request.
    pub(super) const fn is_too_long(&self) -> bool {
        matches!(self, Self::Status { status: 413, .. })
    }

    /// Whether the bytes were to go to another place than the registry is at.
    pub(super) const fn is_other_place(&self) -> bool {
        matches!(self, Self::Status { status: 416, .. })
    }

    /// Whether asking another server cannot help: our own side failed, or wants no network.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.own(), Self::Local { .. } | Self::Offline { .. })
    }

    /// How long the server asked us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Status { retry_after, .. } = self { *retry_after } else { None }
    }
}

/// The longest text of a server that an error shows, in characters.
const MAX_SHOWN_CHARS: usize = 500;

/// A server's text, fit for a terminal: one line, no control characters, not too long.
pub(super) fn shown(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_control() || c.is_whitespace()).collect();
    let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_SHOWN_CHARS {
        return line;
    }
    line.chars().take(MAX_SHOWN_CHARS).chain(['…']).collect()
}

/// What a registry says in the body of an error (distribution-spec, "Error Codes"): its codes and
/// messages, or else the text itself unless it is a page of HTML; empty when there is nothing.
pub(super) fn message_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        // What token servers write instead.
        #[serde(default)]
        details: String,
        #[serde(default)]
        error_description: String,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = String::from_utf8_lossy(body);
    let Ok(parsed) = serde_json::from_slice::<Body>(body) else {
        let is_text = !text.trim_start().starts_with(['<', '{', '[']) && !text.trim().is_empty();
        return if is_text { shown(&text) } else { String::new() };
    };
    let entries = parsed.errors.iter().map(|entry| match entry.message.as_str() {
        "" => entry.code.clone(),
        message => format!("{message} ({})", entry.code),
    });
    let others = [parsed.details, parsed.error_description];
    let reasons: Vec<String> = entries.chain(others).filter(|reason| !reason.is_empty()).collect();
    shown(&reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies_are_shown_as_one_line() {
        for (body, want) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\nentry","detail":null}]}"#,
                "no entry (DENIED)",
            ),
            (r#"{"errors":[{"code":"A"},{"code":"B","message":"b"}]}"#, "A; b (B)"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (r#"{"errors":[]}"#, ""),
            ("", ""),
            ("<html>502</html>", ""),
            ("plain \u{1b}[31mwords", "plain [31mwords"),
        ] {
            assert_eq!(message_of(body.as_bytes()), want);
        }
        assert_eq!(shown(&"x".repeat(600)), format!("{}…", "x".repeat(500)));
    }
}
