//! The two JSON formats: compact for configs, indented by two spaces for manifests and indexes.
//! Digests depend on the exact bytes.

use serde::Serialize;

/// Serializes on one line without white space: the format of an image config.
///
/// # Panics
/// Never for types of this module: their maps have text keys.
#[must_use]
pub fn compact(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("maps have text keys, and nothing fails to serialize")
}

/// Serializes with an indentation of two spaces and no final newline: the format of a manifest or
/// index.
///
/// # Panics
/// Never for types of this module: their maps have text keys.
#[must_use]
pub fn pretty(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("maps have text keys, and nothing fails to serialize")
}
