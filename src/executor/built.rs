//! What was built, layer by layer.

use std::sync::Arc;

use crate::diag::Span;
use crate::oci::{DiffId, Digest, Platform};

use super::StepPlace;

/// An image that was built.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// For which machine.
    pub platform: Platform,
    /// Its layers, base first.
    pub layers: Vec<BuiltLayer>,
}

/// A layer of an image that was built.
#[derive(Debug, Clone)]
pub struct BuiltLayer {
    /// Its identity.
    pub diff_id: DiffId,
    /// How long it is as the store's manifest has it: as it came, or as a plain tar.
    pub stored_bytes: u64,
    /// The length of its uncompressed tar; `None` for a base's that was never unpacked.
    pub tar_bytes: Option<u64>,
    /// The instruction that made it; `None` for a base's.
    pub made_by: Option<Arc<MadeBy>>,
}

/// An instruction that makes a layer.
#[derive(Debug, Clone)]
pub struct MadeBy {
    /// Where it stands in the Dockerfile.
    pub span: Span,
    /// Its place among the steps.
    pub place: StepPlace,
}

impl BuiltImage {
    /// Bytes of all layers, uncompressed, and those of layers of which only that is not known, as
    /// they came.
    #[must_use]
    pub fn known_and_other_bytes(&self) -> (u64, u64) {
        let known = self.layers.iter().filter_map(|layer| layer.tar_bytes).sum();
        let others = self.layers.iter().filter(|layer| layer.tar_bytes.is_none());
        (known, others.map(|layer| layer.stored_bytes).sum())
    }

    /// Bytes of all layers, uncompressed; `None` when one of them was never measured.
    #[must_use]
    pub fn tar_bytes(&self) -> Option<u64> {
        self.layers.iter().map(|layer| layer.tar_bytes).sum()
    }
}

/// What was built, in the store.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image's manifest in the store, in which new layers are plain tars; for several platforms,
    /// the index over those.
    pub top: Digest,
    /// The image's id, the same whatever the layers' packing: the digest of its config; for several
    /// platforms, that of the index.
    pub id: Digest,
    /// The image, or one for each platform.
    pub images: Vec<BuiltImage>,
    /// What is odd about the Dockerfile.
    pub warnings: Vec<crate::diag::Diagnostic>,
}
