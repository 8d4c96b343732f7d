//! An image of the store, read and checked, ready to be written out.

use std::collections::BTreeMap;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, Parsed, Platform};
use crate::store::Store;

use super::{ExportError, Result};

/// The level of packed forms that came from a registry.
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
    /// Its identity.
    pub diff_id: DiffId,
    /// How long it is as the store's manifest has it: as it came, or as a plain tar.
    pub size: u64,
    /// The blob that it came as from a registry; `None` for a layer that was made here.
    pub pulled: Option<Descriptor>,
}

/// What a name of the store stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The image, or one for each of several platforms.
    pub images: Vec<Image>,
    /// Whether there is an index over them, if only over one.
    pub is_index: bool,
    /// The index's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Number of entries of the index that are not images, such as attestations.
    pub n_others: usize,
}

impl Loaded {
    /// Reads the image with this manifest, or those of this index.
    ///
    /// # Errors
    /// As of [`Image::load`].
    pub fn load(store: &Store, top: Digest) -> Result<Self> {
        let bytes = store.read_blob(top, MAX_DOCUMENT_BYTES)?;
        let parsed = Parsed::parse(&bytes);
        match parsed.map_err(|source| ExportError::Manifest { manifest: top, source })? {
            Parsed::Manifest(_) => Ok(Self::of_one(Image::load(store, top)?)),
            Parsed::Index(index) => {
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

    /// An image without an index.
    pub(super) fn of_one(image: Image) -> Self {
        let annotations = BTreeMap::new();
        Self { images: vec![image], is_index: false, annotations, n_others: 0 }
    }
}

impl Image {
    /// Reads the image with this manifest.
    ///
    /// # Errors
    /// The store's when a document is not there; `Manifest`, `Config`, `Index`, `LayerCount` and
    /// `LayerType` when it is no image that rbuild can write.
    pub fn load(store: &Store, manifest: Digest) -> Result<Self> {
        let bytes = store.read_blob(manifest, MAX_DOCUMENT_BYTES)?;
        let parsed = Parsed::parse(&bytes);
        let parsed = parsed.map_err(|source| ExportError::Manifest { manifest, source })?;
        let Parsed::Manifest(document) = parsed else {
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

    /// The image of a manifest, which has this digest, and its config; all layers are as others
    /// packed them.
    ///
    /// # Errors
    /// As of [`Image::load`], but for the store's.
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

    /// The config.
    #[must_use]
    pub const fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// The config as it is written, byte for byte.
    #[must_use]
    pub fn config_bytes(&self) -> &[u8] {
        &self.config_bytes
    }

    /// The config's digest: Docker's "image id".
    #[must_use]
    pub const fn config_digest(&self) -> Digest {
        self.config_digest
    }

    /// Which machine it is for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }

    /// When it was made, RFC 3339.
    #[must_use]
    pub fn created(&self) -> Option<&str> {
        self.config.created.as_deref()
    }

    /// The manifest's annotations.
    #[must_use]
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The annotations that the image has in the index over it.
    #[must_use]
    pub const fn descriptor_annotations(&self) -> &BTreeMap<String, String> {
        &self.descriptor_annotations
    }

    /// The layers, base first.
    #[must_use]
    pub fn layers(&self) -> &[ImageLayer] {
        &self.layers
    }
}

/// New layers stand in the store's manifest as plain tars; so may those of a base, but then the
/// store knows that they were pulled.
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
