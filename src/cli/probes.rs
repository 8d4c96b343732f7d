//! Parsers of `rbuild.lock` and `registries.toml` as functions of text, for fuzzing.

use std::path::Path;

use crate::cli::inputs::lock_text;
use crate::cli::registries;

/// Parses a lock file, and returns its text.
///
/// # Errors
/// The text of the error.
pub fn lock_file(text: &str) -> Result<String, String> {
    lock_text::parse(text).map(|lock| lock_text::text(&lock)).map_err(|error| error.to_string())
}

/// Parses a `registries.toml`.
///
/// # Errors
/// The text of the error.
pub fn registries(text: &str) -> Result<(), String> {
    registries::check(Path::new("/etc/rbuild/registries.toml"), text)
}
