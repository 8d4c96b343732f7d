//! The size of an image. Everywhere in rbuild it is the sum of its layers' uncompressed tars.

use crate::image::{Image, ImageLayer};
use crate::store::{Store, StoreError};

/// Size of a layer, or of all layers of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ImageSize {
    /// Uncompressed; `None` if a layer is not in the store and was never measured.
    pub(crate) tar_bytes: Option<u64>,
    /// Of the compressed blobs; `None` if a layer has none, here or in a registry.
    pub(crate) packed_bytes: Option<u64>,
}

impl ImageSize {
    /// Measures the layers of `images`. Lists layers that have no listing yet.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot be read.
    pub(crate) fn of(store: &Store, images: &[Image]) -> Result<Self, StoreError> {
        let mut all = Self { tar_bytes: Some(0), packed_bytes: Some(0) };
        for layer in images.iter().flat_map(Image::layers) {
            let one = Self::of_layer(store, layer)?;
            all.tar_bytes = sum(all.tar_bytes, one.tar_bytes);
            all.packed_bytes = sum(all.packed_bytes, one.packed_bytes);
        }
        Ok(all)
    }

    /// Measures a layer. Lists it if it has no listing yet.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot be read.
    pub(crate) fn of_layer(store: &Store, layer: &ImageLayer) -> Result<Self, StoreError> {
        let packed_bytes = packed_bytes(store, layer)?;
        let mut tar_bytes = store.tar_bytes(layer.diff_id)?;
        if tar_bytes.is_none() && store.has_layer(layer.diff_id)? {
            // Listing a layer measures it.
            store.listing(layer.diff_id)?;
            tar_bytes = store.tar_bytes(layer.diff_id)?;
        }
        Ok(Self { tar_bytes, packed_bytes })
    }
}

/// Returns the length of the layer's compressed blob.
///
/// # Errors
/// [`StoreError`], if the index cannot be read.
pub(crate) fn packed_bytes(store: &Store, layer: &ImageLayer) -> Result<Option<u64>, StoreError> {
    let plain = layer.diff_id.digest();
    let pulled = layer.pulled.as_ref().filter(|blob| blob.digest != plain);
    let packed = store.packed(layer.diff_id)?.into_iter().find(|form| form.blob != plain);
    Ok(pulled.map(|blob| blob.size).or(packed.map(|form| form.bytes)))
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    Some(a?.saturating_add(b?))
}
