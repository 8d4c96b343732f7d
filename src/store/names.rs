//! Images by name or id.

use std::collections::BTreeSet;
use std::io::Read as _;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{DiffId, Digest, ManifestOrIndex};
use crate::pathio::Context as _;

use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// An image of the store by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageId {
    /// What people know it by: the digest of its config; of several images, that of their index.
    pub id: Digest,
    /// Its manifest or index.
    pub top: Digest,
}

impl Store {
    /// The images whose id, or the digest of whose manifest, begins with these hex digits, each
    /// once; named ones, and only if there are none, those that have no name.
    ///
    /// # Errors
    /// The index's; the kernel's, with the path.
    pub fn images_by_id(&self, hex: &str) -> Result<Vec<ImageId>> {
        let tags = self.tags()?;
        let named: BTreeSet<Digest> = tags.iter().map(|tag| tag.manifest).collect();
        let mut found = self.matching(hex, named)?;
        if found.is_empty() {
            found = self.matching(hex, self.blobs()?)?;
        }
        found.dedup_by_key(|image| image.id);
        Ok(found)
    }

    /// The id of the image with this manifest or index; `None` when it is neither.
    ///
    /// # Errors
    /// The kernel's, with the path; [`StoreError::Corrupt`].
    pub fn image_id(&self, top: Digest) -> Result<Option<Digest>> {
        let bytes = self.read_blob(top, MAX_DOCUMENT_BYTES)?;
        Ok(match ManifestOrIndex::parse(&bytes) {
            Ok(ManifestOrIndex::Manifest(manifest)) => Some(manifest.config.digest),
            Ok(ManifestOrIndex::Index(_)) => Some(top),
            Err(_other) => None,
        })
    }

    fn matching(&self, hex: &str, tops: impl IntoIterator<Item = Digest>) -> Result<Vec<ImageId>> {
        let mut found = Vec::new();
        for top in tops {
            if !self.is_document(top)? {
                continue;
            }
            let Some(id) = self.image_id(top)? else { continue };
            if id.hex().starts_with(hex) || top.hex().starts_with(hex) {
                found.push(ImageId { id, top });
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Whether the blob can be JSON: most are layers, which need not be read.
    pub(super) fn is_document(&self, digest: Digest) -> Result<bool> {
        if !self.has_blob(digest) {
            return Ok(false);
        }
        let mut file = self.open_blob(digest)?;
        let n_bytes = file.metadata().context("examine", self.root())?.len();
        let mut first = [0];
        let n_read = file.read(&mut first).context("read a blob of", self.root())?;
        Ok(n_bytes <= MAX_DOCUMENT_BYTES && n_read == 1 && first == *b"{")
    }

    /// Every blob.
    pub(super) fn blobs(&self) -> Result<Vec<Digest>> {
        let directory = self.root().join("blobs/sha256");
        let mut blobs = Vec::new();
        for entry in std::fs::read_dir(&directory).context("list", &directory)? {
            let name = entry.context("list", &directory)?.file_name();
            blobs.extend(format!("sha256:{}", name.display()).parse::<Digest>().ok());
        }
        Ok(blobs)
    }

    /// The length of a layer's uncompressed tar, wherever the layer is; `None` when nobody has
    /// measured it.
    ///
    /// # Errors
    /// The index's.
    pub fn tar_bytes(&self, diff_id: DiffId) -> Result<Option<u64>> {
        let n_bytes = self.with_index(|index| index.tar_bytes(diff_id))?;
        Ok(n_bytes.filter(|n_bytes| *n_bytes > 0))
    }
}
