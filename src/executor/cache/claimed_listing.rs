//! Listings that a cache claims for layers which are not in the store.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::archive::PackedListing;
use crate::executor::Services;
use crate::image;
use crate::limits::MAX_CACHED_LISTING_BYTES;
use crate::oci::{Descriptor, Digest};
use crate::store::{LayerSource, StepOrigin};

use super::listings::CachedListing;

/// The listing of a layer as a cache has it.
#[derive(Debug, Clone)]
pub(in crate::executor) struct ClaimedListing {
    listing: CachedListing,
    /// Location of the cache.
    place: String,
}

impl ClaimedListing {
    pub(super) const fn new(listing: CachedListing, place: String) -> Self {
        Self { listing, place }
    }

    /// Returns the origin of what relies on the claim.
    pub(in crate::executor) fn origin(&self) -> StepOrigin {
        StepOrigin::of_cache(&self.place)
    }

    /// Reads the listing. `None` if it is gone or damaged: the layer itself has to be read then.
    pub(in crate::executor) fn read(&self, services: &Services<'_>) -> Option<PackedListing> {
        let packed = match (&self.listing.data, &self.listing.blob) {
            (Some(data), _) => BASE64.decode(data).ok()?,
            (None, Some(blob)) => self.fetched(services, blob)?,
            (None, None) => return None,
        };
        let mut bytes = Vec::new();
        let decoder = zstd::stream::read::Decoder::new(packed.as_slice()).ok()?;
        decoder.take(MAX_CACHED_LISTING_BYTES + 1).read_to_end(&mut bytes).ok()?;
        let is_whole = u64::try_from(bytes.len()).ok()? <= MAX_CACHED_LISTING_BYTES;
        is_whole.then(|| PackedListing::from_untrusted(bytes, self.listing.diff_id).ok()).flatten()
    }

    fn fetched(&self, services: &Services<'_>, blob: &Descriptor) -> Option<Vec<u8>> {
        let source = LayerSource { blob: blob.clone(), place: self.place.clone() };
        let bytes = image::read_small_blob(services.registry, &source, MAX_CACHED_LISTING_BYTES);
        let bytes = bytes.inspect_err(|error| tracing::debug!(%error, "listing not read")).ok()?;
        (Digest::of(&bytes) == blob.digest).then_some(bytes)
    }
}
