//! Reads images of registries without storing anything.

use crate::limits::{MAX_DOCUMENT_BYTES, MAX_IMAGES_AT_ONCE};
use crate::oci::{Descriptor, Digest, Manifest, ManifestOrIndex, Platform, Reference};
use crate::pool;
use crate::registry::{Client, RegistryError};

use super::{ExportError, Image, Result, StoredImages};

/// Reads manifests and configs of `name` from its registry, but no layers. Of an index, only the
/// image for `platform` if one is given.
///
/// # Errors
/// [`ExportError::Remote`]; [`ExportError::NoPlatform`]; the errors of
/// [`super::StoredImages::load`].
pub fn read_remote(
    registry: &Client,
    name: &Reference,
    platform: Option<&Platform>,
) -> Result<(Digest, StoredImages)> {
    let remote = RemoteImage { registry, name };
    let (top, parsed) = remote.manifest(name)?;
    let index = match parsed {
        ManifestOrIndex::Manifest(manifest) => {
            let image = remote.image(top, manifest)?;
            let found = [image.platform()];
            if let Some(wanted) = platform.filter(|wanted| !found.contains(wanted)) {
                return Err(remote.platform_error(wanted, &found));
            }
            return Ok((top, StoredImages::of_one(image)));
        }
        ManifestOrIndex::Index(index) => index,
    };
    let entries: Vec<&Descriptor> = match platform {
        None => index.images().collect(),
        Some(wanted) => match index.select(wanted) {
            Some(entry) => vec![entry],
            None => {
                let has: Vec<Platform> =
                    index.images().filter_map(|entry| entry.platform.clone()).collect();
                return Err(remote.platform_error(wanted, &has));
            }
        },
    };
    let images = pool::map_in_order(&entries, MAX_IMAGES_AT_ONCE, |entry| {
        match remote.manifest(&name.with_digest(entry.digest))? {
            (digest, ManifestOrIndex::Manifest(manifest)) => remote.image(digest, manifest),
            (manifest, ManifestOrIndex::Index(_)) => Err(ExportError::Index { manifest }),
        }
    });
    let n_others = index.manifests.len() - index.images().count();
    let images = images.into_iter().collect::<Result<_>>()?;
    Ok((top, StoredImages { images, is_index: true, annotations: index.annotations, n_others }))
}

struct RemoteImage<'a> {
    registry: &'a Client,
    name: &'a Reference,
}

impl RemoteImage<'_> {
    fn failed(&self, source: RegistryError) -> ExportError {
        ExportError::Remote { name: self.name.familiar(), source }
    }

    fn platform_error(&self, wanted: &Platform, has: &[Platform]) -> ExportError {
        let has: Vec<String> = has.iter().map(ToString::to_string).collect();
        let (name, wanted) = (self.name.familiar(), wanted.to_string());
        ExportError::NoPlatform { name, wanted, has: has.join(", ") }
    }

    fn manifest(&self, name: &Reference) -> Result<(Digest, ManifestOrIndex)> {
        let fetched = self.registry.manifest(name).map_err(|error| self.failed(error))?;
        let manifest = fetched.digest;
        let parsed = ManifestOrIndex::parse(&fetched.bytes);
        Ok((manifest, parsed.map_err(|source| ExportError::Manifest { manifest, source })?))
    }

    fn image(&self, digest: Digest, manifest: Manifest) -> Result<Image> {
        let config = &manifest.config;
        if config.size > MAX_DOCUMENT_BYTES {
            let what = format!("the config of {}", self.name.familiar());
            let source = RegistryError::TooLarge { what, max_bytes: MAX_DOCUMENT_BYTES };
            return Err(self.failed(source));
        }
        let mut bytes = Vec::new();
        let pulled = self.registry.pull_blob(self.name, config, &mut bytes, &|_more| {});
        pulled.map_err(|error| self.failed(error))?;
        Image::of_documents(digest, manifest, bytes)
    }
}
