//! The readers of files beside a Dockerfile and of the user's, as functions of text: for fuzzing.

use std::path::Path;

use crate::cli::inputs::lock_text;
use crate::cli::registries;

/// Reads a lock file and writes it again.
///
/// # Errors
/// The reason, as text.
pub fn lock_file(text: &str) -> Result<String, String> {
    lock_text::parse(text).map(|lock| lock_text::text(&lock)).map_err(|error| error.to_string())
}

/// Reads a `registries.toml`.
///
/// # Errors
/// The reason, as text.
pub fn registries(text: &str) -> Result<(), String> {
    registries::check(Path::new("/etc/rbuild/registries.toml"), text)
}
