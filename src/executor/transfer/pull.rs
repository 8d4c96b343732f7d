//! Pulls of whole images, and of layers that an output needs.

use crate::image::{self, Image};
use crate::limits::MAX_LAYERS;
use crate::oci::{
    Descriptor, Digest, Index, Manifest, ManifestOrIndex, MediaType, Platform, Reference,
};

use crate::executor::inputs::image::{adopt, from_registry, parse_manifest};
use crate::executor::inputs::image_layers::{fetch_known, fetch_layers};
use crate::executor::{BuildError, Event, Failure, Services};

type Result<T> = std::result::Result<T, BuildError>;

/// Fetches every missing layer of these images, so that they can be exported.
///
/// # Errors
/// [`BuildError::CachedLayer`] with the error of the last location.
pub fn fetch_images(services: &Services<'_>, images: &[Image]) -> std::result::Result<(), Failure> {
    for layer in images.iter().flat_map(Image::layers) {
        fetch_known(services, layer.diff_id, None).map_err(Failure::new)?;
    }
    Ok(())
}

/// Pulls an image from its registry into the store, and tags it with its own name; returns the
/// digest of its manifest.
///
/// # Errors
/// [`BuildError::Image`], or an error of the store.
pub fn pull(
    services: &Services<'_>,
    name: &Reference,
    platform: &Platform,
) -> std::result::Result<Digest, Failure> {
    let pulled = || -> Result<Digest> {
        let resolved = from_registry(services, name, None, platform, None)?;
        fetch_layers(services, &resolved, None)?;
        set_tag(services, name, resolved.digest)?;
        Ok(resolved.digest)
    };
    pulled().map_err(Failure::new)
}

/// Pulls an image for all its platforms, with its index byte for byte and with artifacts such as
/// attestations, and tags it with its own name. Returns the digest of the index, or of the manifest
/// of an image without one.
///
/// # Errors
/// As [`pull`].
pub fn pull_all(services: &Services<'_>, name: &Reference) -> std::result::Result<Digest, Failure> {
    let pulled = || -> Result<Digest> {
        let pull = IndexPull { services, name };
        let fetched = services.registry.manifest(name).map_err(|error| pull.failed(error))?;
        match parse_manifest(name, &fetched.bytes)? {
            ManifestOrIndex::Manifest(manifest) => {
                pull.image(&fetched.bytes, fetched.digest, manifest)?;
            }
            ManifestOrIndex::Index(index) => {
                pull.entries(&index)?;
                services.store.put_blob(&fetched.bytes)?;
            }
        }
        set_tag(services, name, fetched.digest)?;
        Ok(fetched.digest)
    };
    pulled().map_err(Failure::new)
}

struct IndexPull<'a> {
    services: &'a Services<'a>,
    name: &'a Reference,
}

impl IndexPull<'_> {
    fn failed(&self, source: crate::registry::RegistryError) -> BuildError {
        BuildError::Image { span: None, name: self.name.familiar(), source }
    }

    fn entries(&self, index: &Index) -> Result<()> {
        let n_entries = index.manifests.len();
        if n_entries > MAX_LAYERS {
            let reason = format!("its index has {n_entries} entries, more than {MAX_LAYERS}");
            return Err(BuildError::BadImage { span: None, name: self.name.familiar(), reason });
        }
        for entry in &index.manifests {
            let named = self.name.with_digest(entry.digest);
            let registry = self.services.registry;
            let fetched = registry.manifest(&named).map_err(|error| self.failed(error))?;
            let ManifestOrIndex::Manifest(manifest) = parse_manifest(self.name, &fetched.bytes)?
            else {
                let reason = "its index names another index".to_owned();
                let name = self.name.familiar();
                return Err(BuildError::BadImage { span: None, name, reason });
            };
            if index.images().any(|image| image.digest == entry.digest) && is_image(&manifest) {
                self.image(&fetched.bytes, fetched.digest, manifest)?;
            } else {
                self.artifact(&fetched.bytes, &manifest)?;
            }
        }
        Ok(())
    }

    fn image(&self, bytes: &[u8], digest: Digest, manifest: Manifest) -> Result<()> {
        let resolved = adopt(self.services, self.name, bytes, digest, manifest, None)?;
        fetch_layers(self.services, &resolved, None)
    }

    /// Pulls a manifest that is not an image: its blobs are not layers.
    fn artifact(&self, bytes: &[u8], manifest: &Manifest) -> Result<()> {
        std::iter::once(&manifest.config)
            .chain(&manifest.layers)
            .try_for_each(|blob| self.blob(blob))?;
        self.services.store.put_blob(bytes)?;
        Ok(())
    }

    fn blob(&self, blob: &Descriptor) -> Result<()> {
        let (store, registry) = (self.services.store, self.services.registry);
        if store.has_blob(blob.digest) {
            return Ok(());
        }
        let mut draft = store.draft()?;
        let pulled = registry.pull_blob(self.name, blob, &mut draft, &|_more| {});
        pulled.map_err(|error| self.failed(error))?;
        store.publish(draft)?;
        Ok(())
    }
}

fn is_image(manifest: &Manifest) -> bool {
    let is_layer = |layer: &Descriptor| layer.media_type.layer_compression().is_some();
    matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig)
        && manifest.layers.iter().all(is_layer)
}

/// Tags the image, and reports it if the name belonged to another one.
fn set_tag(services: &Services<'_>, name: &Reference, top: Digest) -> Result<()> {
    if let Some(replaced) = image::replaced(services.store, name, top)? {
        let more = if replaced.loses_platforms() {
            "; `rbuild pull --all-platforms` pulls all of them"
        } else {
            ""
        };
        services.event(Event::Note { text: format!("{replaced}{more}") });
    }
    Ok(services.store.tags().set(name, top)?)
}
