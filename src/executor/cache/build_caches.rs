//! The build caches elsewhere that one build names, and the steps that it used or made for them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::executor::{BuildError, Event, Services, chain};
use crate::image;
use crate::oci::{DiffId, Digest};
use crate::plan::CacheKey;
use crate::pool;
use crate::store::{StepRecord, Store};

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
    /// Documents of registries that were imported, by the digests of their manifests.
    documents: BTreeMap<Digest, CacheDocument>,
    /// Layers that the caches claim: true for those that a location still has. Set when the first is needed.
    answers: OnceLock<BTreeMap<DiffId, bool>>,
    /// Set once a location of imported layers did not answer: the others are not asked then.
    is_unreachable: AtomicBool,
}

/// Number of layers up to which all that the caches claim are asked for at once. Of more, a build usually
/// needs only some.
const MAX_ASKED_AT_ONCE: usize = 64;
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
            documents,
            answers: OnceLock::new(),
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

    /// Returns whether a layer is in the store, or at a location that still has it.
    pub(in crate::executor) fn can_have(
        &self,
        services: &Services<'_>,
        layer: DiffId,
    ) -> Result<bool, BuildError> {
        if services.store.has_layer(layer)? {
            return Ok(true);
        }
        let answers = self.answers.get_or_init(|| self.ask_for_all(services));
        Ok(answers.get(&layer).copied().unwrap_or_else(|| self.is_obtainable(services, layer)))
    }

    /// Asks for all layers that the caches claim and the store lacks, unless they are too many: the steps
    /// of a build are looked up one after the other.
    fn ask_for_all(&self, services: &Services<'_>) -> BTreeMap<DiffId, bool> {
        let is_missing = |layer: &DiffId| !services.store.has_layer(*layer).unwrap_or(true);
        let layers: Vec<DiffId> = self.known.layers.keys().copied().filter(is_missing).collect();
        if layers.len() > MAX_ASKED_AT_ONCE {
            return BTreeMap::new();
        }
        let answers = pool::map_in_order(&layers, PARALLEL_REQUESTS, |layer| {
            self.is_obtainable(services, *layer)
        });
        layers.into_iter().zip(answers).collect()
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
