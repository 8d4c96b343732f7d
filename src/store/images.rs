//! Images of the store, found by id.

use std::collections::BTreeSet;
use std::io::Read as _;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{Digest, ManifestOrIndex};
use crate::pathio::Context as _;

use super::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// An image of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageId {
    /// The id that `rbuild images` shows: the digest of the image's config, or, of an index with
    /// several images, that of the index (image-spec, config.md, "ImageID").
    pub id: Digest,
    /// Digest of its manifest or index.
    pub top: Digest,
}

/// The images of a store.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    pub(super) store: &'a Store,
}

impl Images<'_> {
    /// Returns the images whose id or manifest digest begins with these hexadecimal digits, each
    /// once. Images without a tag are returned only if no tagged image matches.
    ///
    /// # Errors
    /// [`StoreError::Index`], [`StoreError::Record`], [`StoreError::Corrupt`] or [`StoreError::Io`].
    pub fn by_id(self, hex: &str) -> Result<Vec<ImageId>> {
        let tags = self.store.tags().all()?;
        let tagged: BTreeSet<Digest> = tags.iter().map(|tag| tag.manifest).collect();
        let mut found = self.matching(hex, tagged)?;
        if found.is_empty() {
            found = self.matching(hex, self.store.blobs()?)?;
        }
        found.dedup_by_key(|image| image.id);
        Ok(found)
    }

    /// Returns the id of the image with this manifest or index; `None` if the blob is neither.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or [`StoreError::Io`].
    pub fn id_of(self, top: Digest) -> Result<Option<Digest>> {
        let bytes = self.store.read_blob(top, MAX_DOCUMENT_BYTES)?;
        Ok(match ManifestOrIndex::parse(&bytes) {
            Ok(ManifestOrIndex::Manifest(manifest)) => Some(manifest.config.digest),
            Ok(ManifestOrIndex::Index(_)) => Some(top),
            Err(_other) => None,
        })
    }

    fn matching(self, hex: &str, tops: impl IntoIterator<Item = Digest>) -> Result<Vec<ImageId>> {
        let mut found = Vec::new();
        for top in tops {
            if !is_document(self.store, top)? {
                continue;
            }
            let Some(id) = self.id_of(top)? else { continue };
            if id.hex().starts_with(hex) || top.hex().starts_with(hex) {
                found.push(ImageId { id, top });
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Returns whether the blob can be a JSON object, from its length and first byte: most blobs are
/// layers, which need not be read.
pub(super) fn is_document(store: &Store, digest: Digest) -> Result<bool> {
    if !store.has_blob(digest) {
        return Ok(false);
    }
    let mut file = store.open_blob(digest)?;
    let n_bytes = file.metadata().context("examine", store.root())?.len();
    let mut first = [0];
    let n_read = file.read(&mut first).context("read a blob of", store.root())?;
    Ok(n_bytes <= MAX_DOCUMENT_BYTES && n_read == 1 && first == *b"{")
}
