//! Execution of a plan: one thread for each stage, up to a maximum, and one step after the other in
//! each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::executor::active_step::ActiveStep;
use crate::executor::cache::build_caches::BuildCaches;
use crate::executor::cache::export;
use crate::executor::cache::import::{self, ImportedCaches};
use crate::executor::cache::lookup::{Claim, Lookup};
use crate::executor::debug::session::DebugSession;
use crate::executor::inputs::build_inputs::BuildInputs;
use crate::executor::inputs::image_table::ImageTable;
use crate::executor::mounts::cache_mount;
use crate::executor::mounts::source::MountInputs;
use crate::executor::planned_step::PlannedStep;
use crate::executor::stack::Stack;
use crate::executor::state::BuildState;
use crate::executor::state::root_directories::RootKind;
use crate::executor::state::stage_result::{StageHistory, StageLayer, StageResult};
use crate::executor::steps::file_steps;
use crate::executor::steps::run::{self, FailedRun};
use crate::executor::steps::step_files::StepFiles;
use crate::executor::transfer::push;
use crate::executor::{
    BuildError, BuildOptions, Built, CacheLocation, Event, Failure, MadeBy, Outcome, Services,
    StageOutline, StepPlace,
};
use crate::image;
use crate::limits::MAX_STAGES_AT_ONCE;
use crate::oci::{DiffId, Digest, Reference};
use crate::plan::{self, Base, MountedLayers, Operation, OperationKey, Plan, PlannedStage, Target};
use crate::pool::{self, Scope};
use crate::sandbox;
use crate::store::{Representation, RootDirectory, TarObserver};

use super::assemble::{self, AssembledImage};
use super::hashing_pass::HashingPass;
use super::pack_ahead::{OfferedLayer, PackAhead};
use super::{budget, planning, read_ahead};

type Result<T> = std::result::Result<T, Failure>;

/// A build that ended with an error.
#[derive(Debug)]
pub struct FailedBuild {
    /// The first error in the order of the stages.
    pub error: Failure,
    /// Rootfs of the RUN that failed, if `BuildOptions::keep_failed` asks for it.
    pub session: Option<Box<DebugSession>>,
}

impl From<Failure> for FailedBuild {
    fn from(error: Failure) -> Self {
        Self { error, session: None }
    }
}

impl From<BuildError> for FailedBuild {
    fn from(error: BuildError) -> Self {
        Failure::new(error).into()
    }
}

/// Builds an image into the store, and writes it with `write`. Imports `--cache-from` first. Exports to
/// `--cache-to` while the image is written, and also after a build that failed.
///
/// # Errors
/// The first error in the order of the stages; the other steps are cancelled. The error of `write`.
/// [`BuildError::Cache`] for a cache that has to be read or written.
pub fn build<T>(
    services: &Services<'_>,
    options: &BuildOptions,
    write: impl FnOnce(&Built) -> Result<T>,
) -> std::result::Result<(Built, T), FailedBuild> {
    let inputs = BuildInputs::new(services, options);
    let (caches, built) = pool::scope(|scope| {
        let done = prepare_and_build(scope, &inputs);
        inputs.end_reading_ahead();
        done
    })?;
    let noted = caches.note_steps_used(services.store);
    let export =
        |layers: Option<&BTreeSet<DiffId>>| export::export(services, options, &caches, layers);
    match built {
        Err(failed) => {
            let is_late = services.cancel.is_timed_out();
            if !is_late && !matches!(*failed.error, BuildError::Interrupted) {
                drop(export(None));
            }
            Err(failed)
        }
        Ok((built, layers)) => {
            let (exported, written) = pool::at_once(|| export(Some(&layers)), || write(&built));
            let written = written?;
            exported?;
            noted?;
            Ok((built, written))
        }
    }
}

type BuiltImages = std::result::Result<(Built, BTreeSet<DiffId>), FailedBuild>;

/// Imports the caches, plans and builds; returns the images of all targets, and their layers. Files of the
/// context may still be read on another thread.
///
/// # Errors
/// An error that leaves nothing to export.
fn prepare_and_build<'scope>(
    scope: &'scope Scope<'scope, '_>,
    inputs: &'scope BuildInputs<'_>,
) -> std::result::Result<(BuildCaches, BuiltImages), FailedBuild> {
    let Prepared { checked, imported, planned } = prepare(scope, inputs);
    checked?;
    let caches = BuildCaches::new(imported?);
    let built = planned
        .map_err(FailedBuild::from)
        .and_then(|(plan, images)| build_images(inputs, &caches, &plan, &images));
    Ok((caches, built))
}

/// The results of what a build does before its first step.
struct Prepared {
    checked: Result<()>,
    imported: std::result::Result<ImportedCaches, BuildError>,
    planned: Result<(Plan, ImageTable)>,
}

/// Tells the registry client which repositories the build will use.
fn expect_access(services: &Services<'_>, options: &BuildOptions) {
    let read = options.cache_from.iter().map(|cache| (&cache.place, false));
    for (place, is_written) in read.chain(options.cache_to.iter().map(|to| (&to.place, true))) {
        if let CacheLocation::Registry(name) = place {
            services.registry.expect_access(name, is_written);
        }
    }
    for name in options.guarded_names.iter().chain(options.upload_ahead.iter().map(|to| &to.name)) {
        services.registry.expect_access(name, true);
    }
}

/// Imports the caches, plans, and checks that no index in a registry would lose platforms, all at once:
/// most of it is waiting for registries. Files of the context are read meanwhile.
fn prepare<'scope>(scope: &'scope Scope<'scope, '_>, inputs: &'scope BuildInputs<'_>) -> Prepared {
    let (services, options) = (inputs.services, inputs.options);
    expect_access(services, options);
    let platforms = &options.request.platforms;
    let check = || {
        push::check_permission(services, &options.push_checks)?;
        let patience = image::RegistryRetries::Once;
        push::check_platforms(services, &options.guarded_names, platforms, patience)
    };
    let import = || import::import(services, &options.cache_from, platforms);
    let asks_nothing = options.guarded_names.is_empty() && options.push_checks.is_empty();
    if asks_nothing && options.cache_from.is_empty() {
        return Prepared { checked: Ok(()), imported: import(), planned: planning::plan(inputs) };
    }
    if options.jobs.get() > 1 {
        // Without the thread, the steps read what they need.
        drop(pool::start(scope, || read_ahead::read_context(inputs)));
    }
    let (checked, (imported, planned)) =
        pool::at_once(check, || pool::at_once(import, || planning::plan(inputs)));
    Prepared { checked, imported, planned }
}

/// Builds the images of all targets; returns their layers, too.
fn build_images(
    inputs: &BuildInputs<'_>,
    caches: &BuildCaches,
    plan: &Plan,
    images: &ImageTable,
) -> BuiltImages {
    let (services, options) = (inputs.services, inputs.options);
    services.event(Event::Planned { stages: StageOutline::all(plan) });
    let state = BuildState::new(inputs, caches, plan, images);
    Driver::new(&state).all_stages()?;
    let image =
        |target: &Target| assemble::image(&state, &state.stage(target.stage)?, &target.platform);
    let images = plan.targets.iter().map(image);
    let mut images: Vec<AssembledImage> = images.collect::<Result<_>>()?;
    budget::check(&state, &mut images)?;
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
    for image in state.images.resolved.keys() {
        let noted = services.store.resolved_images().note_use(&image.name, &image.platform);
        noted.map_err(BuildError::from)?;
    }
    services.store.make_durable().map_err(BuildError::from)?;
    let layers = images.iter().flat_map(|image| image.layers.iter().copied()).collect();
    let images = images.into_iter().map(|image| image.built).collect();
    Ok((Built { top, id, images, warnings: plan.warnings.clone() }, layers))
}

/// Tags the image. Reports it if the tag stood for more platforms; that a build replaces the image of an
/// earlier one needs no message.
fn set_tag(services: &Services<'_>, tag: &Reference, top: Digest) -> Result<()> {
    let replaced = image::replaced(services.store, tag, top).map_err(BuildError::from)?;
    if let Some(replaced) = replaced.filter(image::Replaced::loses_platforms) {
        services.event(Event::Note { text: replaced.to_string() });
    }
    Ok(services.store.tags().set(tag, top).map_err(BuildError::from)?)
}

/// The work after the layer of a RUN is recorded.
#[derive(Debug)]
struct AfterRun<'a> {
    /// Compressed the layer while it was hashed.
    pass: Option<HashingPass<'a>>,
    /// The directory that the step changed in place, if no later step needs it.
    unneeded: Option<RootDirectory>,
}

impl AfterRun<'_> {
    fn end(self) {
        if let Some(pass) = self.pass {
            pass.finish();
        }
        drop(self.unneeded);
    }
}

/// Executes a plan.
#[derive(Debug)]
pub(in crate::executor) struct Driver<'a> {
    state: &'a BuildState<'a>,
    forms: MountedLayers,
    pack_ahead: PackAhead,
    /// Rootfs of failed steps, by stage.
    sessions: Mutex<BTreeMap<usize, Box<DebugSession>>>,
}

impl<'a> Driver<'a> {
    pub(in crate::executor) fn new(state: &'a BuildState<'a>) -> Self {
        Self {
            state,
            forms: plan::mounted_layers(state.plan),
            pack_ahead: PackAhead::new(state.plan, state.options),
            sessions: Mutex::default(),
        }
    }

    /// Runs all stages.
    ///
    /// # Errors
    /// That of the first stage, in order, which failed by itself.
    pub(in crate::executor) fn all_stages(&self) -> std::result::Result<(), FailedBuild> {
        let results = pool::scope(|scope| {
            let _ending = self.pack_ahead.start(scope, self.state.services);
            // A stage needs only stages before it, and stages are started in order: of those that
            // are running, the first one never waits for another.
            let plan = self.state.plan;
            let stages: Vec<(usize, &PlannedStage)> = plan.stages.iter().enumerate().collect();
            pool::map_in_order(&stages, MAX_STAGES_AT_ONCE, |(number, stage)| {
                self.run_stage(scope, *number, stage)
            })
        });
        self.state.inputs.save_hashes()?;
        let failed = results.into_iter().enumerate();
        let failed = failed.filter_map(|(number, result)| Some((Some(number), result.err()?)));
        let late = self.state.late_failure().map(|error| (None, error));
        let mut errors: Vec<(Option<usize>, Failure)> = failed.chain(late).collect();
        let is_own = |(_, error): &(Option<usize>, Failure)| !error.is_consequence();
        let is_limit = |(_, error): &(Option<usize>, Failure)| error.is_timeout();
        let own = errors.iter().position(is_own).or_else(|| errors.iter().position(is_limit));
        let own = own.unwrap_or(0);
        if errors.is_empty() {
            return Ok(());
        }
        let (stage, error) = errors.swap_remove(own);
        let session = stage.and_then(|stage| self.sessions().remove(&stage));
        Err(FailedBuild { error, session })
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Box<DebugSession>>> {
        // Each use is one call on the map.
        pool::lock(&self.sessions)
    }

    fn run_stage<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        number: usize,
        stage: &'scope PlannedStage,
    ) -> Result<()> {
        let done = self.state.stage_slot(number).fill(|| {
            let mut done = self.stage_steps(scope, number, stage);
            // Each time at least one layer more is known to be gone.
            while let Err(error) = &done
                && matches!(**error, BuildError::LostLayers)
            {
                done = self.stage_steps(scope, number, stage);
            }
            done.inspect_err(|_error| self.state.services.cancel.fail())
        });
        done.map(drop)
    }

    fn stage_steps<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        number: usize,
        stage: &'scope PlannedStage,
    ) -> Result<StageResult> {
        let services = self.state.services;
        let (mut stack, mut history) = self.base(stage)?;
        for (at, step) in stage.steps.iter().enumerate() {
            if services.cancel.is_set() {
                return Err(Failure::new(services.stopped()));
            }
            let at = PlannedStep { stage: number, number: at, step };
            if let Some(operation) = &step.operation {
                stack = self.operation(scope, at, operation, &stack)?;
            }
            if let Some(line) = &step.history {
                let layer = step.operation.is_some().then(|| self.stage_layer(at, &stack));
                history.push(StageHistory { line: line.clone(), layer });
            }
        }
        self.state.steps.confirm(&stack)?;
        Ok(StageResult { number, stack, history: Arc::new(history) })
    }

    fn stage_layer(&self, at: PlannedStep<'_>, stack: &Stack) -> StageLayer {
        let made_by = MadeBy { span: at.step.span, place: at.place(self.state.plan) };
        StageLayer { stack: stack.clone(), made_by: Arc::new(made_by) }
    }

    /// Returns the layers and the history that a stage starts with.
    fn base(&self, stage: &PlannedStage) -> Result<(Stack, Vec<StageHistory>)> {
        match &stage.base {
            Base::Scratch => Ok((Stack::default(), Vec::new())),
            Base::Stage(parent) => {
                let parent = self.state.stage(*parent)?;
                Ok((parent.stack, parent.history.to_vec()))
            }
            Base::Image(request) => {
                let services = self.state.services;
                let layers = self.state.images.get(request).layers();
                self.state.caches.note_base(layers.map(|(layer, _blob)| layer));
                let from = format!("FROM {}", request.name);
                let step = services.start_at(StepPlace::of(stage, None, from));
                services.finish(step, Outcome::Cached);
                Ok((self.state.images.stack(request), Vec::new()))
            }
        }
    }

    /// Finds or executes one step; returns the stack with its layer on top.
    fn operation<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        at: PlannedStep<'scope>,
        operation: &'scope Operation,
        stack: &Stack,
    ) -> Result<Stack> {
        let state = self.state;
        // The step starts when the stages that it copies or mounts are finished.
        for source in operation.stages() {
            state.stage(source)?;
        }
        let active = state.services.start_at(at.place(state.plan));
        let active = active.of_stage(state.steps.is_uncached(at.stage));
        let made = match operation {
            Operation::Run(run) => self.run_step(scope, at, run, stack, &active),
            Operation::Copy(copy) => {
                file_steps::copy((state, scope), at, copy, stack, &active, &|| self.form(at))
            }
            Operation::Workdir(workdir) => {
                file_steps::workdir((state, scope), at, workdir, stack, &active, &|| self.form(at))
            }
        };
        let outcome = match &made {
            Ok((_, outcome)) => *outcome,
            Err(error) if error.is_cancelled() || matches!(**error, BuildError::LostLayers) => {
                Outcome::Cancelled
            }
            Err(_) => Outcome::Failed,
        };
        match &made {
            // `finish_run` reports the layer of a RUN once it is hashed.
            Ok((_, Outcome::Done)) if matches!(operation, Operation::Run(_)) => {}
            Ok((stack, _)) => state.report_layer(scope, active.id, stack),
            Err(_) => {}
        }
        state.services.finish(active, outcome);
        let (stack, outcome) = made?;
        // The layer of a RUN is queued before it is hashed.
        if outcome == Outcome::Done && !matches!(operation, Operation::Run(_)) {
            self.pack_ahead.offer(self.offered(at, &stack));
        }
        Ok(stack)
    }

    fn run_step<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        at: PlannedStep<'scope>,
        operation: &'scope plan::RunOperation,
        stack: &Stack,
        active: &ActiveStep,
    ) -> Result<(Stack, Outcome)> {
        let state = self.state;
        let inputs = MountInputs::find(state, operation)?;
        cache_mount::note(state, operation, &inputs);
        let key = state.clamped(OperationKey::run(operation, &inputs.digests()));
        let keys = state.steps.keys(at, active.id, &key, stack);
        let claim = match state.steps.find_or_claim(&keys, stack)? {
            Lookup::Cached(stack) => return Ok((stack, Outcome::Cached)),
            Lookup::Claimed(claim) => claim,
        };
        let span = at.step.span;
        if let Some(source) = sandbox::refusal() {
            return Err(Failure::new(BuildError::Sandbox { span, source }));
        }
        let started = Instant::now();
        let mut files = run::with_retries(state, active, (operation, span), &inputs, stack)
            .map_err(|failed| self.keep_session(at.stage, active, operation, failed).at(span))?;
        claim.note_duration(started);
        let upper = files.upper();
        let is_mountable = upper.is_some();
        let next = stack.with_pending(claim.keys.definition.as_bytes(), upper);
        state.steps.share(claim.keys.definition, next.clone());
        let layer = self.offered(at, &next);
        let pass = self.pack_ahead.offer_pending(state.services, layer, active.short_name());
        let finish = {
            let (stack, next) = (stack.clone(), next.clone());
            move || self.finish_run((&stack, &next), at, files, &claim, pass)
        };
        // Clamped times are set on the files: the next step must not run before.
        if state.options.clamp || state.options.jobs.get() == 1 || !is_mountable {
            let left = finish();
            // Removing files takes as long as many steps.
            pool::start_or_run(scope, move || left.end());
            next.top()?;
        } else {
            pool::start_or_run(scope, move || finish().end());
        }
        Ok((next, Outcome::Done))
    }

    /// Keeps the rootfs of a failed step, if it has one; returns the error.
    fn keep_session(
        &self,
        stage: usize,
        active: &ActiveStep,
        operation: &plan::RunOperation,
        failed: FailedRun,
    ) -> BuildError {
        if let Some(root) = failed.root {
            let session = DebugSession::new(active.name.clone(), operation, *root);
            self.sessions().insert(stage, session);
        }
        failed.error
    }

    /// Lists, hashes and records the layer of a RUN, while the next step is running already. `pass` may
    /// compress it meanwhile. Returns the work for which no step needs to wait.
    fn finish_run<'pass>(
        &self,
        (below, next): (&Stack, &Stack),
        at: PlannedStep<'_>,
        mut files: StepFiles,
        claim: &Claim,
        mut pass: Option<HashingPass<'pass>>,
    ) -> AfterRun<'pass> {
        let state = self.state;
        let (store, options) = (state.services.store, state.options.layer_options());
        let failure = |error| Failure::new(BuildError::from(error).at(at.step.span));
        let list = |files: &mut StepFiles| {
            let listed = files.list(store, &options).map_err(failure);
            listed.inspect_err(|error| state.fail_late(error))
        };
        let commit = |files: &mut StepFiles| {
            let observer = pass.as_mut().map(|pass| -> &mut dyn TarObserver {
                pass.begin(files.listed_bytes());
                pass
            });
            let made = files.commit(store, &options, observer).map_err(failure);
            made.and_then(|layer| state.steps.record(claim, below, &layer).map(|()| layer))
                .inspect(|layer| state.report_made(claim.keys.step, layer))
                .inspect_err(|error| state.fail_late(error))
        };
        next.finish_top(&mut files, list, commit);
        let is_made = next.ready_top().is_some();
        let pass = pass.filter(|_pass| is_made);
        let Some(root) = files.into_root() else { return AfterRun { pass, unneeded: None } };
        let is_run = |operation: &Operation| matches!(operation, Operation::Run(_));
        if !is_made || !self.has_later(at, is_run) {
            return AfterRun { pass, unneeded: Some(root) };
        }
        if let Err(error) = state.keep_root(next, root) {
            state.fail_late(&error);
        }
        AfterRun { pass, unneeded: None }
    }

    fn offered<'s>(&self, at: PlannedStep<'_>, stack: &'s Stack) -> OfferedLayer<'s> {
        OfferedLayer { stage: at.stage, stack, is_last: !self.has_later(at, |_any| true) }
    }

    /// Returns whether such a step may be executed later on the stack that this step leaves.
    fn has_later(&self, at: PlannedStep<'_>, is_wanted: impl Fn(&Operation) -> bool) -> bool {
        let stages = &self.state.plan.stages;
        let is_base =
            |stage: &PlannedStage| matches!(stage.base, Base::Stage(base) if base == at.stage);
        let steps = stages.get(at.stage).map(|stage| stage.steps.as_slice()).unwrap_or_default();
        let is_wanted = |step: &plan::Step| step.operation.as_ref().is_some_and(&is_wanted);
        steps.iter().skip(at.number.saturating_add(1)).any(is_wanted) || stages.iter().any(is_base)
    }

    /// Returns the representation in which the layer of a COPY, ADD or WORKDIR is written.
    fn form(&self, at: PlannedStep<'_>) -> Representation {
        if self.forms.is_mounted(at.stage, at.number) && self.state.root_kind() == RootKind::Overlay
        {
            Representation::Directory
        } else {
            Representation::Tar
        }
    }
}
