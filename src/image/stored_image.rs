//! Images of the store, read and checked for export.

use std::collections::BTreeMap;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform};
use crate::store::Store;

use super::{ExportError, Result};

/// The compression level that the store records for blobs of a registry.
const LEVEL_OF_OTHERS: i32 = -1;

/// An image of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    config_bytes: Vec<u8>,
    config_digest: Digest,
    config: ImageConfig,
    layers: Vec<ImageLayer>,
    annotations: BTreeMap<String, String>,
    descriptor_annotations: BTreeMap<String, String>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// The DiffID, which identifies the layer.
    pub diff_id: DiffId,
    /// Size in bytes of its blob in the store's manifest: the pulled blob, or the plain tar.
    pub size: u64,
    /// The blob that was pulled from a registry. `None` for a layer that was built here.
    pub pulled: Option<Descriptor>,
}

/// The images that a name of the store refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredImages {
    /// One image, or one for each of several platforms.
    pub images: Vec<Image>,
    /// True if an index lists them, even a single one.
    pub is_index: bool,
    /// The annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// Number of entries of the index that are not images, such as attestations.
    pub n_others: usize,
}

impl StoredImages {
    /// Reads the image with this manifest, or the images of this index.
    ///
    /// # Errors
    /// The same as [`Image::load`].
    pub fn load(store: &Store, top: Digest) -> Result<Self> {
        let bytes = store.read_blob(top, MAX_DOCUMENT_BYTES)?;
        let parsed = ManifestOrIndex::parse(&bytes);
        match parsed.map_err(|source| ExportError::Manifest { manifest: top, source })? {
            ManifestOrIndex::Manifest(_) => Ok(Self::of_one(Image::load(store, top)?)),
            ManifestOrIndex::Index(index) => {
                let images = index.images().map(|entry| {
                    let mut image = Image::load(store, entry.digest)?;
                    image.descriptor_annotations = entry.annotations.clone();
                    Ok(image)
                });
                let images: Vec<Image> = images.collect::<Result<_>>()?;
                let n_others = index.manifests.len() - images.len();
                Ok(Self { images, is_index: true, annotations: index.annotations, n_others })
            }
        }
    }

    /// Wraps a single image without an index.
    pub(super) fn of_one(image: Image) -> Self {
        let annotations = BTreeMap::new();
        Self { images: vec![image], is_index: false, annotations, n_others: 0 }
    }
}

impl Image {
    /// Reads the image with this manifest.
    ///
    /// # Errors
    /// [`ExportError::Store`] if a document is missing; [`ExportError::Manifest`],
    /// [`ExportError::Config`], [`ExportError::Index`], [`ExportError::LayerCount`] and
    /// [`ExportError::LayerType`] if rbuild cannot export it.
    pub fn load(store: &Store, manifest: Digest) -> Result<Self> {
        let bytes = store.read_blob(manifest, MAX_DOCUMENT_BYTES)?;
        let parsed = ManifestOrIndex::parse(&bytes);
        let parsed = parsed.map_err(|source| ExportError::Manifest { manifest, source })?;
        let ManifestOrIndex::Manifest(document) = parsed else {
            return Err(ExportError::Index { manifest });
        };
        let config_bytes = store.read_blob(document.config.digest, MAX_DOCUMENT_BYTES)?;
        let mut image = Self::of_documents(manifest, document, config_bytes)?;
        for layer in &mut image.layers {
            let diff_id = layer.diff_id;
            if let Some(blob) = layer.pulled.take() {
                layer.pulled = is_pulled(store, diff_id, &blob)?.then_some(blob);
            }
        }
        Ok(image)
    }

    /// Makes an image of a manifest, which has this digest, and its config. All layers have their
    /// original compression.
    ///
    /// # Errors
    /// The same as [`Image::load`], except [`ExportError::Store`].
    pub(super) fn of_documents(
        manifest: Digest,
        document: Manifest,
        config_bytes: Vec<u8>,
    ) -> Result<Self> {
        let config_digest = document.config.digest;
        let config = ImageConfig::parse(&config_bytes);
        let config = config.map_err(|source| ExportError::Config { manifest, source })?;
        let (n_layers, n_diff_ids) = (document.layers.len(), config.rootfs.diff_ids.len());
        if n_layers != n_diff_ids {
            return Err(ExportError::LayerCount { manifest, n_layers, n_diff_ids });
        }
        let mut layers = Vec::with_capacity(n_layers);
        for (diff_id, layer) in config.rootfs.diff_ids.iter().zip(document.layers) {
            if layer.media_type.layer_compression().is_none() {
                let media_type = layer.media_type.to_string();
                return Err(ExportError::LayerType { manifest, media_type });
            }
            let size = layer.size;
            layers.push(ImageLayer { diff_id: *diff_id, size, pulled: Some(layer) });
        }
        let (annotations, descriptor_annotations) = (document.annotations, BTreeMap::new());
        Ok(Self {
            config_bytes,
            config_digest,
            config,
            layers,
            annotations,
            descriptor_annotations,
        })
    }

    /// Returns the parsed config of the image.
    #[must_use]
    pub const fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// Returns the config byte for byte.
    #[must_use]
    pub fn config_bytes(&self) -> &[u8] {
        &self.config_bytes
    }

    /// Returns the config's digest: Docker's "image ID".
    #[must_use]
    pub const fn config_digest(&self) -> Digest {
        self.config_digest
    }

    /// Returns the platform of the image.
    #[must_use]
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }

    /// Returns the creation time, RFC 3339.
    #[must_use]
    pub fn created(&self) -> Option<&str> {
        self.config.created.as_deref()
    }

    /// Returns the annotations of the manifest.
    #[must_use]
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// Returns the image's annotations in its index.
    #[must_use]
    pub const fn descriptor_annotations(&self) -> &BTreeMap<String, String> {
        &self.descriptor_annotations
    }

    /// Returns the layers, base first.
    #[must_use]
    pub fn layers(&self) -> &[ImageLayer] {
        &self.layers
    }
}

/// Returns whether a layer was pulled. New layers are plain tars in the store's manifest. So may
/// layers of a base image be, but then the store has recorded the pull, or a source.
fn is_pulled(store: &Store, diff_id: DiffId, layer: &Descriptor) -> Result<bool> {
    if layer.digest != diff_id.digest() {
        return Ok(true);
    }
    let packed = store.packed(diff_id)?;
    if packed.iter().any(|form| form.blob == layer.digest && form.level == LEVEL_OF_OTHERS) {
        return Ok(true);
    }
    // Or that they could be.
    Ok(store
        .layer_sources()
        .of_layer(diff_id)?
        .iter()
        .any(|source| source.blob.digest == layer.digest))
}
