//! Locations that caches are exported to.

use std::time::Duration;

use crate::executor::{BuildError, Services};
use crate::image::{self, ImageLayer};
use crate::oci::{Descriptor, Digest};

use super::document::CacheDocument;

type Result<T> = std::result::Result<T, BuildError>;

/// A location of a cache that other processes may write at the same time.
pub(super) trait CacheSink {
    fn sharing(&self) -> Sharing;

    /// Returns the digest of what is there.
    fn version(&self) -> Result<Option<Digest>>;

    /// Returns the version that this build saw last, if it saw one.
    fn seen(&self) -> Option<SeenVersion> {
        None
    }

    /// Returns the document of this version; `None` if it is not a cache, or damaged: it is replaced then.
    fn read(&self, version: Digest) -> Result<Option<CacheDocument>>;

    /// Keeps blobs, which the build uses and the document names, from being removed for their age. Returns
    /// those that are gone, where this is how blobs go.
    fn renew(&self, _blobs: &[Descriptor]) -> Result<Vec<Digest>> {
        Ok(Vec::new())
    }

    /// Ensures that the location has the layers, and returns their blobs.
    fn send(&self, layers: &[ImageLayer]) -> Result<Vec<Descriptor>>;

    /// Ensures that the location has small blobs that are probably new.
    fn send_bytes(&self, blobs: &[(Descriptor, Vec<u8>)]) -> Result<()>;

    /// Writes a document, whose blobs are there, in place of the version `over`. `None` if another version
    /// was found: nothing is written then.
    fn write(&self, document: &CacheDocument, over: Option<Digest>) -> Result<Option<Written>>;

    /// Returns those of the blobs that are certainly not there.
    fn absent(&self, blobs: &[Descriptor]) -> Vec<Digest>;
}

/// A version of a location that an import saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeenVersion {
    pub(super) version: Option<Digest>,
    /// True if that was a moment ago.
    pub(super) is_recent: bool,
}

/// A document that was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) version: Digest,
    /// Time from the last look at the version to the end of the write: another writer is not noticed in it.
    pub(super) window: Duration,
}

/// Protection of a location from two writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// The sink holds a lock.
    Locked,
    /// The location cannot be locked, and a write cannot depend on the version (distribution-spec, "Pushing
    /// Manifests"). A writer looks again after a while, and merges what replaced its document.
    Optimistic,
}

/// Fetches layers and archives that the store lacks. Archives are removed when the process ends.
pub(super) fn fetch_missing(services: &Services<'_>, layers: &[ImageLayer]) -> Result<()> {
    let (store, registry) = (services.store, services.registry);
    for layer in layers {
        let fetched = match &layer.pulled {
            Some(blob) if store.has_blob(blob.digest) => Ok(()),
            Some(blob) => image::fetch_temporarily(store, registry, layer.diff_id, blob),
            None if store.has_layer(layer.diff_id)? => Ok(()),
            None => image::fetch_layer(store, registry, layer.diff_id, None, &|_more| {}),
        };
        fetched.map_err(BuildError::Export)?;
    }
    Ok(())
}
