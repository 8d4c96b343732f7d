//! Manifests and indexes of exported images, and the blobs that they list.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::archive::Packing;
use crate::oci::{
    AnnotationLevel, Descriptor, DiffId, Digest, Index, LayerCompression, Manifest, MediaType,
    annotations_for, pretty,
};
use crate::pool;
use crate::store::{PackedRecord, Store};

use super::{ExportOptions, Image, ImageLayer, Result, config_of};

/// An image ready for export: its layers are compressed and its manifest is written.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedImage {
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// The descriptor of the manifest, with the platform.
    pub descriptor: Descriptor,
    /// The descriptor of the config.
    pub config: Descriptor,
    /// The descriptors of the layers, base first. Each is a blob of the store.
    pub layers: Vec<Descriptor>,
}

/// Compresses the layers of `image` that are not compressed yet, and writes its manifest. Equal
/// images and options give equal bytes, regardless of the number of threads.
///
/// # Errors
/// [`ExportError::Store`](super::ExportError::Store) if a layer is missing or damaged.
pub fn pack(store: &Store, image: &Image, options: &ExportOptions) -> Result<PackedImage> {
    let all = vec![true; image.layers().len()];
    pack_some(store, image, &all, options)
}

/// Prepares an image like [`pack`]. Layers that are not exported are only listed, as if they were
/// uncompressed.
pub(super) fn pack_some(
    store: &Store,
    image: &Image,
    is_exported: &[bool],
    options: &ExportOptions,
) -> Result<PackedImage> {
    let layers: Vec<(&ImageLayer, bool)> =
        image.layers().iter().zip(is_exported.iter().copied()).collect();
    let layers = try_each(&layers, options.jobs, |(layer, is_exported)| {
        if *is_exported {
            return packed_layer(store, layer, options);
        }
        let media_type = layer_type(LayerCompression::None, options);
        Ok(Descriptor::new(media_type, layer.diff_id.digest(), layer.size))
    })?;
    Ok(PackedImage::new(image, layers, options))
}

/// Compresses layers that are not compressed yet, and returns their blobs in the store.
///
/// # Errors
/// [`ExportError::Store`](super::ExportError::Store) if a layer is missing or damaged.
pub fn pack_layers(
    store: &Store,
    layers: &[ImageLayer],
    options: &ExportOptions,
) -> Result<Vec<Descriptor>> {
    try_each(layers, options.jobs, |layer| packed_layer(store, layer, options))
}

impl PackedImage {
    /// Writes the manifest that lists `layers`.
    pub(super) fn new(image: &Image, layers: Vec<Descriptor>, options: &ExportOptions) -> Self {
        let platform = image.platform();
        let with = |own: &BTreeMap<String, String>, level| {
            let mut all = own.clone();
            all.extend(annotations_for(&options.annotations, level, Some(&platform)));
            all
        };
        let annotations = with(image.annotations(), AnnotationLevel::Manifest);
        let config = config_of(image, options);
        let mut packed = Self::with_annotations(config, layers, annotations, options);
        packed.descriptor.annotations =
            with(image.descriptor_annotations(), AnnotationLevel::ManifestDescriptor);
        packed.descriptor.platform = Some(platform);
        packed
    }

    /// Writes the manifest of an artifact, which is not an image (image-spec, manifest.md, "Guidelines for
    /// Artifact Usage"). `config` is its document.
    #[must_use]
    pub fn of_artifact(
        config: Descriptor,
        layers: Vec<Descriptor>,
        options: &ExportOptions,
    ) -> Self {
        Self::with_annotations(config, layers, BTreeMap::new(), options)
    }

    fn with_annotations(
        config: Descriptor,
        layers: Vec<Descriptor>,
        annotations: BTreeMap<String, String>,
        options: &ExportOptions,
    ) -> Self {
        let docker = options.docker_media_types;
        let manifest_type = if docker { MediaType::DockerManifest } else { MediaType::OciManifest };
        let manifest = pretty(&Manifest {
            schema_version: 2,
            media_type: Some(manifest_type.clone()),
            config: config.clone(),
            layers: layers.clone(),
            annotations: if docker { BTreeMap::new() } else { annotations },
        });
        let descriptor = Descriptor::of(manifest_type, &manifest);
        Self { manifest, descriptor, config, layers }
    }

    /// Returns the manifest's digest.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.descriptor.digest
    }
}

/// Writes the index of images for several platforms, in their order, and returns it with its
/// descriptor. `own` are annotations in addition to those of the options.
pub(super) fn index_over(
    images: &[PackedImage],
    own: &BTreeMap<String, String>,
    options: &ExportOptions,
) -> (Vec<u8>, Descriptor) {
    let mut annotations = own.clone();
    annotations.extend(annotations_for(&options.annotations, AnnotationLevel::Index, None));
    let docker = options.docker_media_types;
    let media_type = if docker { MediaType::DockerIndex } else { MediaType::OciIndex };
    let bytes = pretty(&Index {
        schema_version: 2,
        media_type: Some(media_type.clone()),
        manifests: images.iter().map(|image| image.descriptor.clone()).collect(),
        annotations: if docker { BTreeMap::new() } else { annotations },
    });
    let mut descriptor = Descriptor::of(media_type, &bytes);
    descriptor.annotations =
        annotations_for(&options.annotations, AnnotationLevel::IndexDescriptor, None);
    (bytes, descriptor)
}

/// Applies `work` to each item in parallel. Returns the first error in the order of the items.
/// After an error no further item is started.
pub(super) fn try_each<T: Sync, R: Send>(
    items: &[T],
    jobs: std::num::NonZeroUsize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let failed = AtomicBool::new(false);
    let results = pool::map_in_order(items, jobs, |item| {
        if failed.load(Ordering::Relaxed) {
            return None;
        }
        let result = work(item);
        failed.fetch_or(result.is_err(), Ordering::Relaxed);
        Some(result)
    });
    // Items are started in order, so whatever was skipped comes after an error.
    results.into_iter().flatten().collect()
}

/// Returns the blob under which a layer is exported: the pulled one, or else one compressed as the
/// options say.
pub(super) fn packed_layer(
    store: &Store,
    layer: &ImageLayer,
    options: &ExportOptions,
) -> Result<Descriptor> {
    packed_layer_beside(store, layer, options, &mut io::sink())
}

/// Returns the blob like [`packed_layer`]. If the layer has to be compressed, `beside` gets the
/// bytes as they come.
pub(super) fn packed_layer_beside(
    store: &Store,
    layer: &ImageLayer,
    options: &ExportOptions,
    beside: &mut (dyn Write + Send),
) -> Result<Descriptor> {
    if let Some(kept) = kept_layer(layer, options)
        && store.has_blob(kept.digest)
    {
        return Ok(kept);
    }
    let record = match existing_packed(store, layer.diff_id, options)? {
        Some(existing) => existing,
        None => store.pack_and_copy(layer.diff_id, options.packing, options.jobs, beside)?,
    };
    Ok(described(&record, options))
}

/// Returns the layer's blob with the packing that the options want, if the store has one. A blob that
/// came from a registry, such as a cache, is as good if its compression is the same: compressed again,
/// the layer would be sent again.
pub(super) fn existing_packed(
    store: &Store,
    diff_id: DiffId,
    options: &ExportOptions,
) -> Result<Option<PackedRecord>> {
    if let Some(exact) = store.find_packed(diff_id, options.packing)? {
        return Ok(Some(exact));
    }
    let pulled = store.find_pulled(diff_id, compression_of(options.packing))?;
    Ok(pulled.filter(|_| !options.force_packing))
}

/// Returns whether the store has the layer as a blob with the packing that the options want.
///
/// # Errors
/// [`ExportError::Store`](super::ExportError::Store).
pub fn is_packed(store: &Store, diff_id: DiffId, options: &ExportOptions) -> Result<bool> {
    Ok(existing_packed(store, diff_id, options)?.is_some())
}

/// Returns the pulled blob, if there is one and the options allow it to stay unchanged. The store
/// need not have it: the same layer may have been pulled as another blob.
pub(super) fn kept_layer(layer: &ImageLayer, options: &ExportOptions) -> Option<Descriptor> {
    let pulled = layer.pulled.as_ref()?;
    let compression = pulled.media_type.layer_compression()?;
    if options.force_packing && compression != compression_of(options.packing) {
        return None;
    }
    Some(Descriptor::new(layer_type(compression, options), pulled.digest, pulled.size))
}

pub(super) fn described(record: &PackedRecord, options: &ExportOptions) -> Descriptor {
    Descriptor::new(layer_type(record.compression, options), record.blob, record.bytes)
}

/// Returns the compression of layers that are packed so.
#[must_use]
pub const fn compression_of(packing: Packing) -> LayerCompression {
    match packing {
        Packing::None => LayerCompression::None,
        Packing::Gzip { .. } => LayerCompression::Gzip,
        Packing::Zstd { .. } => LayerCompression::Zstd,
    }
}

pub(super) const fn layer_type(
    compression: LayerCompression,
    options: &ExportOptions,
) -> MediaType {
    if options.docker_media_types {
        MediaType::DockerLayer(compression)
    } else {
        MediaType::OciLayer(compression)
    }
}
