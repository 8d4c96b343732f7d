//! Listings of layers in a cache: a COPY or WORKDIR on cached layers needs to know the directories below,
//! and pulls a few hundred kilobytes in place of the layers.

use std::num::NonZeroUsize;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::archive::{self, Packing};
use crate::limits::{MAX_CACHED_LISTING_BYTES, MAX_UNTRUSTED_ENTRIES};
use crate::oci::{Descriptor, DiffId, MediaType};
use crate::store::Store;
use crate::tree::LayerEntries as _;

/// Media type of a listing: zstd of the encoding that the store uses.
const MEDIA_TYPE: &str = "application/vnd.rbuild.listing.v1+zstd";

/// Length in bytes up to which a listing is part of the document: a blob of its own costs more requests.
const INLINE_BYTES: usize = 1 << 10;

/// The listing of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::executor) struct CachedListing {
    pub(super) diff_id: DiffId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) blob: Option<Descriptor>,
    /// The packed listing in base64, if it is short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<String>,
    /// Time of the last use, in seconds since 1970.
    pub(super) used: i64,
}

impl CachedListing {
    /// Packs the listing of a layer, if the store has it and it is not too large. The second value is its
    /// blob, if it is not short.
    pub(super) fn of(
        store: &Store,
        diff_id: DiffId,
        now_s: i64,
    ) -> Option<(Self, Option<Vec<u8>>)> {
        let listing = store.listing_if_exists(diff_id).ok().flatten()?;
        let n_bytes = u64::try_from(listing.as_bytes().len()).ok()?;
        let is_small =
            n_bytes <= MAX_CACHED_LISTING_BYTES && listing.n_entries() <= MAX_UNTRUSTED_ENTRIES;
        if listing.is_unprotected() || !is_small {
            return None;
        }
        let packed = packed(listing.as_bytes()).ok()?;
        let short = packed.len() <= INLINE_BYTES;
        let cached = Self {
            diff_id,
            blob: (!short).then(|| Descriptor::of(media_type(), &packed)),
            data: short.then(|| BASE64.encode(&packed)),
            used: now_s,
        };
        Some((cached, (!short).then_some(packed)))
    }

    /// Returns the listing with another time of its last use.
    pub(super) fn used_at(&self, used: i64) -> Self {
        Self { used, ..self.clone() }
    }

    /// Returns whether both are the same listing.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        *self == Self { used: self.used, ..other.clone() }
    }
}

fn media_type() -> MediaType {
    MediaType::from(MEDIA_TYPE.to_owned())
}

fn packed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Write as _;
    let mut packer = archive::packer(Vec::new(), Packing::ZSTD, NonZeroUsize::MIN)?;
    packer.write_all(bytes)?;
    packer.finish()
}
