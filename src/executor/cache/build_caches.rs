//! The build caches elsewhere that one build names, and the steps that it used or made for them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::executor::{BuildError, Event, Services, chain};
use crate::image;
use crate::oci::DiffId;
use crate::plan::CacheKey;
use crate::pool;
use crate::store::{StepRecord, Store};

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
    /// Set once a location of imported layers did not answer: the others are not asked then.
    is_unreachable: AtomicBool,
}

impl BuildCaches {
    /// Returns the caches of a build that starts with these imports.
    pub(in crate::executor) fn new(imported: ImportedCaches) -> Self {
        let ImportedCaches { offers, known } = imported;
        Self {
            known,
            mounts: CacheMountTransfer::new(offers),
            used: Mutex::default(),
            is_unreachable: AtomicBool::new(false),
        }
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
        let (store, registry) = (services.store, services.registry);
        if store.has_layer(layer)? {
            return Ok(true);
        }
        if self.is_unreachable.load(Ordering::Relaxed) {
            return Ok(false);
        }
        image::is_obtainable(store, registry, layer).or_else(|error| {
            self.is_unreachable.store(true, Ordering::Relaxed);
            let text = format!("steps of other machines are not used: {}", chain(&error));
            services.event(Event::Warning { text });
            Ok(false)
        })
    }
}
