//! Copies manifests and their blobs from one repository to another: the registry mounts a blob, or it is
//! relayed through memory.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use crate::image::documents::try_each;
use crate::image::fetch::BlobRelay;
use crate::image::{ExportError, Result};
use crate::limits::{MAX_IMAGES_AT_ONCE, MAX_INDEX_DEPTH};
use crate::oci::{Descriptor, Digest, ManifestOrIndex, MediaType, Reference};
use crate::pool;
use crate::registry::{Client, RegistryError};
use crate::store::LayerSource;

use super::combine::{ATTESTATION_ARTIFACT, CombinedPart};

/// Number of blobs that are copied at once.
const PARALLEL_COPIES: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");

/// Types of the referrers that are copied with their image: attestations and signatures.
const COPIED_REFERRERS: [&str; 3] = [
    ATTESTATION_ARTIFACT,
    "application/vnd.dev.cosign.artifact.sig.v1+json",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
];

/// A manifest or index that is to be copied.
struct Document {
    digest: Digest,
    media_type: MediaType,
    bytes: Vec<u8>,
}

/// Documents in the order in which a registry accepts them, and their blobs with the repository that has
/// each.
#[derive(Default)]
struct Copies {
    documents: Vec<Document>,
    blobs: BTreeMap<Digest, (Descriptor, Reference)>,
}

/// Ensures that the repository of `target` has the parts, with everything that they list. Parts of the
/// same repository are there. `progress` gets the number of bytes that are sent.
///
/// # Errors
/// [`ExportError::Remote`]; [`ExportError::Registry`]; [`ExportError::Origin`] for a blob;
/// [`ExportError::Manifest`].
pub fn copy(
    registry: &Client,
    parts: &[CombinedPart],
    target: &Reference,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let is_elsewhere = |part: &&CombinedPart| part.source.name() != target.name();
    let parts: Vec<&CombinedPart> = parts.iter().filter(is_elsewhere).collect();
    let collected = pool::map_in_order(&parts, MAX_IMAGES_AT_ONCE, |part| {
        let mut copies = Copies::default();
        copies.collect(registry, &part.source, part.entry.digest, 0)?;
        Ok::<_, ExportError>(copies)
    });
    let mut copies = Copies::default();
    let mut known = BTreeSet::new();
    for one in collected {
        let Copies { documents, blobs } = one?;
        copies.documents.extend(documents.into_iter().filter(|it| known.insert(it.digest)));
        copies.blobs.extend(blobs);
    }
    let blobs: Vec<&(Descriptor, Reference)> = copies.blobs.values().collect();
    try_each(&blobs, PARALLEL_COPIES, |(blob, source)| {
        copy_blob(registry, blob, source, target, progress)
    })?;
    for document in &copies.documents {
        let name = target.with_digest(document.digest);
        let pushed = registry.push_manifest(&name, &document.media_type, &document.bytes);
        pushed.map_err(|source| ExportError::Registry { name: target.name(), source })?;
    }
    Ok(())
}

impl Copies {
    /// Collects a document and everything that it lists, and the signatures and attestations that refer to
    /// it.
    fn collect(
        &mut self,
        registry: &Client,
        source: &Reference,
        digest: Digest,
        depth: usize,
    ) -> Result<()> {
        let name = source.with_digest(digest);
        let failed = |source: RegistryError| ExportError::Remote { name: name.to_string(), source };
        if depth > MAX_INDEX_DEPTH {
            let why = format!("{name} is nested more than {MAX_INDEX_DEPTH} deep");
            return Err(ExportError::Join { why });
        }
        if self.documents.iter().any(|document| document.digest == digest) {
            return Ok(());
        }
        let fetched = registry.manifest(&name).map_err(failed)?;
        let parsed = ManifestOrIndex::parse(&fetched.bytes)
            .map_err(|source| ExportError::Manifest { manifest: digest, source })?;
        match parsed {
            ManifestOrIndex::Manifest(manifest) => {
                for blob in std::iter::once(manifest.config).chain(manifest.layers) {
                    // Layers with addresses of their own must not be distributed (image-spec, layer.md,
                    // "Non-Distributable Layers").
                    if blob.urls.is_empty() {
                        self.blobs.insert(blob.digest, (blob, source.clone()));
                    }
                }
            }
            ManifestOrIndex::Index(index) => {
                for entry in &index.manifests {
                    self.collect(registry, source, entry.digest, depth + 1)?;
                }
            }
        }
        let media_type = fetched.media_type;
        self.documents.push(Document { digest, media_type, bytes: fetched.bytes });
        for referrer in registry.referrers(source, digest).map_err(failed)? {
            let kind = referrer.artifact_type.as_deref().unwrap_or_default();
            if COPIED_REFERRERS.contains(&kind) {
                self.collect(registry, source, referrer.digest, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn copy_blob(
    registry: &Client,
    blob: &Descriptor,
    source: &Reference,
    target: &Reference,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let origin = LayerSource { blob: blob.clone(), place: source.name() };
    let relay = BlobRelay::new(registry, &origin);
    let is_same_registry = source.registry() == target.registry();
    let mount_from = is_same_registry.then(|| source.repository());
    let sent = pool::scope(|scope| {
        registry.push_blob(target, blob, mount_from, &|| relay.open(scope), progress)
    });
    match (sent, relay.failure()) {
        (Ok(_), _) => Ok(()),
        (Err(_), Some(failure)) => Err(failure),
        (Err(source), None) => Err(ExportError::Registry { name: target.name(), source }),
    }
}
