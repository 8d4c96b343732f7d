//! The walk through the graph: one thread a stage, one step after the other in each.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crate::context::{Context, IgnoreRules};
use crate::diag::Diagnostic;
use crate::ir;
use crate::oci::{Digest, Reference};

use crate::plan::{
    self, Base, CacheKey, Component, CopyFrom, Forms, ImageRequest, Operation, OperationKey, Plan,
    PlannedStage, Step,
};
use crate::pool::{self, Scope};
use crate::registry::Client;
use crate::store::{Form, LayerDone, LayerOptions, LowerFolder, StepLock, StepRecord, Store};
use crate::tree::Tree;

use super::assemble::{self, Assembled, StageHistory};
use super::cache_mount::EmptiedCaches;
use super::contexts::{ContextFiles, NamedFolders};
use super::fetch::Fetched;
use super::images::ImageTable;
use super::lent::Lent;
use super::mount_source::{ContextFolders, Inputs};
use super::run::RunDone;
use super::slot::Slot;
use super::stack::Stack;
use super::{BuildError, Event, Failure, Outcome, StepId, Stop, copy, run, workdir};

/// The number of the build context among the folders that files may lie in.
pub(super) const CONTEXT_FOLDER: u32 = 0;

/// Where the sources of COPY are.
#[derive(Debug, Clone)]
pub struct ContextSource {
    /// The folder.
    pub path: PathBuf,
    /// What of it is not there for the build.
    pub ignore: IgnoreRules,
    /// Whether the folder is the same in the next build, so that its files' hashes are remembered.
    pub lasting: bool,
    /// The files with their owners, if it is an archive's and not simply a folder.
    pub tree: Option<Tree>,
}

/// What a build is to do.
#[derive(Debug)]
pub struct BuildOptions {
    /// The Dockerfile.
    pub dockerfile: ir::Dockerfile,
    /// The context.
    pub context: ContextSource,
    /// The named contexts that are files, by the names in the request.
    pub contexts: BTreeMap<String, ContextFiles>,
    /// Arguments, target, platform, labels.
    pub request: plan::Request,
    /// Names for the result.
    pub tags: Vec<Reference>,
    /// Whether the result is an index even for a single platform.
    pub always_index: bool,
    /// Whether earlier results are not used.
    pub no_cache: bool,
    /// Whether registries are asked even for images that are in the store.
    pub pull: bool,
    /// SOURCE_DATE_EPOCH: the time in config and history.
    pub epoch_s: Option<i64>,
    /// Whether later file times in new layers become the epoch too.
    pub clamp: bool,
    /// Secrets and agents for `RUN --mount`.
    pub lent: Lent,
    /// Seconds since 1970.
    pub now_s: i64,
    /// How many threads may work at once.
    pub jobs: NonZeroUsize,
}

/// What a build works with.
#[derive(Clone, Copy)]
pub struct Services<'a> {
    /// The store.
    pub store: &'a Store,
    /// The registries.
    pub registry: &'a Client,
    /// Ends the build.
    pub stop: &'a Stop,
    /// Variables for programs of the host, such as git: PATH, proxies, certificates.
    pub environment: &'a BTreeMap<String, String>,
    /// Secrets and agents.
    pub lent: &'a Lent,
    /// Learns what happens.
    pub events: &'a (dyn Fn(Event) + Sync),
}

impl std::fmt::Debug for Services<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("store", &self.store).finish_non_exhaustive()
    }
}

/// What was built, in the store.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image's manifest in the store, in which new layers are plain tars; for several platforms,
    /// the index over those.
    pub top: Digest,
    /// The image's id, the same whatever the layers' packing: the digest of its config; for several
    /// platforms, that of the index.
    pub id: Digest,
    /// What is odd about the Dockerfile.
    pub warnings: Vec<Diagnostic>,
}

type Result<T> = std::result::Result<T, Failure>;

/// Builds an image into the store.
///
/// # Errors
/// The first error in the order of the stages; the other steps were ended.
pub fn build(services: &Services<'_>, options: &BuildOptions) -> Result<Built> {
    let shared = Shared::new(services, options);
    let (plan, images) = make_plan(&shared)?;
    let run = Run::new(&shared, &plan, &images);
    run.all_stages()?;
    let images = plan.targets.iter().map(|target| assemble::image(&run, &run.stage(*target)?));
    let images: Vec<Assembled> = images.collect::<Result<_>>()?;
    let (top, id) = match images.as_slice() {
        [only] if !options.always_index => (only.manifest.digest, only.config),
        several => {
            let index = assemble::index(services.store, several)?;
            (index, index)
        }
    };
    for tag in &options.tags {
        services.store.set_tag(tag, top).map_err(BuildError::from)?;
    }
    services.store.make_durable().map_err(BuildError::from)?;
    Ok(Built { top, id, warnings: plan.warnings })
}

/// Resolves images until the plan is complete.
fn make_plan(shared: &Shared<'_>) -> Result<(Plan, ImageTable)> {
    let mut table = ImageTable::default();
    let mut known = plan::Images::new();
    loop {
        let outcome = plan::plan(&shared.options.dockerfile, &shared.options.request, &known)
            .map_err(|diagnostics| BuildError::Dockerfile { diagnostics })?;
        match outcome {
            plan::Outcome::Ready(plan) => return Ok((*plan, table)),
            plan::Outcome::Needs(needs) => table.resolve(shared, &needs, &mut known)?,
        }
    }
}

/// Numbers steps and tells of them.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    pub(super) services: &'a Services<'a>,
    next: AtomicU32,
}

impl<'a> Steps<'a> {
    pub(super) const fn new(services: &'a Services<'a>) -> Self {
        Self { services, next: AtomicU32::new(1) }
    }

    pub(super) fn event(&self, event: Event) {
        (self.services.events)(event);
    }

    pub(super) fn start(&self, name: String) -> StepRun {
        let id = StepId(self.next.fetch_add(1, Ordering::Relaxed));
        self.event(Event::Started { step: id, name });
        StepRun { id, started: Instant::now() }
    }

    pub(super) fn finish(&self, step: StepRun, outcome: Outcome) {
        let took = step.started.elapsed();
        self.event(Event::Finished { step: step.id, outcome, took });
    }
}

/// What is the same for all stages.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    steps: Steps<'a>,
    pub(super) options: &'a BuildOptions,
    next_folder: AtomicU32,
    context: OnceLock<Context>,
    pub(super) fetched: Fetched,
    pub(super) named: NamedFolders,
    resolv_conf: OnceLock<Vec<u8>>,
}

/// A step that is shown.
#[derive(Debug)]
pub(super) struct StepRun {
    pub(super) id: StepId,
    started: Instant,
}

impl<'a> Shared<'a> {
    pub(super) fn new(services: &'a Services<'a>, options: &'a BuildOptions) -> Self {
        Self {
            steps: Steps::new(services),
            options,
            next_folder: AtomicU32::new(CONTEXT_FOLDER + 1),
            context: OnceLock::new(),
            fetched: Fetched::default(),
            named: NamedFolders::default(),
            resolv_conf: OnceLock::new(),
        }
    }

    /// The context, opened when a step first needs it.
    pub(super) fn context(&self) -> std::result::Result<&Context, BuildError> {
        if let Some(context) = self.context.get() {
            return Ok(context);
        }
        let context = self.open_context(&self.options.context, CONTEXT_FOLDER);
        let context = context.map_err(|error| error.at(None))?;
        Ok(self.context.get_or_init(|| context))
    }

    /// Keeps the hashes of the context's files for the next build.
    fn save_memo(&self) -> std::result::Result<(), BuildError> {
        let source = &self.options.context;
        if let Some(context) = self.context.get() {
            self.save_memo_of(&source.path, context)?;
        }
        self.save_named_memos()?;
        Ok(())
    }

    pub(super) fn resolv_conf(&self) -> &[u8] {
        self.resolv_conf.get_or_init(run::read_resolv_conf)
    }

    /// A number for a folder that files may lie in.
    pub(super) fn next_folder(&self) -> u32 {
        self.next_folder.fetch_add(1, Ordering::Relaxed)
    }

    /// The time of files that rbuild itself makes.
    pub(super) fn file_time_s(&self) -> i64 {
        self.options.epoch_s.unwrap_or(self.options.now_s)
    }

    pub(super) fn layer_options(&self) -> LayerOptions {
        let clamp_s = self.options.epoch_s.filter(|_epoch| self.options.clamp);
        LayerOptions { clamp_s, created_s: self.options.now_s }
    }

    /// Why a step ends before its time.
    pub(super) fn stopped(&self) -> BuildError {
        if self.services.stop.is_interrupted() {
            BuildError::Interrupted
        } else {
            BuildError::Stopped
        }
    }
}

impl<'a> std::ops::Deref for Shared<'a> {
    type Target = Steps<'a>;

    fn deref(&self) -> &Steps<'a> {
        &self.steps
    }
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
    forms: Forms,
    stages: Vec<Slot<StageDone>>,
    pub(super) context_folders: ContextFolders,
    pub(super) emptied_caches: EmptiedCaches,
    /// Steps of this build by definition: equal steps of several stages are one.
    made: Mutex<BTreeMap<CacheKey, Stack>>,
}

impl<'a> std::ops::Deref for Run<'a> {
    type Target = Shared<'a>;

    fn deref(&self) -> &Shared<'a> {
        self.shared
    }
}

/// One step and where it stands.
#[derive(Clone, Copy)]
struct At<'a> {
    stage: usize,
    number: usize,
    step: &'a Step,
}

impl<'a> Run<'a> {
    fn new(shared: &'a Shared<'a>, plan: &'a Plan, images: &'a ImageTable) -> Self {
        let stages = plan.stages.iter().map(|_stage| Slot::new()).collect();
        let made = Mutex::new(BTreeMap::new());
        Self {
            shared,
            plan,
            images,
            forms: plan::forms(plan),
            stages,
            context_folders: ContextFolders::default(),
            emptied_caches: EmptiedCaches::default(),
            made,
        }
    }

    /// What came of a stage; waits for it.
    pub(super) fn stage(&self, number: usize) -> Result<StageDone> {
        self.stages.get(number).expect("a plan names its own stages").wait()
    }

    /// Runs all stages; the error is that of the first stage, in order, which has one of its own.
    fn all_stages(&self) -> Result<()> {
        let results = pool::scope(|scope| {
            let handles: Vec<_> = self
                .plan
                .stages
                .iter()
                .enumerate()
                .map(|(number, stage)| scope.spawn(move || self.run_stage(scope, number, stage)))
                .collect();
            handles.into_iter().map(pool::join).collect::<Vec<Result<()>>>()
        });
        self.save_memo()?;
        let mut errors: Vec<Failure> = results.into_iter().filter_map(Result::err).collect();
        let own = errors.iter().position(|error| !error.is_consequence()).unwrap_or(0);
        if errors.is_empty() { Ok(()) } else { Err(errors.swap_remove(own)) }
    }

    fn run_stage<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        number: usize,
        stage: &'scope PlannedStage,
    ) -> Result<()> {
        let done = self.stage_steps(scope, number, stage);
        if done.is_err() {
            self.services.stop.fail();
        }
        let result = done.clone().map(drop);
        self.stages.get(number).expect("a plan names its own stages").fill(done);
        result
    }

    fn stage_steps<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        number: usize,
        stage: &'scope PlannedStage,
    ) -> Result<StageDone> {
        let (mut stack, mut history) = self.base(number, stage)?;
        for (at, step) in stage.steps.iter().enumerate() {
            if self.services.stop.is_thrown() {
                return Err(Failure::new(self.stopped()));
            }
            if let Some(operation) = &step.operation {
                let at = At { stage: number, number: at, step };
                stack = self.operation(scope, at, operation, &stack)?;
            }
            if let Some(line) = &step.history {
                let layer = step.operation.is_some().then(|| stack.clone());
                history.push(StageHistory { line: line.clone(), layer });
            }
        }
        Ok(StageDone { number, stack, history: Arc::new(history) })
    }

    /// The layers and the history that a stage starts with.
    fn base(&self, number: usize, stage: &PlannedStage) -> Result<(Stack, Vec<StageHistory>)> {
        match &stage.base {
            Base::Scratch => Ok((Stack::default(), Vec::new())),
            Base::Stage(parent) => {
                let parent = self.stage(*parent)?;
                Ok((parent.stack, parent.history.to_vec()))
            }
            Base::Image(request) => {
                let total = stage.n_operations() + 1;
                let name = format!("[{} 1/{total}] FROM {}", stage.name, request.name);
                let step = self.start(name);
                self.finish(step, Outcome::Cached);
                let _ = number;
                Ok((self.images.get(request).stack(), Vec::new()))
            }
        }
    }

    fn step_name(&self, at: At<'_>) -> String {
        let Some(stage) = self.plan.stages.get(at.stage) else { return String::new() };
        let before =
            stage.steps.iter().take(at.number).filter(|step| step.operation.is_some()).count();
        format!("[{} {}/{}] {}", stage.name, before + 2, stage.n_operations() + 1, at.step.text)
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
        let shown = self.start(self.step_name(at));
        let made = match operation {
            Operation::Run(run) => self.run_step(scope, at, run, stack, &shown),
            Operation::Copy(copy) => self.copy_step(at, copy, stack),
            Operation::Workdir(workdir) => self.workdir_step(at, workdir, stack),
        };
        let outcome = match &made {
            Ok((_, outcome)) => *outcome,
            Err(error) if error.is_cancelled() => Outcome::Cancelled,
            Err(_) => Outcome::Failed,
        };
        self.finish(shown, outcome);
        made.map(|(stack, _)| stack)
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
        let key = self.key(OperationKey::run(operation, &inputs.digests()));
        let wanted = Wanted::new(&key, stack);
        let claim = match self.find_or_claim(&wanted, stack)? {
            Found::Made(stack) => return Ok((stack, Outcome::Cached)),
            Found::Claimed(claim) => claim,
        };
        let lowers = self.folders(stack)?;
        let started = Instant::now();
        let done = run::run(self, shown, at.step.span, operation, &inputs, &lowers)?;
        claim.note_duration(started);
        let next = stack.with_pending(claim.wanted.definition.as_bytes(), Arc::clone(&done.upper));
        self.made().insert(claim.wanted.definition, next.clone());
        let finish = {
            let (stack, next) = (stack.clone(), next.clone());
            move || self.finish_run(&stack, &next, &done, &lowers, &claim)
        };
        // Clamped times are set on the files: the next step must not run before.
        if self.options.clamp || self.options.jobs.get() == 1 {
            finish();
            next.top()?;
        } else {
            scope.spawn(finish);
        }
        Ok((next, Outcome::Done))
    }

    /// Lists and hashes what a RUN left, and remembers it; the next step is already running.
    fn finish_run(
        &self,
        below: &Stack,
        next: &Stack,
        done: &RunDone,
        lowers: &[LowerFolder],
        claim: &Claim,
    ) {
        let finished = run::commit(self, done, lowers, &self.layer_options())
            .map_err(Failure::new)
            .and_then(|layer| self.remember(claim, below, &layer).map(|()| layer));
        if finished.is_err() {
            self.services.stop.fail();
        }
        next.finish_top(finished);
    }

    fn copy_step(
        &self,
        at: At<'_>,
        operation: &plan::CopyOperation,
        stack: &Stack,
    ) -> Result<(Stack, Outcome)> {
        let span = at.step.span;
        // What stages and images hold need not be looked at when what made them is known.
        let source = self.source_stack(operation)?;
        let by_source = source.as_ref().map(|source| {
            let made_by = source.definition().as_content();
            self.key(OperationKey::copy(operation, &made_by)).key().on(stack.definition())
        });
        if let (Some(definition), Some(false)) = (by_source, source.as_ref().map(Stack::is_fresh))
            && let Some(found) = self.find_by_definition(definition, stack)?
        {
            return Ok((found, Outcome::Cached));
        }
        let mut sources = copy::sources(self, operation, span)?;
        let selected = sources.digest(self, operation, span)?;
        let mut wanted = Wanted::new(&self.key(OperationKey::copy(operation, &selected)), stack);
        wanted.definition = by_source.unwrap_or(wanted.definition);
        let claim = match self.find_or_claim(&wanted, stack)? {
            Found::Made(stack) => return Ok((stack, Outcome::Cached)),
            Found::Claimed(claim) => claim,
        };
        let started = Instant::now();
        let below = self.tree(stack)?;
        let accounts = copy::accounts(self, &below)?;
        let layer = sources.layer(self, operation, &below, &accounts, span)?;
        let store = self.services.store;
        let (form, options) = (self.form(at), self.layer_options());
        let written = sources
            .with_contents(self, |open| store.layer_from_entries(&layer, open, form, &options));
        claim.note_duration(started);
        self.done(&claim, stack, written.map_err(BuildError::from)?)
    }

    fn workdir_step(
        &self,
        at: At<'_>,
        operation: &plan::WorkdirOperation,
        stack: &Stack,
    ) -> Result<(Stack, Outcome)> {
        let wanted = Wanted::new(&self.key(OperationKey::workdir(operation)), stack);
        let claim = match self.find_or_claim(&wanted, stack)? {
            Found::Made(stack) => return Ok((stack, Outcome::Cached)),
            Found::Claimed(claim) => claim,
        };
        let below = self.tree(stack)?;
        let accounts = copy::accounts(self, &below)?;
        let layer = workdir::layer(operation, &below, &accounts, at.step.span, self.file_time_s())?;
        let none = |_file: &crate::tree::File, _path: &crate::tree::TreePath| {
            Err(std::io::Error::from(std::io::ErrorKind::NotFound))
        };
        let store = self.services.store;
        let written = store.layer_from_entries(&layer, &none, self.form(at), &self.layer_options());
        self.done(&claim, stack, written.map_err(BuildError::from)?)
    }

    fn done(
        &self,
        claim: &Claim,
        stack: &Stack,
        (layer, folder): (LayerDone, Option<LowerFolder>),
    ) -> Result<(Stack, Outcome)> {
        let next = stack.with_done(claim.wanted.definition.as_bytes(), layer.clone(), folder);
        self.made().insert(claim.wanted.definition, next.clone());
        self.remember(claim, stack, &layer)?;
        Ok((next, Outcome::Done))
    }

    fn form(&self, at: At<'_>) -> Form {
        if self.forms.is_mounted(at.stage, at.number) { Form::Folder } else { Form::Tar }
    }

    fn key(&self, key: OperationKey) -> OperationKey {
        key.clamped(self.layer_options().clamp_s)
    }

    fn made(&self) -> std::sync::MutexGuard<'_, BTreeMap<CacheKey, Stack>> {
        // Each use is one call on the map: a panic elsewhere leaves it whole.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a step up, first by what made it, then by what its parent holds; or claims it, so
    /// that nobody else makes it at the same time.
    fn find_or_claim(&self, wanted: &Wanted, stack: &Stack) -> Result<Found> {
        if let Some(found) = self.find(wanted, stack)? {
            return Ok(Found::Made(found));
        }
        let lock = self.services.store.lock_step(wanted.definition).map_err(BuildError::from)?;
        // Whoever held the lock may have made it.
        if let Some(found) = self.find(wanted, stack)? {
            return Ok(Found::Made(found));
        }
        let wanted = wanted.clone();
        Ok(Found::Claimed(Claim { wanted, duration_ms: AtomicU64::new(0), _lock: lock }))
    }

    fn find(&self, wanted: &Wanted, stack: &Stack) -> Result<Option<Stack>> {
        if let Some(found) = self.find_by_definition(wanted.definition, stack)? {
            return Ok(Some(found));
        }
        let store = self.services.store;
        let error = BuildError::from;
        // Only a record of the same operation can be found by content: without one there is no
        // need to wait for the parent's content.
        if self.options.no_cache || !store.has_operation(wanted.operation).map_err(error)? {
            return Ok(None);
        }
        let content = wanted.operation.on(stack.content()?);
        let Some(hit) = store.step_by_content(content).map_err(error)? else { return Ok(None) };
        let Wanted { definition, operation, components } = wanted.clone();
        let record = StepRecord { definition, content, operation, components, ..hit };
        store.record_step(&record).map_err(error)?;
        self.found(&record, stack)
    }

    /// Looks a step up by what made it and all that is below it.
    fn find_by_definition(&self, definition: CacheKey, stack: &Stack) -> Result<Option<Stack>> {
        if let Some(made) = self.made().get(&definition) {
            return Ok(Some(made.clone()));
        }
        if self.options.no_cache || stack.is_fresh() {
            return Ok(None);
        }
        let hit = self.services.store.step_by_definition(definition).map_err(BuildError::from)?;
        hit.map_or(Ok(None), |hit| self.found(&hit, stack))
    }

    fn found(&self, hit: &StepRecord, stack: &Stack) -> Result<Option<Stack>> {
        let record = self.services.store.layer(hit.layer).map_err(BuildError::from)?;
        let Some(mut record) = record else { return Ok(None) };
        record.created_s = hit.created_s;
        let done = LayerDone { diff_id: hit.layer, record };
        let next = stack.with_found(hit.definition.as_bytes(), done);
        self.made().insert(hit.definition, next.clone());
        Ok(Some(next))
    }

    fn remember(&self, claim: &Claim, below: &Stack, layer: &LayerDone) -> Result<()> {
        let record = StepRecord {
            definition: claim.wanted.definition,
            content: claim.wanted.operation.on(below.content()?),
            operation: claim.wanted.operation,
            components: claim.wanted.components.clone(),
            layer: layer.diff_id,
            created_s: layer.record.created_s,
            duration_ms: claim.duration_ms.load(Ordering::Relaxed),
        };
        Ok(self.services.store.record_step(&record).map_err(BuildError::from)?)
    }

    /// The folders to mount, base first; what is not unpacked yet is now.
    pub(super) fn folders(&self, stack: &Stack) -> Result<Vec<LowerFolder>> {
        let options = self.layer_options();
        stack.folders(&|layer, lowers| {
            self.ensure_layer(layer)?;
            Ok(self.services.store.unpacked(layer.diff_id, lowers, &options)?)
        })
    }

    /// The merged file tree of a stack.
    pub(super) fn tree(&self, stack: &Stack) -> Result<Tree> {
        stack.tree(self.services.store, &|layer| self.ensure_layer(layer))
    }

    /// Pulls the base image that a layer belongs to, if the store lacks the layer.
    fn ensure_layer(&self, layer: &LayerDone) -> std::result::Result<(), BuildError> {
        if self.services.store.has_layer(layer.diff_id)? {
            return Ok(());
        }
        self.images.fetch_layer(self, layer.diff_id)
    }

    /// The layers that a COPY takes its sources from, unless that is the context.
    fn source_stack(&self, operation: &plan::CopyOperation) -> Result<Option<Stack>> {
        Ok(match &operation.from {
            CopyFrom::Context | CopyFrom::Named(_) => None,
            CopyFrom::Stage(number) => Some(self.stage(*number)?.stack),
            CopyFrom::Image(request) => Some(self.images.get(request).stack()),
        })
    }

    pub(super) fn stage_tree(&self, number: usize) -> std::result::Result<Tree, BuildError> {
        let tree = self.stage(number).and_then(|done| self.tree(&done.stack));
        tree.map_err(unshared)
    }

    pub(super) fn image_tree(
        &self,
        request: &ImageRequest,
    ) -> std::result::Result<Tree, BuildError> {
        self.tree(&self.images.get(request).stack()).map_err(unshared)
    }
}

/// An error that another stage has as well: that stage reports it.
pub(super) fn unshared(error: Failure) -> BuildError {
    Arc::try_unwrap(error).unwrap_or(BuildError::Stopped)
}

enum Found {
    /// It is there.
    Made(Stack),
    /// It has to be made, by us.
    Claimed(Claim),
}

/// A step by its keys.
#[derive(Debug, Clone)]
struct Wanted {
    /// By what made it: the operation, and what made all that is below.
    definition: CacheKey,
    /// The operation alone, its sources by content.
    operation: CacheKey,
    /// The parts of the operation's key.
    components: String,
}

impl Wanted {
    fn new(key: &OperationKey, stack: &Stack) -> Self {
        let operation = key.key();
        let definition = operation.on(stack.definition());
        Self { definition, operation, components: components_json(key.components()) }
    }
}

/// The right and duty to make a step.
#[derive(Debug)]
struct Claim {
    wanted: Wanted,
    duration_ms: AtomicU64,
    _lock: StepLock,
}

impl Claim {
    fn note_duration(&self, started: Instant) {
        let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.duration_ms.store(took, Ordering::Relaxed);
    }
}

fn components_json(components: &[Component]) -> String {
    let pairs: Vec<(&str, &str)> =
        components.iter().map(|part| (part.name.as_str(), part.value.as_str())).collect();
    serde_json::to_string(&pairs).expect("pairs of texts always serialize")
}
