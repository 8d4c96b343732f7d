//! The result of a build: its images, layer by layer.

use std::sync::Arc;

use crate::diag::Span;
use crate::oci::{DiffId, Digest, Platform};

use super::StepPlace;

/// A built image.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// Platform that the image is for.
    pub platform: Platform,
    /// The layers, base first.
    pub layers: Vec<BuiltLayer>,
}

/// A layer of a built image.
#[derive(Debug, Clone)]
pub struct BuiltLayer {
    /// Digest of the uncompressed tar (image-spec, config.md, "Layer DiffID").
    pub diff_id: DiffId,
    /// Size in the store's manifest: of the blob that was pulled, or of the plain tar.
    pub stored_bytes: u64,
    /// Size of the uncompressed tar; `None` for a layer of a base image that was never unpacked.
    pub tar_bytes: Option<u64>,
    /// The instruction that made the layer; `None` for a layer of a base image.
    pub made_by: Option<Arc<MadeBy>>,
}

/// An instruction that made a layer.
#[derive(Debug, Clone)]
pub struct MadeBy {
    /// Location in the Dockerfile.
    pub span: Span,
    /// Its number and name among the steps.
    pub place: StepPlace,
}

impl BuiltImage {
    /// Returns two sums: the uncompressed bytes of all layers that were measured, and the pulled
    /// bytes of those that were not.
    #[must_use]
    pub fn known_and_other_bytes(&self) -> (u64, u64) {
        let known = self.layers.iter().filter_map(|layer| layer.tar_bytes).sum();
        let others = self.layers.iter().filter(|layer| layer.tar_bytes.is_none());
        (known, others.map(|layer| layer.stored_bytes).sum())
    }

    /// Returns the uncompressed bytes of all layers; `None` if one was never measured.
    #[must_use]
    pub fn tar_bytes(&self) -> Option<u64> {
        self.layers.iter().map(|layer| layer.tar_bytes).sum()
    }
}

/// The result of a build in the store.
#[derive(Debug, Clone)]
pub struct Built {
    /// Digest of the manifest in the store, whose new layers are plain tars. For several platforms,
    /// digest of the index over these manifests.
    pub top: Digest,
    /// The image's id, independent of the compression of its layers: the digest of its config. For
    /// several platforms, the digest of the index.
    pub id: Digest,
    /// The image, or one for each platform.
    pub images: Vec<BuiltImage>,
    /// Findings about the Dockerfile that did not stop the build.
    pub warnings: Vec<crate::diag::Diagnostic>,
}
