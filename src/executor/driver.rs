//! The walk through the graph: one thread a stage, up to a maximum, one step after the other in
//! each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::diag::Span;
use crate::image;
use crate::limits::MAX_STAGES_AT_ONCE;
use crate::oci::{DiffId, Digest, Reference};
use crate::plan::{
    self, Base, CacheKey, MountedLayers, Operation, OperationKey, Plan, PlannedStage, Step, Target,
};
use crate::pool::{self, Scope};
use crate::store::{LowerDirectory, Representation};

use super::assemble::{self, Assembled, StageHistory, StageLayer};
use super::built::{Built, MadeBy};
use super::cache_mount::{self, EmptiedCaches};
use super::explain::Explainer;
use super::images::ImageTable;
use super::lookup::{Claim, Found};
use super::mount_source::{ContextDirectories, Inputs};
use super::options::{BuildOptions, Services};
use super::pack_ahead::PackAhead;
use super::run::RunDone;
use super::shared::{Shared, StepRun};
use super::slot::Slot;
use super::stack::Stack;
use super::{
    BuildError, Event, Failure, Outcome, StageOutline, StepPlace, budget, cache_export, planning,
    remote_cache, run,
};

/// The number of the build context among the directories that files may lie in.
pub(super) const CONTEXT_DIRECTORY: u32 = 0;

type Result<T> = std::result::Result<T, Failure>;

/// Builds an image into the store, with what caches elsewhere know, and for those.
///
/// # Errors
/// The first error in the order of the stages; the other steps were ended. That of a cache which
/// has to be read or written.
pub fn build(services: &Services<'_>, options: &BuildOptions) -> Result<Built> {
    let imported = remote_cache::import(services, &options.cache_from, &options.request.platforms)?;
    let shared = Shared::new(services, options, imported);
    let built = build_images(&shared);
    let noted = shared.note_steps_used();
    let exported = match &built {
        Err(error) if matches!(**error, BuildError::Interrupted) => Ok(()),
        built => {
            let layers = built.as_ref().ok().map(|(_, layers)| layers);
            cache_export::export(&shared, &options.cache_to, &shared.steps_met(), layers)
        }
    };
    let (built, _layers) = built?;
    exported?;
    Ok(noted.map(|()| built)?)
}

/// Builds; gives the layers of the images, too.
fn build_images(shared: &Shared<'_>) -> Result<(Built, BTreeSet<DiffId>)> {
    let (services, options) = (shared.services, shared.options);
    let (plan, images) = planning::plan(shared)?;
    shared.event(Event::Planned { stages: StageOutline::all(&plan) });
    let run = Run::new(shared, &plan, &images);
    run.all_stages()?;
    let image =
        |target: &Target| assemble::image(&run, &run.stage(target.stage)?, &target.platform);
    let images = plan.targets.iter().map(image);
    let mut images: Vec<Assembled> = images.collect::<Result<_>>()?;
    budget::check(&run, &mut images)?;
    let (top, id) = match images.as_slice() {
        [only] if !options.always_index => (only.manifest.digest, only.config),
        several => {
            let index = assemble::index(services.store, several, &options.annotations)?;
            (index, index)
        }
    };
    for tag in &options.tags {
        set_tag(services, tag, top)?;
    }
    run.images.resolved.keys().try_for_each(|image| shared.note_base_used(image))?;
    services.store.make_durable().map_err(BuildError::from)?;
    let layers = images.iter().flat_map(Assembled::layers).collect();
    let images = images.into_iter().map(|image| image.built).collect();
    Ok((Built { top, id, images, warnings: plan.warnings }, layers))
}

/// Gives the image a name, and says so if the name stood for more platforms. That a build replaces
/// what an earlier one made is what builds are for.
fn set_tag(services: &Services<'_>, tag: &Reference, top: Digest) -> Result<()> {
    let replaced = image::replaced(services.store, tag, top).map_err(BuildError::from)?;
    if let Some(replaced) = replaced.filter(image::Replaced::loses_platforms) {
        (services.events)(Event::Note { text: replaced.to_string() });
    }
    Ok(services.store.tags().set(tag, top).map_err(BuildError::from)?)
}

/// What came of a stage.
#[derive(Debug, Clone)]
pub(super) struct StageDone {
    pub(super) number: usize,
    pub(super) stack: Stack,
    pub(super) history: Arc<Vec<StageHistory>>,
}

/// A plan that is carried out.
#[derive(Debug)]
pub(super) struct Run<'a> {
    shared: &'a Shared<'a>,
    pub(super) plan: &'a Plan,
    pub(super) images: &'a ImageTable,
    forms: MountedLayers,
    stages: Vec<Slot<StageDone>>,
    pub(super) context_directories: ContextDirectories,
    pub(super) emptied_caches: EmptiedCaches,
    pack_ahead: PackAhead,
    pub(super) explainer: Explainer,
    /// Steps of this build by definition: equal steps of several stages are one.
    pub(super) made: Mutex<BTreeMap<CacheKey, Stack>>,
}

impl<'a> std::ops::Deref for Run<'a> {
    type Target = Shared<'a>;

    fn deref(&self) -> &Shared<'a> {
        self.shared
    }
}

/// One step and where it stands.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) stage: usize,
    pub(super) number: usize,
    pub(super) step: &'a Step,
}

impl<'a> Run<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, plan: &'a Plan, images: &'a ImageTable) -> Self {
        let stages = plan.stages.iter().map(|_stage| Slot::new()).collect();
        let made = Mutex::new(BTreeMap::new());
        Self {
            shared,
            plan,
            images,
            forms: plan::mounted_layers(plan),
            stages,
            context_directories: ContextDirectories::default(),
            emptied_caches: EmptiedCaches::default(),
            pack_ahead: PackAhead::new(plan, shared.options),
            explainer: Explainer::default(),
            made,
        }
    }

    /// What came of a stage; waits for it.
    pub(super) fn stage(&self, number: usize) -> Result<StageDone> {
        self.stages.get(number).expect("a plan names its own stages").wait()
    }

    /// A stage of which every step was found: others may look at it.
    pub(super) fn stage_is_found(&self, number: usize, stack: &Stack) {
        let slot = self.stages.get(number).expect("a plan names its own stages");
        let (stack, history) = (stack.clone(), Arc::default());
        let done = slot.fill(|| Ok(StageDone { number, stack, history }));
        done.expect("it is what was put in");
    }

    /// Runs all stages; the error is that of the first stage, in order, which has one of its own.
    pub(super) fn all_stages(&self) -> Result<()> {
        let results = pool::scope(|scope| {
            let _ending = self.pack_ahead.start(scope, self.services);
            // A stage needs only stages before it, and stages are started in order: of those that
            // are running, the first one never waits for another.
            let stages: Vec<(usize, &PlannedStage)> = self.plan.stages.iter().enumerate().collect();
            pool::map_in_order(&stages, MAX_STAGES_AT_ONCE, |(number, stage)| {
                self.run_stage(scope, *number, stage)
            })
        });
        self.save_memo()?;
        let errors = results.into_iter().filter_map(Result::err);
        let mut errors: Vec<Failure> = errors.chain(self.late_failure()).collect();
        let own = errors.iter().position(|error| !error.is_consequence()).unwrap_or(0);
        if errors.is_empty() { Ok(()) } else { Err(errors.swap_remove(own)) }
    }

    fn run_stage<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        number: usize,
        stage: &'scope PlannedStage,
    ) -> Result<()> {
        let slot = self.stages.get(number).expect("a plan names its own stages");
        let done = slot.fill(|| {
            self.stage_steps(scope, number, stage).inspect_err(|_error| self.services.stop.fail())
        });
        done.map(drop)
    }

    fn stage_steps<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        number: usize,
        stage: &'scope PlannedStage,
    ) -> Result<StageDone> {
        let (mut stack, mut history) = self.base(stage)?;
        for (at, step) in stage.steps.iter().enumerate() {
            if self.services.stop.is_thrown() {
                return Err(Failure::new(self.stopped()));
            }
            let at = At { stage: number, number: at, step };
            if let Some(operation) = &step.operation {
                stack = self.operation(scope, at, operation, &stack)?;
            }
            if let Some(line) = &step.history {
                let layer = step.operation.is_some().then(|| self.stage_layer(at, &stack));
                history.push(StageHistory { line: line.clone(), layer });
            }
        }
        Ok(StageDone { number, stack, history: Arc::new(history) })
    }

    fn stage_layer(&self, at: At<'_>, stack: &Stack) -> StageLayer {
        let made_by = Arc::new(MadeBy { span: at.step.span, place: self.place(at) });
        StageLayer { stack: stack.clone(), made_by }
    }

    /// The layers and the history that a stage starts with.
    fn base(&self, stage: &PlannedStage) -> Result<(Stack, Vec<StageHistory>)> {
        match &stage.base {
            Base::Scratch => Ok((Stack::default(), Vec::new())),
            Base::Stage(parent) => {
                let parent = self.stage(*parent)?;
                Ok((parent.stack, parent.history.to_vec()))
            }
            Base::Image(request) => {
                let from = format!("FROM {}", request.name);
                let step = self.start_at(StepPlace::of(stage, None, from));
                self.finish(step, Outcome::Cached);
                Ok((self.images.stack(request), Vec::new()))
            }
        }
    }

    pub(super) fn place(&self, at: At<'_>) -> StepPlace {
        let stage = self.plan.stages.get(at.stage).expect("a plan names its own stages");
        StepPlace::of(stage, Some(at.number), at.step.text.clone())
    }

    /// Makes the layer of one step, or finds it.
    fn operation<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        at: At<'scope>,
        operation: &'scope Operation,
        stack: &Stack,
    ) -> Result<Stack> {
        // The step starts when what it copies or mounts is there.
        for source in operation.stages() {
            self.stage(source)?;
        }
        let shown = self.start_at(self.place(at));
        let made = match operation {
            Operation::Run(run) => self.run_step(scope, at, run, stack, &shown),
            Operation::Copy(copy) => self.copy_step(at, copy, stack, &shown),
            Operation::Workdir(workdir) => self.workdir_step(at, workdir, stack, &shown),
        };
        let outcome = match &made {
            Ok((_, outcome)) => *outcome,
            Err(error) if error.is_cancelled() => Outcome::Cancelled,
            Err(_) => Outcome::Failed,
        };
        let id = shown.id;
        match &made {
            // Who hashes what a RUN left tells of it.
            Ok((_, Outcome::Done)) if matches!(operation, Operation::Run(_)) => {}
            Ok((stack, _)) => self.tell_layer(scope, id, stack),
            Err(_) => {}
        }
        self.finish(shown, outcome);
        let (stack, outcome) = made?;
        self.pack_ahead.offer(at.stage, outcome, &stack);
        Ok(stack)
    }

    fn run_step<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        at: At<'scope>,
        operation: &'scope plan::RunOperation,
        stack: &Stack,
        shown: &StepRun,
    ) -> Result<(Stack, Outcome)> {
        let inputs = Inputs::find(self, operation)?;
        cache_mount::meet(self, operation, &inputs);
        let key = self.key(OperationKey::run(operation, &inputs.digests()));
        let wanted = self.wanted(at, shown.id, &key, stack);
        let claim = match self.find_or_claim(&wanted, stack)? {
            Found::Made(stack) => return Ok((stack, Outcome::Cached)),
            Found::Claimed(claim) => claim,
        };
        let lowers = self.shown_directories(stack, at.step.span)?;
        let started = Instant::now();
        let span = at.step.span;
        let done = run::run(self, shown, span, operation, &inputs, &lowers)
            .map_err(|error| error.at(span))?;
        claim.note_duration(started);
        let next = stack.with_pending(claim.wanted.definition.as_bytes(), Arc::clone(&done.upper));
        self.made().insert(claim.wanted.definition, next.clone());
        let finish = {
            let (stack, next) = (stack.clone(), next.clone());
            move || self.finish_run((&stack, &next), span, &done, &lowers, &claim)
        };
        // Clamped times are set on the files: the next step must not run before.
        if self.options.clamp || self.options.jobs.get() == 1 {
            finish();
            next.top()?;
        } else {
            pool::start_or_run(scope, finish);
        }
        Ok((next, Outcome::Done))
    }

    /// Lists and hashes what a RUN left, and remembers it; the next step is already running.
    fn finish_run(
        &self,
        (below, next): (&Stack, &Stack),
        span: Span,
        done: &RunDone,
        lowers: &[LowerDirectory],
        claim: &Claim,
    ) {
        next.finish_top(|| {
            run::commit(self, done, lowers, &self.layer_options())
                .map_err(|error| Failure::new(error.at(span)))
                .and_then(|layer| self.remember(claim, below, &layer).map(|()| layer))
                .inspect(|layer| self.tell_made(claim.wanted.step, layer))
                .inspect_err(|error| self.fail_late(error))
        });
    }

    pub(super) fn form(&self, at: At<'_>) -> Representation {
        if self.forms.is_mounted(at.stage, at.number) {
            Representation::Directory
        } else {
            Representation::Tar
        }
    }

    pub(super) fn key(&self, key: OperationKey) -> OperationKey {
        key.clamped(self.layer_options().clamp_s)
    }
}
