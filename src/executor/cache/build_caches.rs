//! The build caches elsewhere that one build names, and the steps that it used or made for them.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::archive::PackedListing;
use crate::executor::stack::Stack;
use crate::executor::{BuildError, Event, Services, chain};
use crate::image;
use crate::oci::{DiffId, Digest};
use crate::plan::CacheKey;
use crate::pool;
use crate::store::{StepOrigin, StepRecord, Store};

use super::claimed_listing::ClaimedListing;
use super::document::CacheDocument;
use super::import::{ImportedCaches, KnownCaches};
use super::mount_transfer::CacheMountTransfer;

/// The caches elsewhere of one build, as imported and as they will be exported.
#[derive(Debug)]
pub(in crate::executor) struct BuildCaches {
    /// Caches that this build names, and their claims about layers.
    pub(in crate::executor) known: KnownCaches,
    /// Directories of `RUN --mount=type=cache` that are imported or exported.
    pub(in crate::executor) mounts: CacheMountTransfer,
    /// All steps of this build that have a layer, executed or found.
    used: Mutex<BTreeMap<CacheKey, StepRecord>>,
    /// Layers of the base images.
    bases: Mutex<BTreeSet<DiffId>>,
    /// Listings of the caches that were read, or that could not be.
    listings: Mutex<BTreeMap<DiffId, Option<Arc<PackedListing>>>>,
    /// Documents of registries that were imported, by the digests of their manifests.
    documents: BTreeMap<Digest, CacheDocument>,
    layers: Mutex<RemoteLayers>,
    /// Set once a location of imported layers did not answer: the others are not asked then.
    is_unreachable: AtomicBool,
}

/// Facts about layers that the store lacks.
#[derive(Debug, Default)]
struct RemoteLayers {
    /// True for those that a location still has.
    answers: BTreeMap<DiffId, bool>,
    /// Those that steps were found with, and no location was asked for.
    assumed: BTreeSet<DiffId>,
}

/// Number of requests for layers that are made at the same time.
const PARALLEL_REQUESTS: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");

impl BuildCaches {
    /// Returns the caches of a build that starts with these imports.
    pub(in crate::executor) fn new(imported: ImportedCaches) -> Self {
        let ImportedCaches { offers, known, documents } = imported;
        Self {
            known,
            mounts: CacheMountTransfer::new(offers),
            used: Mutex::default(),
            bases: Mutex::default(),
            listings: Mutex::default(),
            documents,
            layers: Mutex::default(),
            is_unreachable: AtomicBool::new(false),
        }
    }

    /// Returns the imported document of a cache whose manifest has this digest.
    pub(in crate::executor) fn imported_document(
        &self,
        manifest: Digest,
    ) -> Option<&CacheDocument> {
        self.documents.get(&manifest)
    }

    /// Returns whether a cache has the listing of a layer.
    pub(in crate::executor) fn lists(&self, layer: DiffId) -> bool {
        self.known.listings.contains_key(&layer)
    }

    /// Reads those listings of layers that the caches have, all at once.
    pub(in crate::executor) fn read_listings(
        &self,
        services: &Services<'_>,
        layers: impl Iterator<Item = DiffId>,
    ) {
        let read = pool::lock(&self.listings).clone();
        let unread = layers.filter(|layer| !read.contains_key(layer));
        let unread: Vec<(DiffId, &ClaimedListing)> =
            unread.filter_map(|layer| Some((layer, self.known.listings.get(&layer)?))).collect();
        let listings = pool::map_in_order(&unread, PARALLEL_REQUESTS, |(_, claim)| {
            claim.read(services).map(Arc::new)
        });
        let layers = unread.into_iter().map(|(layer, _)| layer);
        pool::lock(&self.listings).extend(layers.zip(listings));
    }

    /// Returns the listing of a layer that was read from a cache, and its origin.
    pub(in crate::executor) fn claimed_listing(
        &self,
        layer: DiffId,
    ) -> Option<(Arc<PackedListing>, StepOrigin)> {
        let listing = pool::lock(&self.listings).get(&layer)?.clone()?;
        Some((listing, self.known.listings.get(&layer)?.origin()))
    }

    /// Notes the layers of a base image.
    pub(in crate::executor) fn note_base(&self, layers: impl IntoIterator<Item = DiffId>) {
        pool::lock(&self.bases).extend(layers);
    }

    /// Returns the layers of the base images.
    pub(in crate::executor) fn base_layers(&self) -> Vec<DiffId> {
        pool::lock(&self.bases).iter().copied().collect()
    }

    /// Notes a step that this build executed or found.
    pub(in crate::executor) fn note_use(&self, step: &StepRecord) {
        // Each use is one call on the map.
        let mut used = pool::lock(&self.used);
        used.insert(step.definition, step.clone());
    }

    /// Returns the steps that were executed or found so far.
    pub(in crate::executor) fn steps_used(&self) -> Vec<StepRecord> {
        let used = pool::lock(&self.used);
        used.values().cloned().collect()
    }

    /// Records in the store that the steps of this build were used.
    pub(in crate::executor) fn note_steps_used(&self, store: &Store) -> Result<(), BuildError> {
        Ok(store.steps().note_use(self.steps_used().into_iter().map(|step| step.definition))?)
    }

    /// Returns whether a layer is in the store, or probably at a location: [`Self::confirm`] asks. Steps are
    /// looked up one after the other, and a request for each would take most of the time.
    pub(in crate::executor) fn can_have(
        &self,
        services: &Services<'_>,
        layer: DiffId,
    ) -> Result<bool, BuildError> {
        if services.store.has_layer(layer)? {
            return Ok(true);
        }
        let has_source = !services.store.layer_sources().of_layer(layer)?.is_empty();
        let mut layers = pool::lock(&self.layers);
        match layers.answers.get(&layer) {
            Some(answer) => Ok(*answer),
            None if has_source => {
                layers.assumed.insert(layer);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Asks for all layers that were assumed to be at a location. Returns whether `stack` has none that is
    /// gone.
    pub(in crate::executor) fn confirm(&self, services: &Services<'_>, stack: &Stack) -> bool {
        let assumed: Vec<DiffId> = pool::lock(&self.layers).assumed.iter().copied().collect();
        let answers = pool::map_in_order(&assumed, PARALLEL_REQUESTS, |layer| {
            self.is_obtainable(services, *layer)
        });
        let gone: BTreeSet<DiffId> = {
            let mut layers = pool::lock(&self.layers);
            layers.assumed.retain(|layer| !assumed.contains(layer));
            layers.answers.extend(assumed.into_iter().zip(answers));
            let gone = layers.answers.iter().filter(|(_, is_there)| !**is_there);
            gone.map(|(layer, _)| *layer).collect()
        };
        pool::lock(&self.used).retain(|_, step| !gone.contains(&step.layer));
        !self.has_gone_layer(services, stack)
    }

    /// Returns whether the stack has a layer that is certainly gone.
    pub(in crate::executor) fn has_gone_layer(
        &self,
        services: &Services<'_>,
        stack: &Stack,
    ) -> bool {
        let layers = pool::lock(&self.layers);
        // A step that ran again may have made it.
        let is_gone = |layer: DiffId| {
            layers.answers.get(&layer) == Some(&false)
                && !services.store.has_layer(layer).unwrap_or_default()
        };
        layers.answers.values().any(|is_there| !is_there) && stack.has_own_layer(is_gone)
    }

    /// Returns whether a location still has a layer. The first that does not answer is reported.
    fn is_obtainable(&self, services: &Services<'_>, layer: DiffId) -> bool {
        if self.is_unreachable.load(Ordering::Relaxed) {
            return false;
        }
        image::is_obtainable(services.store, services.registry, layer).unwrap_or_else(|error| {
            if !self.is_unreachable.swap(true, Ordering::Relaxed) {
                let text = format!("steps of other machines are not used: {}", chain(&error));
                services.event(Event::Warning { text });
            }
            false
        })
    }
}
