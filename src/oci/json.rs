//! The two JSON forms: compact for configs, indented by two spaces for manifests and indexes.

use serde::Serialize;

/// One line, no blanks, no newline at the end: the form of an image config.
///
/// # Panics
/// Never for this module's types: their maps have text keys.
#[must_use]
pub fn compact(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("maps have text keys, and nothing fails to serialize")
}

/// Indented by two spaces, no newline at the end: the form of a manifest or index.
///
/// # Panics
/// Never for this module's types: their maps have text keys.
#[must_use]
pub fn pretty(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("maps have text keys, and nothing fails to serialize")
}
