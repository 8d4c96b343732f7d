//! Parsers of untrusted input (servers, helpers, users' files) as functions of bytes, for fuzzing.

use super::challenge::{self, Challenge};
use super::{bucket, credential_helper, credentials};

/// Parses the values of `WWW-Authenticate` headers, one a line, and returns the realm of the token
/// server.
#[must_use]
pub fn challenge(text: &str) -> Option<String> {
    let values: Vec<&str> = text.lines().collect();
    match challenge::choose(&values)? {
        Challenge::Basic => None,
        Challenge::Bearer(bearer) => Some(bearer.realm),
    }
}

/// Parses a docker `config.json` and looks up a host.
///
/// # Errors
/// The reason, without a quote of the file.
pub fn docker_config(bytes: &[u8], host: &str) -> Result<bool, String> {
    credentials::knows(bytes, host)
}

/// Parses the output of a credential helper.
///
/// # Errors
/// The reason, without a quote of a secret.
pub fn helper_answer(succeeded: bool, bytes: &[u8]) -> Result<bool, String> {
    credential_helper::parse_output("docker-credential-x", succeeded, bytes)
        .map(|found| found.is_some())
}

/// Parses the error document of an S3 server.
#[must_use]
pub fn bucket_error(text: &str) -> String {
    bucket::reason(text)
}
