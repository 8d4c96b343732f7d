//! Merges the documents of several builds into one cache, which stays bounded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::oci::DiffId;
use crate::plan::CacheKey;

use super::document::{CacheDocument, CachedLayer, CachedMount, CachedStep};
use super::listings::CachedListing;

/// Age in seconds from which the time of the last use is written again. Otherwise each build would write
/// another document.
const USE_RESOLUTION_S: i64 = 24 * 60 * 60;

/// Bounds on what a cache keeps of earlier builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheBounds {
    /// Time after its last use at which a step is removed, seconds.
    pub max_age_s: i64,
    /// Maximum number of steps.
    pub max_steps: usize,
    /// Maximum size of all layers, as they are packed, in bytes.
    pub max_bytes: u64,
    /// Maximum size of all directories of `RUN --mount=type=cache`, as tars, in bytes.
    pub max_mounts_bytes: u64,
}

impl CacheBounds {
    /// The bounds unless the command line sets others: three thousand steps are those of a hundred branches
    /// with thirty each. Their manifest has half a mebibyte; registries accept four. A build that exports no
    /// directories removes none.
    pub const DEFAULT: Self = Self {
        max_age_s: 30 * 24 * 60 * 60,
        max_steps: 3000,
        max_bytes: 64 << 30,
        max_mounts_bytes: u64::MAX,
    };
}

/// Returns a document with the steps of `ours`, which are used now, and as many of `theirs` as the bounds
/// allow, those used last. It equals `theirs` if `ours` adds nothing.
pub(super) fn merge(
    ours: CacheDocument,
    theirs: CacheDocument,
    bounds: &CacheBounds,
    now_s: i64,
) -> CacheDocument {
    let own: BTreeSet<CacheKey> = ours.steps.iter().map(CachedStep::definition).collect();
    let layers = merged_layers(ours.layers, theirs.layers);
    let mut steps: Vec<CachedStep> =
        merged_steps(ours.steps, theirs.steps, now_s).into_values().collect();
    steps.sort_by_key(|step| (!own.contains(&step.definition()), Reverse(step.used_s())));
    let oldest_s = now_s.saturating_sub(bounds.max_age_s);
    let (mut kept, mut kept_layers, mut n_bytes) = (Vec::new(), BTreeSet::new(), 0_u64);
    for step in steps {
        let Some(layer) = layers.get(&step.layer) else { continue };
        let is_new = !kept_layers.contains(&step.layer);
        let with_layer = n_bytes.saturating_add(if is_new { layer.blob_bytes() } else { 0 });
        let fits = step.used_s() >= oldest_s
            && kept.len() < bounds.max_steps
            && with_layer <= bounds.max_bytes;
        if own.contains(&step.definition()) || fits {
            n_bytes = with_layer;
            kept_layers.insert(step.layer);
            kept.push(step);
        }
    }
    kept.sort_by_key(CachedStep::definition);
    let mut listings = merged_listings(ours.listings, theirs.listings, now_s);
    // A layer that no step has is one of a base image.
    listings.retain(|listing| match layers.contains_key(&listing.diff_id) {
        true => kept_layers.contains(&listing.diff_id),
        false => listing.used >= oldest_s,
    });
    let layers = layers.into_values().filter(|layer| kept_layers.contains(&layer.diff_id));
    CacheDocument {
        layers: layers.collect(),
        steps: kept,
        listings,
        mounts: merged_mounts(ours.mounts, theirs.mounts, bounds, now_s),
    }
}

fn merged_steps(
    ours: Vec<CachedStep>,
    theirs: Vec<CachedStep>,
    now_s: i64,
) -> BTreeMap<CacheKey, CachedStep> {
    let mut steps: BTreeMap<CacheKey, CachedStep> =
        theirs.into_iter().map(|step| (step.definition(), step)).collect();
    for step in ours {
        let known = steps.get(&step.definition()).filter(|known| {
            known.is_same(&step) && now_s.saturating_sub(known.used_s()) < USE_RESOLUTION_S
        });
        if known.is_none() {
            steps.insert(step.definition(), step.used_at(now_s));
        }
    }
    steps
}

/// Returns all layers. A known layer stays unchanged unless `ours` has another blob.
fn merged_layers(
    ours: Vec<CachedLayer>,
    theirs: Vec<CachedLayer>,
) -> BTreeMap<DiffId, CachedLayer> {
    let mut layers: BTreeMap<DiffId, CachedLayer> =
        theirs.into_iter().map(|layer| (layer.diff_id, layer)).collect();
    for layer in ours {
        let known = layers.get(&layer.diff_id);
        if known.is_none_or(|known| known.blob != layer.blob) {
            layers.insert(layer.diff_id, layer);
        }
    }
    layers
}

/// Returns the listings, ours if both have one.
fn merged_listings(
    ours: Vec<CachedListing>,
    theirs: Vec<CachedListing>,
    now_s: i64,
) -> Vec<CachedListing> {
    let mut listings: BTreeMap<DiffId, CachedListing> =
        theirs.into_iter().map(|listing| (listing.diff_id, listing)).collect();
    for listing in ours {
        let known = listings.get(&listing.diff_id).filter(|known| {
            listing.is_same(known) && now_s.saturating_sub(known.used) < USE_RESOLUTION_S
        });
        if known.is_none() {
            listings.insert(listing.diff_id, listing);
        }
    }
    listings.into_values().collect()
}

/// Returns the directories, ours in place of theirs.
fn merged_mounts(
    ours: Vec<CachedMount>,
    theirs: Vec<CachedMount>,
    bounds: &CacheBounds,
    now_s: i64,
) -> Vec<CachedMount> {
    let own: BTreeSet<CacheKey> = ours.iter().map(CachedMount::key).collect();
    let mut mounts: BTreeMap<CacheKey, CachedMount> =
        theirs.into_iter().map(|mount| (mount.key(), mount)).collect();
    for mount in ours {
        let known = mounts.get(&mount.key()).filter(|known| {
            known.archive == mount.archive && now_s - known.used_s(now_s) < USE_RESOLUTION_S
        });
        if known.is_none() {
            mounts.insert(mount.key(), mount.used_at(now_s));
        }
    }
    let mut mounts: Vec<CachedMount> = mounts.into_values().collect();
    mounts.sort_by_key(|mount| (!own.contains(&mount.key()), Reverse(mount.used_s(now_s))));
    let oldest_s = now_s.saturating_sub(bounds.max_age_s);
    let mut n_bytes = 0_u64;
    mounts.retain(|mount| {
        let with_mount = n_bytes.saturating_add(mount.archive.tar_bytes);
        let fits = mount.used_s(now_s) >= oldest_s && with_mount <= bounds.max_mounts_bytes;
        let is_kept = own.contains(&mount.key()) || fits;
        n_bytes = if is_kept { with_mount } else { n_bytes };
        is_kept
    });
    mounts.sort_by_key(CachedMount::key);
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Digest, LayerCompression, MediaType};
    use crate::store::{LayerRecord, StepOrigin, StepRecord};
    use crate::tree::ContentDigest;

    const NOW_S: i64 = 2_000_000_000;
    const DAY_S: i64 = 24 * 60 * 60;

    /// A document with these steps, used so many days ago, each with a layer whose blob has 5 bytes.
    fn document(steps: &[(u8, i64)]) -> CacheDocument {
        let mut document = CacheDocument::default();
        for (number, days) in steps {
            let step = StepRecord {
                definition: CacheKey::new([*number; 32]),
                content: CacheKey::new([*number; 32]),
                operation: CacheKey::new([*number; 32]),
                components: "[]".to_owned(),
                layer: DiffId::new(Digest::of(&[*number])),
                created_s: NOW_S - 100 * DAY_S,
                duration_ms: 1,
                origin: StepOrigin::default(),
            };
            let content = ContentDigest::new([*number; 32]);
            let record = LayerRecord { content, tar_bytes: 9, created_s: 0 };
            let mut layer = CachedLayer::new(step.layer, &record);
            let media_type = MediaType::OciLayer(LayerCompression::Gzip);
            layer.blob = Some(Descriptor::of(media_type, &[*number; 5]));
            document.layers.push(layer);
            document.steps.push(CachedStep::new(&step).used_at(NOW_S - days * DAY_S));
        }
        document.layers.sort_by_key(|layer| layer.diff_id);
        document
    }

    fn numbers(document: &CacheDocument) -> Vec<u8> {
        assert_eq!(document.layers.len(), document.steps.len());
        document.steps.iter().map(|step| step.definition().as_bytes()[0]).collect()
    }

    #[test]
    fn steps_of_both_are_kept_within_the_bounds() {
        let default = CacheBounds::DEFAULT;
        let (ours, theirs) = (document(&[(1, 0), (2, 0)]), document(&[(2, 3), (3, 2), (4, 31)]));
        for (bounds, want) in [
            (default, &[1, 2, 3][..]),
            (CacheBounds { max_age_s: 40 * DAY_S, ..default }, &[1, 2, 3, 4]),
            (CacheBounds { max_age_s: DAY_S, ..default }, &[1, 2]),
            (CacheBounds { max_steps: 3, max_age_s: 40 * DAY_S, ..default }, &[1, 2, 3]),
            (CacheBounds { max_bytes: 15, max_age_s: 40 * DAY_S, ..default }, &[1, 2, 3]),
            // Our own steps are kept in any case.
            (CacheBounds { max_steps: 0, max_age_s: 0, max_bytes: 0, ..default }, &[1, 2]),
        ] {
            let merged = merge(ours.clone(), theirs.clone(), &bounds, NOW_S);
            assert_eq!(numbers(&merged), want, "{bounds:?}");
            // The second time nothing changes.
            assert_eq!(merge(ours.clone(), merged.clone(), &bounds, NOW_S + 60), merged);
        }
    }

    #[test]
    fn use_is_noted_once_a_day() {
        let ours = document(&[(1, 0)]);
        let recent = document(&[(1, 0), (2, 5)]);
        let later_s = NOW_S + DAY_S - 1;
        assert_eq!(merge(ours.clone(), recent.clone(), &CacheBounds::DEFAULT, later_s), recent);
        let merged = merge(ours, recent, &CacheBounds::DEFAULT, later_s + 1);
        let used: Vec<i64> = merged.steps.iter().map(CachedStep::used_s).collect();
        assert_eq!(used, [later_s + 1, NOW_S - 5 * DAY_S]);
    }

    #[test]
    fn another_result_of_a_step_replaces_the_known_one() {
        let theirs = document(&[(1, 0)]);
        let mut ours = document(&[(1, 0)]);
        let layer = DiffId::new(Digest::of(b"rebuilt"));
        ours.steps[0].layer = layer;
        ours.layers[0].diff_id = layer;
        let merged = merge(ours, theirs, &CacheBounds::DEFAULT, NOW_S);
        assert_eq!(numbers(&merged), [1]);
        assert_eq!((merged.steps[0].layer, merged.layers[0].diff_id), (layer, layer));
    }
}
