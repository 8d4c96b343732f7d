//! Layers into a bucket's directory, each under the digest of its blob.

use std::num::NonZeroUsize;

use crate::oci::Descriptor;
use crate::registry::{BucketDirectory, Client, Object, RegistryError};
use crate::store::Store;

use super::documents::{compression_of, kept_layer, layer_type, packed_layer, try_each};
use super::origin::{fetch_for_now, fetch_layer};
use super::{ExportError, ExportOptions, ImageLayer, Result};

/// How layers go into a bucket.
#[derive(Debug, Clone, Copy)]
pub struct BucketUpload {
    /// Seconds since 1970.
    pub now_s: i64,
    /// A blob that is there is made young again when it is older than this.
    pub touch_after_s: i64,
    /// How many go up at once.
    pub uploads: NonZeroUsize,
}

/// Sees to it that the directory has the layers, and gives the blobs that they are there. What is there
/// already is not sent; what only another place has is fetched first.
///
/// # Errors
/// [`ExportError::Registry`]; the store's when a layer is not there or damaged.
pub fn send_to_bucket(
    store: &Store,
    registry: &Client,
    directory: &BucketDirectory,
    layers: &[ImageLayer],
    options: &ExportOptions,
    upload: &BucketUpload,
) -> Result<Vec<Descriptor>> {
    let sink = Sink { store, registry, directory, options, upload };
    try_each(layers, upload.uploads, |layer| sink.layer(layer))
}

struct Sink<'a> {
    store: &'a Store,
    registry: &'a Client,
    directory: &'a BucketDirectory,
    options: &'a ExportOptions,
    upload: &'a BucketUpload,
}

impl Sink<'_> {
    fn layer(&self, layer: &ImageLayer) -> Result<Descriptor> {
        if let Some(blob) = self.known(layer)?
            && self.is_there(&blob)?
        {
            return Ok(blob);
        }
        let blob = self.packed(layer)?;
        if !self.is_there(&blob)? {
            // Its parts are read in any order, so it is checked before.
            self.store.open_checked_blob(blob.digest)?.check()?;
            let open = || {
                let opened = self.store.open_blob(blob.digest);
                opened.map_err(|error| std::io::Error::new(error.kind(), error))
            };
            let sent = self.registry.push_object(self.directory, &blob, &open);
            sent.map_err(|error| self.failed(error))?;
        }
        Ok(blob)
    }

    /// The blob that this layer is said to be in the directory, if the store would have to fetch it.
    fn known(&self, layer: &ImageLayer) -> Result<Option<Descriptor>> {
        if let Some(kept) = kept_layer(layer, self.options) {
            return Ok(Some(kept));
        }
        if self.store.has_layer(layer.diff_id)? {
            return Ok(None);
        }
        let (place, wanted) = (self.directory.place(), compression_of(self.options.packing));
        let sources = self.store.layer_sources().of_layer(layer.diff_id)?;
        let found = sources.into_iter().find(|source| {
            source.place == place && source.blob.media_type.layer_compression() == Some(wanted)
        });
        Ok(found.map(|source| {
            let media_type = layer_type(wanted, self.options);
            Descriptor::new(media_type, source.blob.digest, source.blob.size)
        }))
    }

    /// The blob of the layer, which the store has afterwards.
    fn packed(&self, layer: &ImageLayer) -> Result<Descriptor> {
        match &layer.pulled {
            Some(blob) if self.store.has_blob(blob.digest) => {}
            Some(blob) => fetch_for_now(self.store, self.registry, layer.diff_id, blob)?,
            None if self.store.has_layer(layer.diff_id)? => {}
            None => fetch_layer(self.store, self.registry, layer.diff_id, &|_more| {})?,
        }
        packed_layer(self.store, layer, self.options)
    }

    /// Whether the directory has the whole blob; an old one is made young.
    fn is_there(&self, blob: &Descriptor) -> Result<bool> {
        let (bucket, key) = (&self.directory.bucket, self.directory.key(blob.digest));
        let found = self.registry.find_object(bucket, &key).map_err(|error| self.failed(error))?;
        let Some(Object { modified_s, .. }) = found.filter(|object| object.n_bytes == blob.size)
        else {
            return Ok(false);
        };
        let age_s = modified_s.map_or(0, |modified_s| self.upload.now_s.saturating_sub(modified_s));
        if age_s >= self.upload.touch_after_s {
            let touched = self.registry.touch_object(bucket, &key);
            touched.map_err(|error| self.failed(error))?;
        }
        Ok(true)
    }

    fn failed(&self, source: RegistryError) -> ExportError {
        ExportError::Registry { name: self.directory.to_string(), source }
    }
}
