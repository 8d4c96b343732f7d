//! Rebases: an image on a newer version of its base, without a build. The result is that of `crane rebase`
//! (<https://github.com/google/go-containerregistry/blob/main/cmd/crane/rebase.md>).

use crate::oci::{
    Descriptor, Digest, History, ImageConfig, LayerCompression, Manifest, MediaType, RootFs, pretty,
};
use crate::store::Store;

use super::stored_image::{Image, ImageLayer};
use super::{ExportError, Result};

/// Annotations that name the base (image-spec, annotations.md).
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// The digest of the base.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// The bases of a rebase.
#[derive(Debug, Clone, Copy)]
pub struct Rebase<'a> {
    /// The base that the image was built on.
    pub old: &'a Image,
    /// The base to put it on.
    pub new: &'a Image,
    /// Name of the new base.
    pub name: &'a str,
    /// Digest of its manifest.
    pub digest: Digest,
}

/// Returns whether the layers of `base` are the lowest of `image`.
#[must_use]
pub fn is_base(base: &Image, image: &Image) -> bool {
    let (base, own) = (base.layers(), image.layers());
    let pairs = base.iter().zip(own);
    base.len() <= own.len() && pairs.into_iter().all(|(one, other)| one.diff_id == other.diff_id)
}

/// Writes an image with the layers of the new base in place of those of the old one, and returns the
/// descriptor of its manifest. The config stays, except for the platform, the layers and the history.
///
/// # Errors
/// [`ExportError::NotABase`] if the old base's layers are not the lowest of the image;
/// [`ExportError::Store`].
pub fn rebase(store: &Store, image: &Image, bases: &Rebase<'_>) -> Result<Descriptor> {
    if !is_base(bases.old, image) {
        return Err(ExportError::NotABase { name: bases.name.to_owned() });
    }
    let own = image.layers().iter().skip(bases.old.layers().len());
    let layers: Vec<&ImageLayer> = bases.new.layers().iter().chain(own).collect();
    let mut config = image.config().clone();
    config.set_platform(&bases.new.platform());
    config.history = history(image.config(), bases.old.config(), bases.new.config());
    let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    config.rootfs = RootFs { diff_ids, ..RootFs::default() };
    let config_bytes = config.to_json();
    store.put_blob(&config_bytes)?;
    let mut annotations = image.annotations().clone();
    annotations.insert(BASE_NAME.to_owned(), bases.name.to_owned());
    annotations.insert(BASE_DIGEST.to_owned(), bases.digest.to_string());
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OciManifest),
        config: Descriptor::of(MediaType::OciConfig, &config_bytes),
        layers: layers.into_iter().map(descriptor).collect(),
        annotations,
    };
    let bytes = pretty(&manifest);
    store.put_blob(&bytes)?;
    let mut descriptor = Descriptor::of(MediaType::OciManifest, &bytes);
    descriptor.platform = Some(config.platform());
    descriptor.annotations = image.descriptor_annotations().clone();
    Ok(descriptor)
}

/// Returns the descriptor of a layer in the store's manifest: its blob, or its plain tar.
fn descriptor(layer: &ImageLayer) -> Descriptor {
    let (digest, compression) = match &layer.pulled {
        Some(blob) => (blob.digest, blob.media_type.layer_compression()),
        None => (layer.diff_id.digest(), None),
    };
    let compression = compression.unwrap_or(LayerCompression::None);
    Descriptor::new(MediaType::OciLayer(compression), digest, layer.size)
}

/// Returns the new base's history, and the image's own after it.
fn history(image: &ImageConfig, old: &ImageConfig, new: &ImageConfig) -> Vec<History> {
    let is_after = image.history.starts_with(&old.history);
    let n_old = match is_after {
        true => old.history.len(),
        // The builder may have rewritten the entries: those of as many layers are the base's.
        false => {
            let mut n_layers = old.rootfs.diff_ids.len();
            let entries = image.history.iter();
            let of_base = entries.take_while(|entry| {
                let is_of_base = n_layers > 0;
                n_layers -= usize::from(!entry.empty_layer && is_of_base);
                is_of_base
            });
            of_base.count()
        }
    };
    new.history.iter().chain(image.history.iter().skip(n_old)).cloned().collect()
}
