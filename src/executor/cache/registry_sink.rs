//! Export of caches to registries, as an artifact whose config is the document.

use std::num::NonZeroUsize;
use std::time::Instant;

use crate::image::{self, ExportError, ExportOptions, ImageLayer, PackedImage};
use crate::oci::{Descriptor, Digest, ManifestOrIndex, MediaType, Reference};
use crate::pool;
use crate::registry::RegistryError;

use super::document::{CacheDocument, MEDIA_TYPE};
use super::import;
use super::sink::{CacheSink, SeenVersion, Sharing, Written};

use crate::executor::{BuildError, Services};

type Result<T> = std::result::Result<T, BuildError>;

/// Number of requests for blobs that are made at the same time.
const PARALLEL_REQUESTS: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");

/// A name in a registry.
pub(super) struct RegistrySink<'a> {
    pub(super) services: &'a Services<'a>,
    pub(super) name: &'a Reference,
    pub(super) options: &'a ExportOptions,
}

impl CacheSink for RegistrySink<'_> {
    fn sharing(&self) -> Sharing {
        Sharing::Optimistic
    }

    fn version(&self) -> Result<Option<Digest>> {
        let digest = self.services.registry.tag_digest(self.name);
        digest.map_err(|source| self.failed(source))
    }

    fn seen(&self) -> Option<SeenVersion> {
        let seen = self.services.registry.seen_tag(self.name)?;
        Some(SeenVersion { version: seen.digest, is_recent: seen.is_recent() })
    }

    fn read(&self, version: Digest) -> Result<Option<CacheDocument>> {
        let name = self.name.with_digest(version);
        let fetched =
            self.services.registry.manifest(&name).map_err(|source| self.failed(source))?;
        let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&fetched.bytes) else {
            return Ok(None);
        };
        if manifest.config.media_type.as_str() != MEDIA_TYPE {
            return Ok(None);
        }
        match import::config_of(self.services, self.name, &manifest) {
            Ok(config) => Ok(serde_json::from_slice(&config).ok()),
            Err(BuildError::Image { source, .. }) if source.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send(&self, layers: &[ImageLayer]) -> Result<Vec<Descriptor>> {
        let Services { store, registry, .. } = *self.services;
        image::push_layers(store, registry, self.name, layers, self.options)
            .map_err(BuildError::Export)
    }

    fn send_bytes(&self, blobs: &[(Descriptor, Vec<u8>)]) -> Result<()> {
        let send = |(blob, bytes): &(Descriptor, Vec<u8>)| {
            image::push_bytes(self.services.registry, self.name, blob, bytes)
        };
        let sent = pool::map_in_order(blobs, PARALLEL_REQUESTS, send);
        sent.into_iter().collect::<std::result::Result<(), _>>().map_err(BuildError::Export)
    }

    /// Sends the document first: between the last look at the version and the manifest is nothing else.
    fn write(&self, document: &CacheDocument, over: Option<Digest>) -> Result<Option<Written>> {
        let bytes = document.to_bytes();
        let config = Descriptor::of(MediaType::from(MEDIA_TYPE.to_owned()), &bytes);
        let registry = self.services.registry;
        image::push_bytes(registry, self.name, &config, &bytes).map_err(BuildError::Export)?;
        let started = Instant::now();
        if self.version()? != over {
            return Ok(None);
        }
        let packed = PackedImage::of_artifact(config, document.blobs(), self.options);
        let media_type = &packed.descriptor.media_type;
        let pushed = registry.push_manifest(self.name, media_type, &packed.manifest);
        let version = pushed.map_err(|source| self.failed(source))?;
        Ok(Some(Written { version, window: started.elapsed() }))
    }

    fn absent(&self, blobs: &[Descriptor]) -> Vec<Digest> {
        let is_absent = |blob: &Descriptor| {
            matches!(self.services.registry.blob_exists(self.name, blob.digest), Ok(false))
        };
        let absent = pool::map_in_order(blobs, PARALLEL_REQUESTS, is_absent);
        let absent = blobs.iter().zip(absent).filter(|(_, is_absent)| *is_absent);
        absent.map(|(blob, _)| blob.digest).collect()
    }
}

impl RegistrySink<'_> {
    fn failed(&self, source: RegistryError) -> BuildError {
        BuildError::Export(ExportError::Registry { name: self.name.familiar(), source })
    }
}
