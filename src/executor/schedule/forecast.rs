//! What a build would do, without doing it: which steps are in the cache, which would be made and why,
//! and how long they took when they, or earlier versions of them, were made last.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::diag::Span;
use crate::plan::{
    self, Base, CopyFrom, ImageRequest, Operation, OperationKey, PlannedStage, RunMount,
};
use crate::tree::changes;

use crate::executor::cache::build_caches::BuildCaches;
use crate::executor::cache::explain::{Miss, changed_files};
use crate::executor::cache::import;
use crate::executor::cache::step_keys::StepKeys;
use crate::executor::copy::sources::{self, Sources};
use crate::executor::inputs::build_inputs::BuildInputs;
use crate::executor::mounts::source::Inputs;
use crate::executor::planned_step::PlannedStep;
use crate::executor::stack::Stack;
use crate::executor::state::BuildState;
use crate::executor::{
    BuildError, BuildOptions, Failure, Reason, Services, StageOutline, StepId, StepPlace,
};

use super::planning;

type Result<T> = std::result::Result<T, Failure>;

/// Nothing is shown of steps here.
const NO_STEP: StepId = StepId(0);

/// What a build would do.
#[derive(Debug, Clone)]
pub struct Foreseen {
    /// Each after those that it needs.
    pub stages: Vec<ForeseenStage>,
    /// Bytes of base images, as registries have them, that are not in the store.
    pub pull_bytes: u64,
}

/// What would become of a stage.
#[derive(Debug, Clone)]
pub struct ForeseenStage {
    /// The kind of file.
    pub outline: StageOutline,
    /// Bytes of its base image that are not in the store.
    pub pull_bytes: u64,
    /// In order.
    pub steps: Vec<ForeseenStep>,
}

/// What would become of a step.
#[derive(Debug, Clone)]
pub struct ForeseenStep {
    /// Which.
    pub place: StepPlace,
    /// The stages that it copies from or mounts, by their places.
    pub needs: Vec<usize>,
    /// What happens to it.
    pub fate: Fate,
    /// How long it took last, or else the earlier step that is most like it.
    pub took: Option<Duration>,
}

/// Whether a step would be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is in the cache.
    Cached,
    /// It would be made.
    Made(Reason),
    /// It was made before; whether it is made again depends on what comes of something else.
    Perhaps {
        /// The first step before it that would be made; or an image or a stage that it mounts and that
        /// is not in the store.
        after: String,
    },
}

/// What a stage would end with.
#[derive(Debug, Clone, Default)]
struct End {
    stack: Stack,
    /// The first step of it, or of those that it comes from, that would be made.
    first_made: Option<String>,
    /// Whether it is certain that its files will be others than those of any earlier build.
    is_new: bool,
}

/// Finds out what a build would do. Images are resolved as in a build, and the context is hashed;
/// nothing is run, and no layer is pulled.
///
/// # Errors
/// Whatever would keep the build from beginning.
pub fn foresee(services: &Services<'_>, options: &BuildOptions) -> Result<Foreseen> {
    let imported = import::import(services, &options.cache_from, &options.request.platforms)?;
    let inputs = BuildInputs::new(services, options);
    let caches = BuildCaches::new(imported);
    let (plan, images) = planning::plan(&inputs)?;
    let state = BuildState::new(&inputs, &caches, &plan, &images);
    let forecaster = Forecaster { state: &state };
    let (mut ends, mut stages) = (Vec::new(), Vec::new());
    for (number, stage) in plan.stages.iter().enumerate() {
        let (end, foreseen) = forecaster.forecast_stage(number, stage, &ends)?;
        ends.push(end);
        stages.push(foreseen);
    }
    inputs.save_hashes()?;
    let bases = plan.stages.iter().filter_map(|stage| match &stage.base {
        Base::Image(request) => Some(request),
        Base::Scratch | Base::Stage(_) => None,
    });
    let mut pull_bytes = 0u64;
    for image in bases.collect::<BTreeSet<_>>() {
        pull_bytes = pull_bytes.saturating_add(forecaster.absent_bytes(image)?);
    }
    Ok(Foreseen { stages, pull_bytes })
}

impl Foreseen {
    /// How long the build would take with enough processors, if steps take what they took; and how many
    /// of those that would be made were never made before.
    #[must_use]
    pub fn estimate(&self) -> (Duration, usize) {
        let mut ends: Vec<Duration> = Vec::new();
        let mut n_unknown = 0;
        for stage in &self.stages {
            let end = |number: &usize| ends.get(*number).copied().unwrap_or_default();
            let mut now = stage.outline.parent.as_ref().map(end).unwrap_or_default();
            for step in &stage.steps {
                now = step.needs.iter().map(end).fold(now, Duration::max);
                match (&step.fate, step.took) {
                    (Fate::Cached, _) => {}
                    (Fate::Made(_) | Fate::Perhaps { .. }, Some(took)) => now += took,
                    (Fate::Made(_) | Fate::Perhaps { .. }, None) => n_unknown += 1,
                }
            }
            ends.push(now);
        }
        (ends.into_iter().max().unwrap_or_default(), n_unknown)
    }
}

/// Goes through the keys of a plan without executing anything.
struct Forecaster<'a> {
    state: &'a BuildState<'a>,
}

impl Forecaster<'_> {
    fn forecast_stage(
        &self,
        number: usize,
        stage: &PlannedStage,
        ends: &[End],
    ) -> Result<(End, ForeseenStage)> {
        let mut pull_bytes = 0;
        let mut end = match &stage.base {
            Base::Scratch => End::default(),
            Base::Stage(parent) => ends.get(*parent).cloned().unwrap_or_default(),
            Base::Image(request) => {
                pull_bytes = self.absent_bytes(request)?;
                End { stack: self.state.images.stack(request), ..End::default() }
            }
        };
        let mut steps = Vec::new();
        for (at, step) in stage.steps.iter().enumerate() {
            if let Some(operation) = &step.operation {
                let at = PlannedStep { stage: number, number: at, step };
                steps.push(self.forecast_step(at, operation, &mut end, ends)?);
            }
        }
        if end.first_made.is_none() {
            self.state.set_found_stage(number, &end.stack);
        }
        Ok((end, ForeseenStage { outline: StageOutline::of(stage), pull_bytes, steps }))
    }

    fn forecast_step(
        &self,
        at: PlannedStep<'_>,
        operation: &Operation,
        end: &mut End,
        ends: &[End],
    ) -> Result<ForeseenStep> {
        let place = at.place(self.state.plan);
        let needs: Vec<usize> = operation.stages().collect();
        let of_source = needs.iter().find_map(|needed| ends.get(*needed)?.first_made.clone());
        let of_source = match operation {
            Operation::Run(run) if of_source.is_none() => self.not_here(run)?,
            Operation::Run(_) | Operation::Copy(_) | Operation::Workdir(_) => of_source,
        };
        let waits_for = end.first_made.clone().or_else(|| of_source.clone());
        let mut selection = None;
        let keys = match operation {
            Operation::Run(run) => self.keys_of_run(at, run, &end.stack, of_source.is_some())?,
            Operation::Copy(copy) => {
                let has_sources = of_source.is_none() && self.has_sources(copy)?;
                self.keys_of_copy(at, copy, end, ends, has_sources.then_some(&mut selection))?
            }
            Operation::Workdir(workdir) => {
                let key = self.state.clamped(OperationKey::workdir(workdir));
                self.state.steps.keys(at, NO_STEP, &key, &end.stack)
            }
        };
        if waits_for.is_none()
            && let Some(found) = self.state.steps.find(&keys, &end.stack)?
        {
            end.stack = found;
            return Ok(ForeseenStep { place, needs, fate: Fate::Cached, took: None });
        }
        let similar = self.state.steps.explainer.similar(&keys)?;
        let took = similar.map(|similar| Duration::from_millis(similar.duration_ms));
        let fate = match waits_for {
            _ if self.state.options.no_cache => Fate::Made(Reason::NotAsked),
            Some(after) if end.is_new || similar.is_none() => {
                Fate::Made(Reason::Below { step: after })
            }
            Some(after) if of_source.is_some() || self.was_made(&keys)? => Fate::Perhaps { after },
            Some(_) | None => {
                Fate::Made(self.foreseen_reason(&keys, operation, end, selection, at)?)
            }
        };
        let copies_others = |fate: &Fate| matches!(fate, Fate::Made(Reason::Files { changes, .. }) if !changes.is_empty());
        end.is_new |= copies_others(&fate);
        let name = place.to_string();
        self.state.steps.explainer.note_miss(keys.stage, &name);
        end.first_made.get_or_insert(name);
        end.stack = end.stack.with_unknown(keys.definition.as_bytes());
        Ok(ForeseenStep { place, needs, fate, took })
    }

    fn keys_of_run(
        &self,
        at: PlannedStep<'_>,
        run: &plan::RunOperation,
        stack: &Stack,
        sources_are_unknown: bool,
    ) -> Result<StepKeys> {
        let shows_files = |mount: &RunMount| mount.from().is_some();
        let digests = if sources_are_unknown {
            let unknown = |mount| shows_files(mount).then(|| "unknown".to_owned());
            run.mounts.iter().map(unknown).collect()
        } else {
            Inputs::find(self.state, run)?.digests()
        };
        let key = self.state.clamped(OperationKey::run(run, &digests));
        Ok(self.state.steps.keys(at, NO_STEP, &key, stack))
    }

    /// The image or stage that a RUN mounts and that would have to be pulled first.
    fn not_here(&self, run: &plan::RunOperation) -> Result<Option<String>> {
        for from in run.mounts.iter().filter_map(RunMount::from) {
            match from {
                CopyFrom::Image(image) if self.absent_bytes(image)? > 0 => {
                    return Ok(Some(format!("the image {}", image.name.familiar())));
                }
                CopyFrom::Stage(number) if !self.is_here(&self.state.stage(*number)?.stack)? => {
                    let stage = self.state.plan.stages.get(*number);
                    return Ok(stage.map(|stage| format!("the stage {}", stage.name)));
                }
                CopyFrom::Image(_)
                | CopyFrom::Stage(_)
                | CopyFrom::Context
                | CopyFrom::Named(_) => {}
            }
        }
        Ok(None)
    }

    /// The keys of a COPY; what it selects is looked up if that is there already.
    fn keys_of_copy(
        &self,
        at: PlannedStep<'_>,
        copy: &plan::CopyOperation,
        end: &End,
        ends: &[End],
        sources: Option<&mut Option<Sources>>,
    ) -> Result<StepKeys> {
        let span = at.step.span;
        let made_by = match &copy.from {
            CopyFrom::Context | CopyFrom::Named(_) => None,
            CopyFrom::Stage(number) => ends.get(*number).map(|end| end.stack.definition()),
            CopyFrom::Image(request) => Some(self.state.images.stack(request).definition()),
        };
        let made_by = made_by.map(|made_by| OperationKey::copy(copy, &made_by.as_content()));
        let selected = match sources {
            Some(place) => {
                let found = place.insert(sources::sources(self.state, copy, span)?);
                Some(OperationKey::copy(copy, &found.digest(self.state, copy, span)?))
            }
            None => None,
        };
        let key = selected.or_else(|| made_by.clone()).expect("only a stage's files are not there");
        let mut keys = self.state.steps.keys(at, NO_STEP, &self.state.clamped(key), &end.stack);
        if let Some(made_by) = made_by {
            keys.definition = self.state.clamped(made_by).key().on(end.stack.definition());
        }
        Ok(keys)
    }

    /// Whether the files that it copies can be looked at without a pull.
    fn has_sources(&self, copy: &plan::CopyOperation) -> Result<bool> {
        match &copy.from {
            CopyFrom::Context | CopyFrom::Named(_) => Ok(true),
            CopyFrom::Stage(number) => self.is_here(&self.state.stage(*number)?.stack),
            CopyFrom::Image(request) => Ok(self.absent_bytes(request)? == 0),
        }
    }

    /// Whether all layers are in the store.
    fn is_here(&self, stack: &Stack) -> Result<bool> {
        for layer in stack.diff_ids()? {
            if !self.state.services.store.has_layer(layer).map_err(BuildError::from)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the operation was made before, on whatever.
    fn was_made(&self, keys: &StepKeys) -> Result<bool> {
        let made = self.state.services.store.has_operation(keys.operation);
        Ok(made.map_err(BuildError::from)?)
    }

    fn absent_bytes(&self, image: &ImageRequest) -> Result<u64> {
        let mut n_bytes = 0u64;
        for (layer, descriptor) in self.state.images.get(image).layers() {
            if !self.state.services.store.has_layer(layer).map_err(BuildError::from)? {
                n_bytes = n_bytes.saturating_add(descriptor.size);
            }
        }
        Ok(n_bytes)
    }

    fn foreseen_reason(
        &self,
        keys: &StepKeys,
        operation: &Operation,
        end: &End,
        selection: Option<Sources>,
        at: PlannedStep<'_>,
    ) -> Result<Reason> {
        let old = match self.state.steps.explainer.miss(keys)? {
            Miss::Explained(reason) => return Ok(reason),
            Miss::Files { old } => old,
        };
        let (Operation::Copy(copy), Some(selection)) = (operation, selection) else {
            return Ok(changed_files([]));
        };
        let is_local = selection.remotes.is_empty();
        if !is_local || end.first_made.is_some() || !self.is_here(&end.stack)? {
            return Ok(changed_files([]));
        }
        match self.state.services.store.listing_if_there(old).map_err(BuildError::from)? {
            Some(old) => self.reason_of_files(&old, copy, &end.stack, selection, at.step.span),
            None => Ok(changed_files([])),
        }
    }

    fn reason_of_files(
        &self,
        old: &dyn crate::tree::LayerEntries,
        copy: &plan::CopyOperation,
        stack: &Stack,
        mut selection: Sources,
        span: Span,
    ) -> Result<Reason> {
        let below = self.state.tree(stack)?;
        let accounts = sources::accounts_for(self.state, &below, copy)?;
        let new = selection.layer(self.state, copy, &below, &accounts, span)?;
        Ok(changed_files(changes(old, &new)))
    }
}
