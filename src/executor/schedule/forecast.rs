//! Forecast of a build: which steps are cached, which would be executed and why, and how long these
//! or similar steps took last time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::diag::Span;
use crate::plan::{
    self, Base, CopyFrom, ImageRequest, Operation, OperationKey, Plan, PlannedStage, RunMount,
};
use crate::tree::changes;

use crate::executor::cache::build_caches::BuildCaches;
use crate::executor::cache::explain::{Miss, changed_files};
use crate::executor::cache::import;
use crate::executor::cache::step_keys::StepKeys;
use crate::executor::copy::sources::{self, CopySources};
use crate::executor::inputs::build_inputs::BuildInputs;
use crate::executor::mounts::source::MountInputs;
use crate::executor::outline::Outline;
use crate::executor::planned_step::PlannedStep;
use crate::executor::stack::Stack;
use crate::executor::state::BuildState;
use crate::executor::{
    BuildError, BuildOptions, Failure, Reason, Services, StageOutline, StepId, StepPlace,
};

use super::planning;

type Result<T> = std::result::Result<T, Failure>;

/// Number for steps that have no events.
const NO_STEP: StepId = StepId(0);

/// The forecast of a build.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// The stages, each after those that it needs.
    pub stages: Vec<ForecastStage>,
    /// Bytes to pull: compressed layers of base images that are not in the store.
    pub pull_bytes: u64,
}

/// The forecast of a stage.
#[derive(Debug, Clone)]
pub struct ForecastStage {
    /// Name, base image and dependencies.
    pub outline: StageOutline,
    /// Bytes to pull for its base image.
    pub pull_bytes: u64,
    /// The steps that make layers, in order.
    pub steps: Vec<ForecastStep>,
}

/// The forecast of a step.
#[derive(Debug, Clone)]
pub struct ForecastStep {
    /// Number and name of the step.
    pub place: StepPlace,
    /// Indexes of the stages that it copies from or mounts.
    pub needs: Vec<usize>,
    /// Whether the step would be executed.
    pub status: StepStatus,
    /// Last duration of the step, or else of the most similar earlier step.
    pub took: Option<Duration>,
}

/// The forecast status of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepStatus {
    /// The step is cached.
    Cached,
    /// The step would be executed.
    Runs(Reason),
    /// An equal step was executed before. Whether it is cached depends on the result of another
    /// step.
    Unknown {
        /// Name of the first step before it that would be executed; or the image or stage that it
        /// mounts and that is not in the store.
        after: String,
    },
}

/// The forecast end of a stage.
#[derive(Debug, Clone, Default)]
struct StageEnd {
    stack: Stack,
    /// Name of the first step, in it or in its base stages, that would be executed.
    first_executed: Option<String>,
    /// True if its files certainly differ from those of every earlier build.
    is_new: bool,
}

/// Forecasts a build. Resolves images as a build does, and hashes the context; executes no step and
/// pulls no layer.
///
/// # Errors
/// The error that would keep the build from starting.
pub fn forecast(services: &Services<'_>, options: &BuildOptions) -> Result<Forecast> {
    let imported = import::import(services, &options.cache_from, &options.request.platforms)?;
    let inputs = BuildInputs::new(services, options);
    let caches = BuildCaches::new(imported);
    let (plan, images) = planning::plan(&inputs)?;
    let (state, stages) = loop {
        let state = BuildState::new(&inputs, &caches, &plan, &images);
        // Each time at least one layer more is known to be gone.
        if let Some(stages) = forecast_stages(&state, &plan)? {
            break (state, stages);
        }
    };
    let forecaster = Forecaster { state: &state };
    inputs.save_hashes()?;
    let bases = plan.stages.iter().filter_map(|stage| match &stage.base {
        Base::Image(request) => Some(request),
        Base::Scratch | Base::Stage(_) => None,
    });
    let mut pull_bytes = 0u64;
    for image in bases.collect::<BTreeSet<_>>() {
        pull_bytes = pull_bytes.saturating_add(forecaster.absent_bytes(image)?);
    }
    Ok(Forecast { stages, pull_bytes })
}

/// Forecasts all stages. `None` if layers of cached steps turn out to be gone.
fn forecast_stages(state: &BuildState<'_>, plan: &Plan) -> Result<Option<Vec<ForecastStage>>> {
    let forecaster = Forecaster { state };
    let (mut ends, mut stages) = (Vec::new(), Vec::new());
    for (number, stage) in plan.stages.iter().enumerate() {
        let (end, forecast) = forecaster.forecast_stage(number, stage, &ends)?;
        ends.push(end);
        stages.push(forecast);
    }
    for end in ends {
        match state.steps.confirm(&end.stack) {
            Err(error) if matches!(*error, BuildError::LostLayers) => return Ok(None),
            confirmed => confirmed?,
        }
    }
    Ok(Some(stages))
}

impl Forecast {
    /// Returns the duration of the build with enough processors if steps take as long as before,
    /// and the number of steps to execute that have never run.
    #[must_use]
    pub fn estimate(&self) -> (Duration, usize) {
        let mut ends: Vec<Duration> = Vec::new();
        let mut n_unknown = 0;
        for stage in &self.stages {
            let end = |number: &usize| ends.get(*number).copied().unwrap_or_default();
            let mut now = stage.outline.parent.as_ref().map(end).unwrap_or_default();
            for step in &stage.steps {
                now = step.needs.iter().map(end).fold(now, Duration::max);
                match (&step.status, step.took) {
                    (StepStatus::Cached, _) => {}
                    (StepStatus::Runs(_) | StepStatus::Unknown { .. }, Some(took)) => now += took,
                    (StepStatus::Runs(_) | StepStatus::Unknown { .. }, None) => n_unknown += 1,
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
        ends: &[StageEnd],
    ) -> Result<(StageEnd, ForecastStage)> {
        let mut pull_bytes = 0;
        let mut end = match &stage.base {
            Base::Scratch => StageEnd::default(),
            Base::Stage(parent) => ends.get(*parent).cloned().unwrap_or_default(),
            Base::Image(request) => {
                pull_bytes = self.absent_bytes(request)?;
                StageEnd { stack: self.state.images.stack(request), ..StageEnd::default() }
            }
        };
        let mut steps = Vec::new();
        for (at, step) in stage.steps.iter().enumerate() {
            if let Some(operation) = &step.operation {
                let at = PlannedStep { stage: number, number: at, step };
                steps.push(self.forecast_step(at, operation, &mut end, ends)?);
            }
        }
        if end.first_executed.is_none() {
            self.state.set_found_stage(number, &end.stack);
        }
        Ok((end, ForecastStage { outline: StageOutline::of(stage), pull_bytes, steps }))
    }

    fn forecast_step(
        &self,
        at: PlannedStep<'_>,
        operation: &Operation,
        end: &mut StageEnd,
        ends: &[StageEnd],
    ) -> Result<ForecastStep> {
        let place = at.place(self.state.plan);
        let needs: Vec<usize> = operation.stages().collect();
        let of_source = needs.iter().find_map(|needed| ends.get(*needed)?.first_executed.clone());
        let of_source = match operation {
            Operation::Run(run) if of_source.is_none() => self.unavailable_mount(run)?,
            Operation::Run(_) | Operation::Copy(_) | Operation::Workdir(_) => of_source,
        };
        let waits_for = end.first_executed.clone().or_else(|| of_source.clone());
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
            return Ok(ForecastStep { place, needs, status: StepStatus::Cached, took: None });
        }
        let similar = self.state.steps.explainer.similar(&keys)?;
        let took = similar.map(|similar| Duration::from_millis(similar.duration_ms));
        let status = match waits_for {
            _ if keys.is_uncached => StepStatus::Runs(self.state.steps.explainer.not_asked()),
            Some(after) if end.is_new || similar.is_none() => {
                StepStatus::Runs(Reason::Below { step: after })
            }
            Some(after) if of_source.is_some() || self.was_executed(&keys)? => {
                StepStatus::Unknown { after }
            }
            Some(_) | None => {
                StepStatus::Runs(self.miss_reason(&keys, operation, end, selection, at)?)
            }
        };
        let copies_changes = |status: &StepStatus| matches!(status, StepStatus::Runs(Reason::Files { changes, .. }) if !changes.is_empty());
        end.is_new |= copies_changes(&status);
        let name = place.to_string();
        self.state.steps.explainer.note_miss(keys.stage, &name);
        end.first_executed.get_or_insert(name);
        end.stack = end.stack.with_unknown(keys.definition.as_bytes());
        Ok(ForecastStep { place, needs, status, took })
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
            MountInputs::find(self.state, run)?.digests()
        };
        let key = self.state.clamped(OperationKey::run(run, &digests));
        Ok(self.state.steps.keys(at, NO_STEP, &key, stack))
    }

    /// Returns the image or stage that a RUN mounts and that would have to be pulled first.
    fn unavailable_mount(&self, run: &plan::RunOperation) -> Result<Option<String>> {
        for from in run.mounts.iter().filter_map(RunMount::from) {
            match from {
                CopyFrom::Image(image) if self.absent_bytes(image)? > 0 => {
                    return Ok(Some(format!("the image {}", image.name.familiar())));
                }
                CopyFrom::Stage(number)
                    if !self.is_available(&self.state.stage(*number)?.stack)? =>
                {
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

    /// Returns the keys of a COPY; selects its sources if they are available already.
    fn keys_of_copy(
        &self,
        at: PlannedStep<'_>,
        copy: &plan::CopyOperation,
        end: &StageEnd,
        ends: &[StageEnd],
        sources: Option<&mut Option<CopySources>>,
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
                let found = place.insert(sources::select(self.state, copy, span)?);
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

    /// Returns whether the copied files can be read without a pull.
    fn has_sources(&self, copy: &plan::CopyOperation) -> Result<bool> {
        match &copy.from {
            CopyFrom::Context | CopyFrom::Named(_) => Ok(true),
            CopyFrom::Stage(number) => self.is_available(&self.state.stage(*number)?.stack),
            CopyFrom::Image(request) => Ok(self.absent_bytes(request)? == 0),
        }
    }

    /// Returns whether all layers are in the store.
    fn is_available(&self, stack: &Stack) -> Result<bool> {
        for layer in stack.diff_ids()? {
            if !self.state.services.store.has_layer(layer).map_err(BuildError::from)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether the operation was executed before, on any parent.
    fn was_executed(&self, keys: &StepKeys) -> Result<bool> {
        let made = self.state.services.store.steps().has_operation(keys.operation);
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

    fn miss_reason(
        &self,
        keys: &StepKeys,
        operation: &Operation,
        end: &StageEnd,
        selection: Option<CopySources>,
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
        if !is_local || end.first_executed.is_some() || !self.is_available(&end.stack)? {
            return Ok(changed_files([]));
        }
        match self.state.services.store.listing_if_exists(old).map_err(BuildError::from)? {
            Some(old) => self.reason_of_files(&old, copy, &end.stack, selection, at.step.span),
            None => Ok(changed_files([])),
        }
    }

    fn reason_of_files(
        &self,
        old: &dyn crate::tree::LayerEntries,
        copy: &plan::CopyOperation,
        stack: &Stack,
        mut selection: CopySources,
        span: Span,
    ) -> Result<Reason> {
        let below = Outline::of_tree(self.state.tree(stack)?);
        let accounts = sources::accounts_for(self.state, stack, &below, copy)?;
        let new = selection.layer(self.state, copy, below.tree(), &accounts, span)?;
        Ok(changed_files(changes(old, &new)))
    }
}
