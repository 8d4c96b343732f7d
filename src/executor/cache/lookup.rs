//! Lookup of steps: by what defines them, or by the content of their parent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::executor::planned_step::PlannedStep;
use crate::executor::stack::Stack;
use crate::executor::{BuildError, Failure, Services, StepId};
use crate::plan::{CacheKey, Component, OperationKey, redacted};
use crate::pool;
use crate::store::{StepRecord, StoreLock, StoredLayer};

use super::build_caches::BuildCaches;
use super::explain::Explainer;
use super::step_keys::{StepKeys, json_of_parts, parent_parts};

type Result<T> = std::result::Result<T, Failure>;

/// The steps that a build can reuse: its own, those of the store, and those of the caches that it names.
#[derive(Debug)]
pub(in crate::executor) struct StepCache<'a> {
    services: &'a Services<'a>,
    caches: &'a BuildCaches,
    pub(in crate::executor) explainer: Explainer<'a>,
    /// Steps of this build by definition. Equal steps of several stages are executed once.
    finished: Mutex<BTreeMap<CacheKey, Stack>>,
}

/// The result of a lookup that claims a step if it is not found.
pub(in crate::executor) enum Lookup {
    /// The step is cached; this is the stack with its layer on top.
    Cached(Stack),
    /// The caller has to execute the step.
    Claimed(Claim),
}

/// The right and the duty to execute a step, exclusive among all processes.
#[derive(Debug)]
pub(in crate::executor) struct Claim {
    pub(in crate::executor) keys: StepKeys,
    duration_ms: AtomicU64,
    _lock: StoreLock,
}

impl Claim {
    /// Sets how long the step took, for later estimates.
    pub(in crate::executor) fn note_duration(&self, started: Instant) {
        let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.duration_ms.store(took, Ordering::Relaxed);
    }
}

fn without_password(part: &Component) -> Component {
    Component { value: redacted(&part.value), ..part.clone() }
}

impl<'a> StepCache<'a> {
    pub(in crate::executor) const fn new(
        services: &'a Services<'a>,
        caches: &'a BuildCaches,
        explainer: Explainer<'a>,
    ) -> Self {
        Self { services, caches, explainer, finished: Mutex::new(BTreeMap::new()) }
    }

    /// Returns the keys of a step on top of `stack`.
    pub(in crate::executor) fn keys(
        &self,
        at: PlannedStep<'_>,
        step: StepId,
        key: &OperationKey,
        stack: &Stack,
    ) -> StepKeys {
        let operation = key.key();
        let base = self.explainer.base_name(at.stage);
        let parent = parent_parts(stack.definition().as_bytes(), base);
        StepKeys {
            definition: operation.on(stack.definition()),
            operation,
            // Parts are stored and exported to registries. Only the key itself may cover a password.
            parts: key.components().iter().map(without_password).chain(parent).collect(),
            step,
            name: at.place(self.explainer.plan).to_string(),
            stage: at.stage,
            is_fresh: stack.is_fresh(),
            is_uncached: self.is_uncached(at.stage),
        }
    }

    /// Returns whether the steps of a stage are executed even if their results are known.
    pub(in crate::executor) fn is_uncached(&self, stage: usize) -> bool {
        self.explainer.plan.stages.get(stage).is_some_and(|stage| stage.is_uncached)
    }

    fn finished(&self) -> MutexGuard<'_, BTreeMap<CacheKey, Stack>> {
        // Each use is one call on the map: a panic elsewhere leaves it whole.
        pool::lock(&self.finished)
    }

    /// Makes the result of a step available to equal steps of other stages.
    pub(in crate::executor) fn share(&self, definition: CacheKey, stack: Stack) {
        self.finished().insert(definition, stack);
    }

    /// Looks a step up, first by definition, then by the content of its parent. Claims it if it is not
    /// found, so that no other process executes it at the same time.
    pub(in crate::executor) fn find_or_claim(
        &self,
        keys: &StepKeys,
        stack: &Stack,
    ) -> Result<Lookup> {
        let log = |answer| {
            let StepKeys { name, definition, operation, .. } = keys;
            tracing::debug!(step = redacted(name), %definition, %operation, "cache {answer}");
        };
        if let Some(found) = self.find(keys, stack)? {
            log("hit");
            return Ok(Lookup::Cached(found));
        }
        self.confirm(stack)?;
        let lock = self.services.store.lock_step(keys.definition).map_err(BuildError::from)?;
        // The previous holder of the lock may have executed the step.
        if let Some(found) = self.find(keys, stack)? {
            log("hit of a step that another build made");
            return Ok(Lookup::Cached(found));
        }
        log("miss");
        self.explainer.explain(keys)?;
        let keys = keys.clone();
        Ok(Lookup::Claimed(Claim { keys, duration_ms: AtomicU64::new(0), _lock: lock }))
    }

    /// Checks that the layers of a stack which the store lacks are still at their locations.
    ///
    /// # Errors
    /// [`BuildError::LostLayers`]: looked up again, the steps are not found.
    pub(in crate::executor) fn confirm(&self, stack: &Stack) -> Result<()> {
        if self.caches.confirm(self.services, stack) {
            return Ok(());
        }
        self.finished().retain(|_, known| !self.caches.has_gone_layer(self.services, known));
        Err(Failure::new(BuildError::LostLayers))
    }

    /// Looks a step up without claiming it. Layers of other locations are not confirmed.
    pub(in crate::executor) fn find(
        &self,
        keys: &StepKeys,
        stack: &Stack,
    ) -> Result<Option<Stack>> {
        let is_own = keys.is_fresh || keys.is_uncached;
        if let Some(found) = self.find_by_definition(keys.definition, is_own, stack)? {
            return Ok(Some(found));
        }
        let store = self.services.store;
        let error = BuildError::from;
        // Only a record of the same operation can match by content. Without one there is no need to
        // wait for the parent's content.
        if keys.is_uncached || !store.steps().has_operation(keys.operation).map_err(error)? {
            return Ok(None);
        }
        let content = keys.operation.on(stack.content()?);
        for hit in store.steps().by_content(content).map_err(error)? {
            let StepKeys { definition, operation, .. } = *keys;
            let components = json_of_parts(&keys.parts);
            let origin = stack.origin().and(&hit.origin);
            let record = StepRecord { definition, content, operation, components, origin, ..hit };
            if let Some(found) = self.stack_of(&record, stack)? {
                store.steps().record(&record).map_err(error)?;
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Looks a step up by its definition. Only steps of this build count if `is_own` is true: where a
    /// layer below is new, or the stage is uncached.
    pub(in crate::executor) fn find_by_definition(
        &self,
        definition: CacheKey,
        is_own: bool,
        stack: &Stack,
    ) -> Result<Option<Stack>> {
        // An equal step of another stage may have been found and not executed.
        if let Some(finished) =
            self.finished().get(&definition).filter(|it| !is_own || it.is_fresh())
        {
            return Ok(Some(finished.clone()));
        }
        if is_own {
            return Ok(None);
        }
        for hit in
            self.services.store.steps().by_definition(definition).map_err(BuildError::from)?
        {
            if let Some(found) = self.stack_of(&hit, stack)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns the stack with the record's layer on top, if this build may use the record and the layer
    /// is available.
    fn stack_of(&self, hit: &StepRecord, stack: &Stack) -> Result<Option<Stack>> {
        let known = &self.caches.known;
        if !hit.origin.is_within(&known.places) {
            return Ok(None);
        }
        let mut limits = known.made_since_s.iter();
        if limits.any(|(place, since_s)| hit.created_s < *since_s && hit.origin.names(place)) {
            return Ok(None);
        }
        let own = self.services.store.layer(hit.layer).map_err(BuildError::from)?;
        // A cache's claim about a layer counts until the layer has been read.
        let claimed = || (!hit.origin.is_own()).then(|| known.layers.get(&hit.layer)).flatten();
        let Some(mut record) = own.or_else(|| claimed().cloned()) else { return Ok(None) };
        if !self.caches.can_have(self.services, hit.layer)? {
            return Ok(None);
        }
        self.caches.note_use(hit);
        record.created_s = hit.created_s;
        let done = StoredLayer { diff_id: hit.layer, record };
        let next = stack.with_found(hit.definition.as_bytes(), done, &hit.origin);
        self.share(hit.definition, next.clone());
        Ok(Some(next))
    }

    /// Records an executed step and its layer in the store.
    pub(in crate::executor) fn record(
        &self,
        claim: &Claim,
        below: &Stack,
        layer: &StoredLayer,
    ) -> Result<()> {
        let record = StepRecord {
            definition: claim.keys.definition,
            content: claim.keys.operation.on(below.content()?),
            operation: claim.keys.operation,
            components: json_of_parts(&claim.keys.parts),
            layer: layer.diff_id,
            created_s: layer.record.created_s,
            duration_ms: claim.duration_ms.load(Ordering::Relaxed),
            origin: below.origin(),
        };
        self.caches.note_use(&record);
        Ok(self.services.store.steps().record(&record).map_err(BuildError::from)?)
    }
}
