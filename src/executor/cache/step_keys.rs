//! The keys of a step, and their parts as records keep them.

use crate::executor::StepId;
use crate::plan::{BASE, BELOW, CacheKey, Component};

/// A step that is looked up: its keys, and its name in events.
#[derive(Debug, Clone)]
pub(in crate::executor) struct StepKeys {
    /// Key by definition: the operation, and what defines all layers below.
    pub(in crate::executor) definition: CacheKey,
    /// Key of the operation alone, its sources by content.
    pub(in crate::executor) operation: CacheKey,
    /// Parts of the operation's key, and its parent, for explanations.
    pub(in crate::executor) parts: Vec<Component>,
    /// Number in events.
    pub(in crate::executor) step: StepId,
    /// Name in logs, as in `[build 2/5] RUN make`.
    pub(in crate::executor) name: String,
    /// Index of the stage in the plan.
    pub(in crate::executor) stage: usize,
    /// True if a layer that it is made from was made in this build: then the store's record of the same
    /// definition may be of other contents.
    pub(in crate::executor) is_fresh: bool,
    /// True if the step is executed even if its result is known.
    pub(in crate::executor) is_uncached: bool,
}

/// Returns the parts of a key and its parent as JSON, as the store keeps them.
pub(in crate::executor) fn json_of_parts(parts: &[Component]) -> String {
    let pairs: Vec<(&str, &str)> =
        parts.iter().map(|part| (part.name.as_str(), part.value.as_str())).collect();
    serde_json::to_string(&pairs).expect("pairs of texts always serialize")
}

/// Reads [`json_of_parts`]. Unreadable text has no parts, and so explains nothing.
pub(super) fn parts_of_json(json: &str) -> Vec<Component> {
    let pairs: Vec<(String, String)> = serde_json::from_str(json).unwrap_or_default();
    pairs.into_iter().map(|(name, value)| Component { name, value }).collect()
}

/// Returns the parent of a step as parts: the layers below it, and the base image.
pub(super) fn parent_parts(below: &[u8; 32], base: Option<String>) -> Vec<Component> {
    let below = blake3::Hash::from_bytes(*below).to_hex().to_string();
    let part = |name: &str, value| Component { name: name.to_owned(), value };
    std::iter::once(part(BELOW, below)).chain(base.map(|base| part(BASE, base))).collect()
}
