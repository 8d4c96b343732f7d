//! The result of a build, as the progress display reports it.

use crate::executor::BuiltImage;
use crate::oci::Digest;

/// The result of a build.
#[derive(Debug)]
pub(crate) struct BuildResult<'a> {
    /// The image id: the digest of its config or of its index.
    pub(crate) id: Digest,
    /// Digest of the manifest or index that was written last.
    pub(crate) digest: Digest,
    pub(crate) names: &'a [String],
    pub(crate) images: &'a [BuiltImage],
    /// Number of targets: several after a bake, whose last one has the id and the digest.
    pub(crate) n_targets: usize,
}

impl BuildResult<'_> {
    /// Returns the bytes of all layers, uncompressed; `None` if a base layer was never unpacked.
    pub(crate) fn tar_bytes(&self) -> Option<u64> {
        self.images.iter().map(BuiltImage::tar_bytes).sum()
    }
}
