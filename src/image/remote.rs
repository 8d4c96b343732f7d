//! Images of registries, read without keeping anything of them.

use crate::limits::{MAX_DOCUMENT_BYTES, MAX_IMAGES_AT_ONCE};
use crate::oci::{Descriptor, Digest, Manifest, Parsed, Platform, Reference};
use crate::pool;
use crate::registry::{Client, RegistryError};

use super::{ExportError, Image, Loaded, Result};

/// Reads what `name` stands for in its registry: manifests and configs, no layers. Of an index, the
/// image for `platform` if one is given.
///
/// # Errors
/// [`ExportError::Remote`] with the registry's; [`ExportError::NoPlatform`]; as of
/// [`super::Loaded::load`].
pub fn read_remote(
    registry: &Client,
    name: &Reference,
    platform: Option<&Platform>,
) -> Result<(Digest, Loaded)> {
    let remote = Remote { registry, name };
    let (top, parsed) = remote.manifest(name)?;
    let index = match parsed {
        Parsed::Manifest(manifest) => {
            let image = remote.image(top, manifest)?;
            let found = [image.platform()];
            if let Some(wanted) = platform.filter(|wanted| !found.contains(wanted)) {
                return Err(remote.without(wanted, &found));
            }
            return Ok((top, Loaded::of_one(image)));
        }
        Parsed::Index(index) => index,
    };
    let entries: Vec<&Descriptor> = match platform {
        None => index.images().collect(),
        Some(wanted) => match index.select(wanted) {
            Some(entry) => vec![entry],
            None => {
                let has: Vec<Platform> =
                    index.images().filter_map(|entry| entry.platform.clone()).collect();
                return Err(remote.without(wanted, &has));
            }
        },
    };
    let images = pool::map_in_order(&entries, MAX_IMAGES_AT_ONCE, |entry| {
        match remote.manifest(&name.with_digest(entry.digest))? {
            (digest, Parsed::Manifest(manifest)) => remote.image(digest, manifest),
            (manifest, Parsed::Index(_)) => Err(ExportError::Index { manifest }),
        }
    });
    let n_others = index.manifests.len() - index.images().count();
    let images = images.into_iter().collect::<Result<_>>()?;
    Ok((top, Loaded { images, is_index: true, annotations: index.annotations, n_others }))
}

struct Remote<'a> {
    registry: &'a Client,
    name: &'a Reference,
}

impl Remote<'_> {
    fn failed(&self, source: RegistryError) -> ExportError {
        ExportError::Remote { name: self.name.familiar(), source }
    }

    fn without(&self, wanted: &Platform, has: &[Platform]) -> ExportError {
        let has: Vec<String> = has.iter().map(ToString::to_string).collect();
        let (name, wanted) = (self.name.familiar(), wanted.to_string());
        ExportError::NoPlatform { name, wanted, has: has.join(", ") }
    }

    fn manifest(&self, name: &Reference) -> Result<(Digest, Parsed)> {
        let fetched = self.registry.manifest(name).map_err(|error| self.failed(error))?;
        let manifest = fetched.digest;
        let parsed = Parsed::parse(&fetched.bytes);
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
