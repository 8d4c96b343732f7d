//! The readers of what servers, helpers and users' files say, as functions of bytes: for fuzzing.

use super::challenge::{self, Challenge};
use super::{bucket, credentials, helper};

/// Reads the values of `WWW-Authenticate` headers, one a line; returns the realm of the token
/// server.
#[must_use]
pub fn challenge(text: &str) -> Option<String> {
    let values: Vec<&str> = text.lines().collect();
    match challenge::choose(&values)? {
        Challenge::Basic => None,
        Challenge::Bearer(bearer) => Some(bearer.realm),
    }
}

/// Reads a docker `config.json` and looks a host up in it.
///
/// # Errors
/// The reason, without a quotation.
pub fn docker_config(bytes: &[u8], host: &str) -> Result<bool, String> {
    credentials::knows(bytes, host)
}

/// Reads what a credential helper has printed.
///
/// # Errors
/// The reason that is shown, without quoting a secret.
pub fn helper_answer(succeeded: bool, bytes: &[u8]) -> Result<bool, String> {
    helper::read_answer("docker-credential-x", succeeded, bytes).map(|found| found.is_some())
}

/// Reads what a bucket's server answers instead of an object.
#[must_use]
pub fn bucket_error(text: &str) -> String {
    bucket::reason(text)
}
