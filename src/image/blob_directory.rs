//! Uploads layers into a directory of blobs: in a bucket, or in the cache of GitHub Actions.

use std::num::NonZeroUsize;

use crate::oci::{Descriptor, Digest};
use crate::registry::{BlobDirectory, Client, ObjectInfo, RegistryError};
use crate::store::Store;

use super::documents::{compression_of, kept_layer, layer_type, packed_layer, try_each};
use super::fetch::{fetch_layer, fetch_temporarily};
use super::{ExportError, ExportOptions, ImageLayer, Result};

/// Options of an upload of layers into a directory of blobs.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryUpload {
    /// The current time, seconds since 1970.
    pub now_s: i64,
    /// Age in seconds from which an existing blob gets a new modification time.
    pub touch_after_s: i64,
    /// Maximum number of parallel uploads.
    pub uploads: NonZeroUsize,
}

/// Ensures that the directory has the layers, and returns their blobs. Existing ones are not sent
/// again. Layers that only another source has are fetched first.
///
/// # Errors
/// [`ExportError::Registry`]; [`ExportError::Store`] if a layer is missing or damaged.
pub fn send_to_directory(
    store: &Store,
    registry: &Client,
    directory: &dyn BlobDirectory,
    layers: &[ImageLayer],
    options: &ExportOptions,
    upload: &DirectoryUpload,
) -> Result<Vec<Descriptor>> {
    let blobs = DirectoryBlobs { registry, directory, upload };
    let uploader = DirectoryUploader { store, options, blobs };
    try_each(layers, upload.uploads, |layer| uploader.layer(layer))
}

/// Gives blobs of the directory a new modification time if they are old, and returns those that it
/// lacks.
///
/// # Errors
/// [`ExportError::Registry`].
pub fn renew_in_directory(
    registry: &Client,
    directory: &dyn BlobDirectory,
    blobs: &[Descriptor],
    upload: &DirectoryUpload,
) -> Result<Vec<Digest>> {
    let known = DirectoryBlobs { registry, directory, upload };
    let gone =
        try_each(blobs, upload.uploads, |blob| Ok((!known.has(blob)?).then_some(blob.digest)));
    Ok(gone?.into_iter().flatten().collect())
}

struct DirectoryUploader<'a> {
    store: &'a Store,
    options: &'a ExportOptions,
    blobs: DirectoryBlobs<'a>,
}

/// The blobs in a directory.
struct DirectoryBlobs<'a> {
    registry: &'a Client,
    directory: &'a dyn BlobDirectory,
    upload: &'a DirectoryUpload,
}

impl DirectoryUploader<'_> {
    fn layer(&self, layer: &ImageLayer) -> Result<Descriptor> {
        if let Some(blob) = self.existing_blob(layer)?
            && self.blobs.has(&blob)?
        {
            return Ok(blob);
        }
        let blob = self.packed(layer)?;
        if !self.blobs.has(&blob)? {
            // Its parts may be read repeatedly, so it is verified before.
            self.store.open_checked_blob(blob.digest)?.check()?;
            let open = || {
                let opened = self.store.open_blob(blob.digest);
                opened.map_err(|error| std::io::Error::new(error.kind(), error))
            };
            let sent = self.blobs.directory.push_blob(self.blobs.registry, &blob, &open);
            sent.map_err(|error| self.blobs.failed(error))?;
        }
        Ok(blob)
    }

    /// Returns the blob under which the directory has this layer, if the store would have to fetch
    /// it.
    fn existing_blob(&self, layer: &ImageLayer) -> Result<Option<Descriptor>> {
        if let Some(kept) = kept_layer(layer, self.options) {
            return Ok(Some(kept));
        }
        if self.store.has_layer(layer.diff_id)? {
            return Ok(None);
        }
        let (place, wanted) =
            (self.blobs.directory.location(), compression_of(self.options.packing));
        let sources = self.store.layer_sources().of_layer(layer.diff_id)?;
        let found = sources.into_iter().find(|source| {
            source.place == place && source.blob.media_type.layer_compression() == Some(wanted)
        });
        Ok(found.map(|source| {
            let media_type = layer_type(wanted, self.options);
            Descriptor::new(media_type, source.blob.digest, source.blob.size)
        }))
    }

    /// Returns the blob of the layer, fetched or compressed if the store lacks it.
    fn packed(&self, layer: &ImageLayer) -> Result<Descriptor> {
        let registry = self.blobs.registry;
        match &layer.pulled {
            Some(blob) if self.store.has_blob(blob.digest) => {}
            Some(blob) => fetch_temporarily(self.store, registry, layer.diff_id, blob)?,
            None if self.store.has_layer(layer.diff_id)? => {}
            None => fetch_layer(self.store, registry, layer.diff_id, None, &|_more| {})?,
        }
        packed_layer(self.store, layer, self.options)
    }
}

impl DirectoryBlobs<'_> {
    /// Returns whether the directory has the complete blob. Renews the modification time of an old
    /// one.
    fn has(&self, blob: &Descriptor) -> Result<bool> {
        let found = self.directory.find_blob(self.registry, blob);
        let found = found.map_err(|error| self.failed(error))?;
        let Some(ObjectInfo { modified_s, .. }) =
            found.filter(|object| object.n_bytes == blob.size)
        else {
            return Ok(false);
        };
        let age_s = modified_s.map_or(0, |modified_s| self.upload.now_s.saturating_sub(modified_s));
        if age_s >= self.upload.touch_after_s {
            let touched = self.directory.renew_blob(self.registry, blob.digest);
            touched.map_err(|error| self.failed(error))?;
        }
        Ok(true)
    }

    fn failed(&self, source: RegistryError) -> ExportError {
        ExportError::Registry { name: self.directory.to_string(), source }
    }
}
