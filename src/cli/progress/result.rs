//! What a build was asked for, and what came of it.

use crate::executor::BuiltImage;
use crate::oci::Digest;

/// What came of a build.
#[derive(Debug)]
pub(in crate::cli) struct Result<'a> {
    /// The image's id.
    pub(in crate::cli) id: Digest,
    /// The manifest or index that went out last.
    pub(in crate::cli) digest: Digest,
    pub(in crate::cli) names: &'a [String],
    pub(in crate::cli) images: &'a [BuiltImage],
}

impl Result<'_> {
    /// Bytes of all layers, uncompressed; `None` when a base's layer was never unpacked.
    pub(super) fn tar_bytes(&self) -> Option<u64> {
        self.images.iter().map(BuiltImage::tar_bytes).sum()
    }
}

/// What a build was asked for, as it was typed.
#[derive(Debug)]
pub(in crate::cli) struct Requested {
    /// Where the process is.
    pub(in crate::cli) directory: String,
    pub(in crate::cli) context: String,
    pub(in crate::cli) dockerfile: Option<String>,
    pub(in crate::cli) target: Option<String>,
    pub(in crate::cli) platforms: Vec<String>,
    pub(in crate::cli) names: Vec<String>,
}
