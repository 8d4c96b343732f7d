//! Pushes documents of the store unchanged: the same bytes, the same digest.

use std::io::{self, Read};
use std::num::NonZeroUsize;

use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, ManifestOrIndex, MediaType, Reference};
use crate::pool;
use crate::registry::{Client, RegistryError};
use crate::store::{LayerSource, Store, StoreError};

use super::documents::try_each;
use super::fetch::{self, BlobRelay};
use super::{ExportError, Image, Result};

/// Number of parallel uploads.
const PARALLEL_UPLOADS: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");

/// Pushes the manifest or index `digest` as `name`, with everything that it lists. Layers that the
/// store lacks are relayed from their known sources.
///
/// # Errors
/// [`ExportError::Registry`]; [`ExportError::Store`] if content is missing.
pub fn push_verbatim(
    store: &Store,
    registry: &Client,
    digest: Digest,
    name: &Reference,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let bytes = store.read_blob(digest, MAX_DOCUMENT_BYTES)?;
    let parsed = ManifestOrIndex::parse(&bytes);
    let parsed = parsed.map_err(|source| ExportError::Manifest { manifest: digest, source })?;
    let media_type = match parsed {
        ManifestOrIndex::Manifest(manifest) => {
            let config = store.read_blob(manifest.config.digest, MAX_DOCUMENT_BYTES)?;
            let pusher = VerbatimPusher { store, registry, name, progress };
            pusher.bytes(&manifest.config, &config)?;
            let ids = diff_ids(&config, manifest.layers.len());
            let layers: Vec<_> = ids.into_iter().zip(&manifest.layers).collect();
            try_each(&layers, PARALLEL_UPLOADS, |(diff_id, blob)| pusher.layer(*diff_id, blob))?;
            manifest.media_type.unwrap_or(MediaType::OciManifest)
        }
        ManifestOrIndex::Index(index) => {
            for entry in &index.manifests {
                let own = name.with_digest(entry.digest);
                push_verbatim(store, registry, entry.digest, &own, progress)?;
            }
            index.media_type.unwrap_or(MediaType::OciIndex)
        }
    };
    let pushed = registry.push_manifest(name, &media_type, &bytes);
    pushed.map(drop).map_err(|error| failed(name, error))
}

/// Returns the DiffIDs of a manifest's layers, from its config. An artifact's layers have none.
fn diff_ids(config: &[u8], n_layers: usize) -> Vec<Option<DiffId>> {
    match ImageConfig::parse(config) {
        Ok(config) if config.rootfs.diff_ids.len() == n_layers => {
            config.rootfs.diff_ids.into_iter().map(Some).collect()
        }
        Ok(_) | Err(_) => vec![None; n_layers],
    }
}

/// Returns whether the index and its images are in the store unchanged, as they were pulled: the
/// layers have their original compression, and the documents are all OCI's or all Docker's. Then
/// they can be pushed unchanged.
///
/// # Errors
/// [`ExportError::Store`] if a document is missing.
pub fn is_unmodified(store: &Store, top: Digest) -> Result<bool> {
    let parse = |digest: Digest| {
        let parsed = ManifestOrIndex::parse(&store.read_blob(digest, MAX_DOCUMENT_BYTES)?);
        parsed.map_err(|source| ExportError::Manifest { manifest: digest, source })
    };
    let ManifestOrIndex::Index(index) = parse(top)? else { return Ok(false) };
    let images: Vec<Digest> = index.images().map(|entry| entry.digest).collect();
    let mut n_layers = 0;
    for entry in &index.manifests {
        if !store.has_blob(entry.digest) {
            return Ok(false);
        }
        if !images.contains(&entry.digest) {
            continue;
        }
        let ManifestOrIndex::Manifest(manifest) = parse(entry.digest)? else { return Ok(false) };
        let is_docker = manifest.config.media_type == MediaType::DockerConfig;
        let is_same =
            |layer: &Descriptor| matches!(layer.media_type, MediaType::DockerLayer(_)) == is_docker;
        let image = Image::load(store, entry.digest)?;
        n_layers += image.layers().len();
        if !manifest.layers.iter().all(is_same)
            || image.layers().iter().any(|layer| layer.pulled.is_none())
        {
            return Ok(false);
        }
    }
    Ok(n_layers > 0)
}

struct VerbatimPusher<'a> {
    store: &'a Store,
    registry: &'a Client,
    name: &'a Reference,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl VerbatimPusher<'_> {
    fn bytes(&self, blob: &Descriptor, bytes: &[u8]) -> Result<()> {
        let open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(io::Cursor::new(bytes.to_vec())))
        };
        self.send(blob, None, &open)
    }

    fn layer(&self, diff_id: Option<DiffId>, blob: &Descriptor) -> Result<()> {
        let store = self.store;
        if store.has_blob(blob.digest) {
            let open = || -> io::Result<Box<dyn Read + Send>> {
                let opened = store.open_checked_blob(blob.digest);
                Ok(Box::new(opened.map_err(|error| io::Error::new(error.kind(), error))?))
            };
            return self.send(blob, None, &open);
        }
        let sources =
            diff_id.map_or(Ok(Vec::new()), |diff_id| store.layer_sources().of_layer(diff_id))?;
        let source = fetch::holding(&sources, blob).ok_or_else(|| {
            let what = format!(
                "the layer {} with its original compression; push the image by its tag",
                blob.digest
            );
            StoreError::Missing { what }
        })?;
        self.mount_or_relay(blob, source)
    }

    fn mount_or_relay(&self, blob: &Descriptor, source: &LayerSource) -> Result<()> {
        let same = |other: &Reference| other.registry() == self.name.registry();
        let from = fetch::repository(source).filter(same);
        let from = from.as_ref().map(Reference::repository);
        let relay = BlobRelay::new(self.registry, source);
        let sent = pool::scope(|scope| self.send(blob, from, &|| relay.open(scope)));
        match relay.failure() {
            Some(failure) if sent.is_err() => Err(failure),
            _ => sent,
        }
    }

    fn send(
        &self,
        blob: &Descriptor,
        from: Option<&str>,
        open: &(dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync),
    ) -> Result<()> {
        let pushed = self.registry.push_blob(self.name, blob, from, open, self.progress);
        pushed.map(drop).map_err(|error| failed(self.name, error))
    }
}

fn failed(name: &Reference, source: RegistryError) -> ExportError {
    ExportError::Registry { name: name.familiar(), source }
}
