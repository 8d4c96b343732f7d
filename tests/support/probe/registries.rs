//! Any bytes as `registries.toml`.

use rbuild::cli::probes::registries;

/// Reads `bytes` as the file.
pub(crate) fn probe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = registries(text) {
        assert!(!error.is_empty());
    }
}
