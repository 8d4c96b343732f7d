//! The error type of this module: one variant for each failure that a caller can act on.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::oci::Digest;

/// The reason why a request to a registry failed.
///
/// No variant contains a secret. Addresses are shown without their query. Text from a server is
/// truncated and stripped of control characters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry and each of its mirrors answered 404.
    #[error("{what} does not exist; check the name, and that it was pushed")]
    NotFound {
        /// The image, or the blob and its repository.
        what: String,
    },
    /// Credentials are missing, or the registry or its token server rejected them.
    #[error("{host} refused access to {what} ({status}): {why}")]
    Unauthorized {
        /// Host and port of the server.
        host: String,
        /// The image, blob or scope that was requested.
        what: String,
        /// The HTTP status: 401 of a registry, 400, 401 or 403 of a token server.
        status: u16,
        /// The server's message, and how to log in.
        why: String,
    },
    /// The registry rejected the authenticated caller (status 403).
    #[error("{host} denied access to {what} (403): {why}")]
    Denied {
        /// Host and port of the server.
        host: String,
        /// The image, blob or scope that was requested.
        what: String,
        /// The message in the registry's response.
        why: String,
    },
    /// No connection could be made.
    #[error("cannot reach {host}; is a server running there, and is the network up?")]
    Unreachable {
        /// Host and port of the server.
        host: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A connection was closed, or timed out, during a request or response.
    #[error("the connection to {host} broke")]
    Broken {
        /// Host and port of the server.
        host: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The host answers, but the TLS handshake failed.
    #[error(
        "cannot make a secure connection to {host}; for plain http use --registry {host},http; for a \
         private certificate or authority use --ca FILE"
    )]
    Tls {
        /// Host and port of the server.
        host: String,
        /// The error of the handshake.
        source: io::Error,
    },
    /// A response with a status that no other variant covers.
    #[error("{host} answered {status} for {what}: {message}")]
    Status {
        /// Host and port of the server.
        host: String,
        /// The image, blob or scope that was requested.
        what: String,
        /// The HTTP status of the response.
        status: u16,
        /// The message in the registry's response.
        message: String,
        /// Time to wait before a retry, from `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A push got a status that a registry does not send, and the content was not stored.
    #[error(
        "{host} answered {status} but did not store {what}; a proxy may have answered for the registry"
    )]
    NotStored {
        /// Host and port of the server.
        host: String,
        /// The blob or manifest that was pushed.
        what: String,
        /// The HTTP status of the response.
        status: u16,
    },
    /// The content does not have the expected digest.
    #[error("wrong digest of {what}: expected {want}, got {got}")]
    WrongDigest {
        /// The blob or manifest that was read or written.
        what: String,
        /// The image, blob or scope that was requested.
        want: Digest,
        /// The digest of the content.
        got: Digest,
    },
    /// The content is shorter or longer than its descriptor says.
    #[error("wrong size of {what}: expected {want} bytes, got {got}")]
    WrongSize {
        /// The blob or manifest that was read or written.
        what: String,
        /// Size in bytes according to the descriptor.
        want: u64,
        /// Number of bytes read. Reading stops soon after `want` bytes.
        got: u64,
    },
    /// A document exceeds the size limit.
    #[error("{what} is longer than the limit of {max_bytes} bytes")]
    TooLarge {
        /// Name of the document for messages.
        what: String,
        /// The limit in bytes.
        max_bytes: u64,
    },
    /// The server violates the protocol, or an address is invalid.
    #[error("{host} violates the registry protocol: {why}")]
    Protocol {
        /// Host and port of the server.
        host: String,
        /// The cause, as text for the message.
        why: String,
    },
    /// A certificate or key file is unusable.
    #[error("cannot use {} for TLS: {why}", path.display())]
    Certificate {
        /// Path of the PEM file.
        path: PathBuf,
        /// The reason why it is unusable.
        why: String,
    },
    /// A registry option is invalid.
    #[error("invalid registry option {option}: {why}")]
    BadOption {
        /// The option, as `name` or `name of registry`.
        option: String,
        /// The cause, as text for the message.
        why: &'static str,
    },
    /// The stored credentials of a host could not be read.
    #[error("cannot get the credentials for {host}: {why}")]
    Credentials {
        /// The registry's name, as in images.
        host: String,
        /// The file or helper that failed, and the cause.
        why: String,
    },
    /// Every mirror, and the registry after them, failed.
    #[error("{}", answers.join("; "))]
    AllFailed {
        /// The error of each server in the order of requests, as in `http://mirror.example does not
        /// have it`.
        answers: Vec<String>,
        /// The registry's own error, which decides how the failure is handled.
        own: Box<RegistryError>,
    },
    /// `--offline` forbids network access.
    #[error("cannot fetch {what}: --offline forbids network access")]
    Offline {
        /// The resource, or the server's address.
        what: String,
    },
    /// Reading or writing the local data failed.
    #[error("cannot {verb} {what}")]
    Local {
        /// The failed operation: `store` or `read`.
        verb: &'static str,
        /// The blob or file.
        what: String,
        /// The error of the reader or writer.
        source: io::Error,
    },
}

impl RegistryError {
    /// Returns the registry's own error, without those of its mirrors.
    #[must_use]
    pub fn own(&self) -> &Self {
        if let Self::AllFailed { own, .. } = self { own } else { self }
    }

    /// Returns the errors of all servers that were tried. Empty if there was only one.
    #[must_use]
    pub fn answers(&self) -> &[String] {
        if let Self::AllFailed { answers, .. } = self { answers } else { &[] }
    }

    /// Returns whether a registry refused to replace a tag, as Artifact Registry and ECR can be told to
    /// (<https://cloud.google.com/artifact-registry/docs/docker/troubleshoot#push>,
    /// <https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html>).
    #[must_use]
    pub fn is_immutable_tag(&self) -> bool {
        const TEXTS: [&str; 2] = [
            "The repository has enabled tag immutability",
            "cannot be overwritten because the tag is immutable",
        ];
        let error = self.own();
        let text = if let Self::Denied { why, .. } = error {
            why
        } else if let Self::Status { message, .. } = error {
            message
        } else {
            return false;
        };
        TEXTS.iter().any(|part| text.contains(part))
    }

    /// Returns whether the host did not answer, or not in time.
    pub(super) fn is_unresponsive(&self) -> bool {
        let is_slow = |source: &io::Error| source.kind() == io::ErrorKind::TimedOut;
        matches!(self, Self::Unreachable { .. })
            || matches!(self, Self::Broken { source, .. } if is_slow(source))
    }

    /// Describes the error as the answer of the server at the address `place`.
    pub(super) fn describe_at(&self, place: &str) -> String {
        let place = place.trim_end_matches('/');
        match self {
            Self::NotFound { .. } => format!("{place} does not have it"),
            Self::Unreachable { source, .. } => format!("{place} cannot be reached: {source}"),
            Self::Broken { source, .. } => format!("the connection to {place} broke: {source}"),
            Self::Tls { source, .. } => {
                format!("cannot make a secure connection to {place}: {source}")
            }
            Self::Unauthorized { status, why, .. } => {
                format!("{place} refused access ({status}): {why}")
            }
            Self::Denied { why, .. } => format!("{place} denied access (403): {why}"),
            Self::Status { status, message, .. } => format!("{place} answered {status}: {message}"),
            other @ (Self::NotStored { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::TooLarge { .. }
            | Self::Protocol { .. }
            | Self::Certificate { .. }
            | Self::BadOption { .. }
            | Self::Credentials { .. }
            | Self::AllFailed { .. }
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
            | Self::AllFailed { .. }
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

    /// Returns whether the request was too large (status 413), as a proxy with a size limit
    /// answers.
    pub(super) const fn is_too_large(&self) -> bool {
        matches!(self, Self::Status { status: 413, .. })
    }

    /// Returns whether the registry expects another offset (status 416; distribution-spec, "Pushing
    /// a blob in chunks").
    pub(super) const fn is_wrong_offset(&self) -> bool {
        matches!(self, Self::Status { status: 416, .. })
    }

    /// Returns whether another server cannot help: a local failure, or `--offline`.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.own(), Self::Local { .. } | Self::Offline { .. })
    }

    /// Returns the time to wait that the server asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Status { retry_after, .. } = self { *retry_after } else { None }
    }
}

/// Maximum length in characters of a server's text in an error.
const MAX_SHOWN_CHARS: usize = 500;

/// Prepares a server's text for a terminal: one line, no control characters, truncated.
pub(super) fn shown(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_control() || c.is_whitespace()).collect();
    let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_SHOWN_CHARS {
        return line;
    }
    line.chars().take(MAX_SHOWN_CHARS).chain(['…']).collect()
}

/// Extracts the message of an error response: its codes and messages (distribution-spec, "Error
/// Codes"), or else the body itself unless it is HTML or JSON. Empty if there is none.
pub(super) fn message_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        // Members that token servers use instead: `details` by docker's, `error_description` by
        // OAuth2 (RFC 6749, section 5.2).
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
