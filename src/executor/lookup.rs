//! Whether a step was made before: by what made it, or by what its parent holds.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::plan::{CacheKey, Component, OperationKey, redacted};
use crate::store::{StepRecord, StoreLock, StoredLayer};

use super::driver::{At, Run};
use super::explain::{json_of_parts, standing_on};
use super::stack::Stack;
use super::{BuildError, Failure, StepId};

type Result<T> = std::result::Result<T, Failure>;

fn without_password(part: &Component) -> Component {
    Component { value: redacted(&part.value), ..part.clone() }
}

impl Run<'_> {
    /// A step by its keys.
    pub(super) fn wanted(
        &self,
        at: At<'_>,
        step: StepId,
        key: &OperationKey,
        stack: &Stack,
    ) -> Wanted {
        let operation = key.key();
        let standing_on = standing_on(stack.definition().as_bytes(), self.base_name(at.stage));
        Wanted {
            definition: operation.on(stack.definition()),
            operation,
            // They are kept, and go with caches to registries: the key alone knows a password.
            parts: key.components().iter().map(without_password).chain(standing_on).collect(),
            step,
            name: self.place(at).to_string(),
            stage: at.stage,
            is_fresh: stack.is_fresh(),
        }
    }

    pub(super) fn made(&self) -> std::sync::MutexGuard<'_, BTreeMap<CacheKey, Stack>> {
        // Each use is one call on the map: a panic elsewhere leaves it whole.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a step up, first by what made it, then by what its parent holds; or claims it, so
    /// that nobody else makes it at the same time.
    pub(super) fn find_or_claim(&self, wanted: &Wanted, stack: &Stack) -> Result<Found> {
        let log = |answer| {
            let Wanted { name, definition, operation, .. } = wanted;
            tracing::debug!(step = redacted(name), %definition, %operation, "cache {answer}");
        };
        if let Some(found) = self.find(wanted, stack)? {
            log("hit");
            return Ok(Found::Made(found));
        }
        let lock = self.services.store.lock_step(wanted.definition).map_err(BuildError::from)?;
        // Whoever held the lock may have made it.
        if let Some(found) = self.find(wanted, stack)? {
            log("hit of a step that another build made");
            return Ok(Found::Made(found));
        }
        log("miss");
        self.explain(wanted)?;
        let wanted = wanted.clone();
        Ok(Found::Claimed(Claim { wanted, duration_ms: AtomicU64::new(0), _lock: lock }))
    }

    /// Looks a step up.
    pub(super) fn find(&self, wanted: &Wanted, stack: &Stack) -> Result<Option<Stack>> {
        if let Some(found) = self.find_by_definition(wanted.definition, wanted.is_fresh, stack)? {
            return Ok(Some(found));
        }
        let store = self.services.store;
        let error = BuildError::from;
        // Only a record of the same operation can be found by content: without one there is no
        // need to wait for the parent's content.
        if self.options.no_cache || !store.steps().has_operation(wanted.operation).map_err(error)? {
            return Ok(None);
        }
        let content = wanted.operation.on(stack.content()?);
        for hit in store.steps().by_content(content).map_err(error)? {
            let Wanted { definition, operation, .. } = *wanted;
            let components = json_of_parts(&wanted.parts);
            let origin = stack.origin().and(&hit.origin);
            let record = StepRecord { definition, content, operation, components, origin, ..hit };
            if let Some(found) = self.found(&record, stack)? {
                store.steps().record(&record).map_err(error)?;
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Looks a step up by what made it and all that is below it; when some of that is fresh, only
    /// among the steps of this build.
    pub(super) fn find_by_definition(
        &self,
        definition: CacheKey,
        is_fresh: bool,
        stack: &Stack,
    ) -> Result<Option<Stack>> {
        if let Some(made) = self.made().get(&definition) {
            return Ok(Some(made.clone()));
        }
        if self.options.no_cache || is_fresh {
            return Ok(None);
        }
        for hit in
            self.services.store.steps().by_definition(definition).map_err(BuildError::from)?
        {
            if let Some(found) = self.found(&hit, stack)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The stack with the record's layer on top, if this build may use the record, and its layer
    /// can be had.
    fn found(&self, hit: &StepRecord, stack: &Stack) -> Result<Option<Stack>> {
        if !hit.origin.is_within(&self.caches.places) {
            return Ok(None);
        }
        let own = self.services.store.layer(hit.layer).map_err(BuildError::from)?;
        // What a cache claims of a layer holds until the layer has been read.
        let claimed =
            || (!hit.origin.is_own()).then(|| self.caches.layers.get(&hit.layer)).flatten();
        let Some(mut record) = own.or_else(|| claimed().cloned()) else { return Ok(None) };
        if !self.can_have(hit.layer)? {
            return Ok(None);
        }
        self.meet(hit);
        record.created_s = hit.created_s;
        let done = StoredLayer { diff_id: hit.layer, record };
        let next = stack.with_found(hit.definition.as_bytes(), done, &hit.origin);
        self.made().insert(hit.definition, next.clone());
        Ok(Some(next))
    }

    pub(super) fn remember(&self, claim: &Claim, below: &Stack, layer: &StoredLayer) -> Result<()> {
        let record = StepRecord {
            definition: claim.wanted.definition,
            content: claim.wanted.operation.on(below.content()?),
            operation: claim.wanted.operation,
            components: json_of_parts(&claim.wanted.parts),
            layer: layer.diff_id,
            created_s: layer.record.created_s,
            duration_ms: claim.duration_ms.load(Ordering::Relaxed),
            origin: below.origin(),
        };
        self.meet(&record);
        Ok(self.services.store.steps().record(&record).map_err(BuildError::from)?)
    }
}

pub(super) enum Found {
    /// It is there.
    Made(Stack),
    /// It has to be made, by us.
    Claimed(Claim),
}

/// A step by its keys.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// By what made it: the operation, and what made all that is below.
    pub(super) definition: CacheKey,
    /// The operation alone, its sources by content.
    pub(super) operation: CacheKey,
    /// The parts of the operation's key, and what it stands on.
    pub(super) parts: Vec<Component>,
    /// What it is shown as, and called.
    pub(super) step: StepId,
    pub(super) name: String,
    pub(super) stage: usize,
    /// Whether anything that it is made from was made in this build: then the store's record of the
    /// same definition may be of other contents.
    pub(super) is_fresh: bool,
}

/// The right and duty to make a step.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) wanted: Wanted,
    duration_ms: AtomicU64,
    _lock: StoreLock,
}

impl Claim {
    pub(super) fn note_duration(&self, started: Instant) {
        let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.duration_ms.store(took, Ordering::Relaxed);
    }
}
