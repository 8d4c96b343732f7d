//! Reasons for cache misses, found by comparing a step with the most similar earlier step in the store.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock};

use crate::executor::inputs::image_table::ImageTable;
use crate::executor::{BuildError, BuildOptions, Event, Reason, Services, StepId};
use crate::oci::DiffId;
use crate::plan::{
    BASE, BELOW, Base, CacheKey, Component, Plan, Uncached, closest_step, component_value,
    first_difference, is_instruction_text,
};
use crate::pool;
use crate::tree::{Change, LayerEntries, changes};

use super::step_keys::{StepKeys, json_of_parts, parts_of_json};

/// Maximum number of earlier steps that are compared, most recently used first.
const MAX_EARLIER: u32 = 1000;
/// Maximum number of changed files that a reason names.
const MAX_NAMED_FILES: usize = 5;

/// A reason for a miss, as far as it is known before the step runs.
#[derive(Debug)]
pub(in crate::executor) enum Miss {
    /// The complete reason.
    Explained(Reason),
    /// The step copies other files than the step that made this layer. The new layer will show which.
    Files {
        /// Layer of the earlier step.
        old: DiffId,
    },
}

/// Returns the reason that these files changed. There may be very many.
pub(in crate::executor) fn changed_files(changes: impl IntoIterator<Item = Change>) -> Reason {
    let mut all = changes.into_iter();
    Reason::Files { changes: all.by_ref().take(MAX_NAMED_FILES).collect(), n_more: all.count() }
}

/// An earlier step in the store.
#[derive(Debug)]
pub(in crate::executor) struct EarlierStep {
    definition: CacheKey,
    operation: CacheKey,
    /// JSON as the store keeps it: only few are parsed.
    parts: String,
    layer: DiffId,
    /// Duration of its last run.
    pub(in crate::executor) duration_ms: u64,
}

impl EarlierStep {
    fn parts(&self) -> Vec<Component> {
        parts_of_json(&self.parts)
    }
}

/// Text that the JSON of a similar step contains. Other steps need not be parsed.
struct SimilarityFilter {
    /// The layers below.
    below: String,
    /// The parts that the instruction itself says.
    work: Vec<String>,
}

impl SimilarityFilter {
    fn of(parts: &[Component]) -> Self {
        let pair = |part: &Component| json_of_parts(std::slice::from_ref(part));
        let bare = |pair: String| pair.trim_matches(['[', ']']).to_owned();
        let below = component_value(parts, BELOW).unwrap_or_default().to_owned();
        let work =
            parts.iter().filter(|part| is_instruction_text(part)).map(|part| bare(pair(part)));
        Self { below, work: work.collect() }
    }

    fn accepts(&self, json: &str) -> bool {
        json.contains(&self.below) || self.work.iter().all(|part| json.contains(part))
    }
}

/// Explains cache misses of one build.
#[derive(Debug)]
pub(in crate::executor) struct Explainer<'a> {
    services: &'a Services<'a>,
    uncached: &'a Uncached,
    pub(super) plan: &'a Plan,
    images: &'a ImageTable,
    /// Latest first; read when the first step is not found.
    earlier: OnceLock<Vec<EarlierStep>>,
    /// The first step of each stage that was not cached.
    first_misses: Mutex<BTreeMap<usize, String>>,
    /// Steps that copy other files than the step that made this layer.
    copied: Mutex<BTreeMap<StepId, DiffId>>,
}

impl<'a> Explainer<'a> {
    pub(in crate::executor) const fn new(
        services: &'a Services<'a>,
        options: &'a BuildOptions,
        plan: &'a Plan,
        images: &'a ImageTable,
    ) -> Self {
        Self {
            services,
            uncached: &options.request.uncached,
            plan,
            images,
            earlier: OnceLock::new(),
            first_misses: Mutex::new(BTreeMap::new()),
            copied: Mutex::new(BTreeMap::new()),
        }
    }

    fn first_misses(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        // Each use is one call on the map.
        pool::lock(&self.first_misses)
    }

    fn copied(&self) -> MutexGuard<'_, BTreeMap<StepId, DiffId>> {
        // Each use is one call on the map.
        pool::lock(&self.copied)
    }

    /// Returns name and digest of the base image of a stage.
    pub(super) fn base_name(&self, stage: usize) -> Option<String> {
        match &self.plan.stages.get(stage)?.base {
            Base::Scratch => None,
            Base::Stage(parent) => self.base_name(*parent),
            Base::Image(request) => {
                let image = self.images.get(request);
                Some(format!("{}@{}", request.name.familiar(), image.digest))
            }
        }
    }

    /// Reports why the step is not cached: at once, or when its copied files are known.
    pub(super) fn explain(&self, keys: &StepKeys) -> Result<(), BuildError> {
        let miss = self.miss(keys)?;
        self.note_miss(keys.stage, &keys.name);
        match miss {
            Miss::Explained(reason) => {
                self.services.event(Event::Explained { step: keys.step, reason });
            }
            Miss::Files { old } => drop(self.copied().insert(keys.step, old)),
        }
        Ok(())
    }

    /// Keeps the first step of a stage that is not cached.
    pub(in crate::executor) fn note_miss(&self, stage: usize, name: &str) {
        self.first_misses().entry(stage).or_insert_with(|| name.to_owned());
    }

    /// Reports which files differ, now that the layer of a COPY is known.
    pub(in crate::executor) fn explain_files(
        &self,
        step: StepId,
        new: &dyn LayerEntries,
    ) -> Result<(), BuildError> {
        let Some(old) = self.copied().remove(&step) else { return Ok(()) };
        let reason = match self.services.store.listing_if_exists(old)? {
            Some(old) => changed_files(changes(&old, new)),
            None => changed_files([]),
        };
        self.services.event(Event::Explained { step, reason });
        Ok(())
    }

    /// Returns why a step of an uncached stage is not cached.
    pub(in crate::executor) const fn not_asked(&self) -> Reason {
        match self.uncached {
            Uncached::All => Reason::NotAsked,
            Uncached::Stages(_) | Uncached::None => Reason::StageNotAsked,
        }
    }

    /// Returns why a step that was not found is not cached.
    pub(in crate::executor) fn miss(&self, keys: &StepKeys) -> Result<Miss, BuildError> {
        if keys.is_uncached {
            return Ok(Miss::Explained(self.not_asked()));
        }
        let earlier = self.earlier()?;
        if earlier.iter().any(|step| step.definition == keys.definition && !keys.is_fresh) {
            return Ok(Miss::Explained(Reason::Gone));
        }
        let Some(similar) = self.similar(keys)? else { return Ok(Miss::Explained(Reason::New)) };
        if similar.operation == keys.operation {
            return Ok(Miss::Explained(self.reason_below(keys, similar)));
        }
        Ok(match first_difference(&similar.parts(), &keys.parts) {
            Some(difference) if difference.name == "files" => Miss::Files { old: similar.layer },
            Some(difference) => Miss::Explained(Reason::Part(difference)),
            None => Miss::Explained(self.reason_below(keys, similar)),
        })
    }

    /// Returns the earlier step with the same operation, or else the most similar one.
    pub(in crate::executor) fn similar(
        &self,
        keys: &StepKeys,
    ) -> Result<Option<&EarlierStep>, BuildError> {
        let earlier = self.earlier()?;
        let same = earlier.iter().find(|step| step.operation == keys.operation);
        if same.is_some() {
            return Ok(same);
        }
        let filter = SimilarityFilter::of(&keys.parts);
        let similar: Vec<&EarlierStep> =
            earlier.iter().filter(|step| filter.accepts(&step.parts)).collect();
        let parts: Vec<Vec<Component>> = similar.iter().map(|step| step.parts()).collect();
        let at = closest_step(parts.iter().map(Vec::as_slice), &keys.parts);
        Ok(at.and_then(|at| similar.get(at).copied()))
    }

    /// Returns why the same operation has other layers below it now.
    fn reason_below(&self, keys: &StepKeys, same: &EarlierStep) -> Reason {
        if let Some(step) = self.first_miss_below(keys.stage) {
            return Reason::Below { step };
        }
        let base = |parts: &[Component]| component_value(parts, BASE).map(str::to_owned);
        let (old, new) = (base(&same.parts()), base(&keys.parts));
        if old == new { Reason::Other } else { Reason::Base { old, new } }
    }

    fn first_miss_below(&self, stage: usize) -> Option<String> {
        if let Some(name) = self.first_misses().get(&stage) {
            return Some(name.clone());
        }
        let Some(Base::Stage(parent)) = self.plan.stages.get(stage).map(|stage| &stage.base) else {
            return None;
        };
        self.first_miss_below(*parent)
    }

    fn earlier(&self) -> Result<&[EarlierStep], BuildError> {
        if let Some(earlier) = self.earlier.get() {
            return Ok(earlier);
        }
        let steps = self.services.store.steps().latest(MAX_EARLIER)?;
        let earlier = steps.into_iter().map(|step| EarlierStep {
            definition: step.definition,
            operation: step.operation,
            parts: step.components,
            layer: step.layer,
            duration_ms: step.duration_ms,
        });
        let earlier = earlier.collect();
        Ok(self.earlier.get_or_init(|| earlier))
    }
}
