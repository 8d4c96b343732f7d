//! What a build was asked for, and what came of it.

use crate::executor::BuiltImage;
use crate::oci::Digest;

/// What came of a build.
#[derive(Debug)]
pub(crate) struct Result<'a> {
    /// The image's id.
    pub(crate) id: Digest,
    /// The manifest or index that went out last.
    pub(crate) digest: Digest,
    pub(crate) names: &'a [String],
    pub(crate) images: &'a [BuiltImage],
}

impl Result<'_> {
    /// Bytes of all layers, uncompressed; `None` when a base's layer was never unpacked.
    pub(super) fn tar_bytes(&self) -> Option<u64> {
        self.images.iter().map(BuiltImage::tar_bytes).sum()
    }
}

/// What a build was asked for, as it was typed.
#[derive(Debug)]
pub(crate) struct Requested {
    /// Where the process is.
    pub(crate) directory: String,
    pub(crate) context: String,
    pub(crate) dockerfile: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) platforms: Vec<String>,
    pub(crate) names: Vec<String>,
}
