//! What is the same for all stages of a build.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::image;
use crate::oci::DiffId;
use crate::plan::{CacheKey, ImageRequest};
use crate::store::{LayerOptions, StepRecord};

use super::cache_mount_transfer::Travel;
use super::contexts::NamedDirectories;
use super::driver::CONTEXT_DIRECTORY;
use super::fetch::Fetched;
use super::remote_cache::{ImportedCaches, KnownCaches};
use super::{
    BuildError, BuildOptions, Event, Failure, Outcome, Services, StepId, StepPlace, chain,
    step_root,
};

/// Numbers steps and tells of them.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    pub(super) services: &'a Services<'a>,
}

impl<'a> Steps<'a> {
    pub(super) const fn new(services: &'a Services<'a>) -> Self {
        Self { services }
    }

    pub(super) fn event(&self, event: Event) {
        (self.services.events)(event);
    }

    pub(super) fn start(&self, name: String) -> StepRun {
        self.started(name, None)
    }

    /// Starts an instruction.
    pub(super) fn start_at(&self, place: StepPlace) -> StepRun {
        self.started(place.to_string(), Some(place))
    }

    /// A step that is not shown.
    pub(super) fn unshown(&self, name: String) -> StepRun {
        StepRun::new(self.services.numbers.next(), name, None)
    }

    fn started(&self, name: String, place: Option<StepPlace>) -> StepRun {
        let id = self.services.numbers.next();
        self.event(Event::Started { step: id, name: name.clone(), place: place.clone() });
        StepRun::new(id, name, place)
    }

    /// Starts the command of a step: all that it needs is there, and its time counts from here.
    pub(super) fn execute(&self, step: &StepRun) {
        step.leave_out(step.started.elapsed());
        self.event(Event::Executing { step: step.id });
    }

    pub(super) fn finish(&self, step: StepRun, outcome: Outcome) {
        let took = step.started.elapsed().saturating_sub(*step.left_out());
        self.event(Event::Finished { step: step.id, outcome, took });
    }
}

/// What is the same for all stages.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    steps: Steps<'a>,
    pub(super) options: &'a BuildOptions,
    next_directory: AtomicU32,
    context: OnceLock<Context>,
    pub(super) fetched: Fetched,
    pub(super) named: NamedDirectories,
    /// Directories of `RUN --mount=type=cache` that come from elsewhere, or go there.
    pub(super) travel: Travel,
    /// The caches that this build names.
    pub(super) caches: KnownCaches,
    resolv_conf: OnceLock<Vec<u8>>,
    /// Every step of this build that has a layer, made or found.
    met: Mutex<BTreeMap<CacheKey, StepRecord>>,
    /// Whether a place with layers of others did not answer: then the rest is not asked.
    elsewhere_is_silent: AtomicBool,
    /// What kept the layer of a RUN from being made while the next step was running already, which
    /// then ends only because it is stopped.
    late: Mutex<Option<Failure>>,
}

/// A step that is shown.
#[derive(Debug)]
pub(super) struct StepRun {
    pub(super) id: StepId,
    /// As in `[build 2/5] RUN make`.
    pub(super) name: String,
    place: Option<StepPlace>,
    started: Instant,
    /// Time that other steps account for: those that pull and unpack base images.
    left_out: Mutex<Duration>,
}

impl StepRun {
    fn new(id: StepId, name: String, place: Option<StepPlace>) -> Self {
        Self { id, name, place, started: Instant::now(), left_out: Mutex::default() }
    }

    /// As in `build:2` for `[build 2/5] RUN make`, or `#7`.
    pub(super) fn short_name(&self) -> String {
        match &self.place {
            Some(place) => format!("{}:{}", place.stage, place.number),
            None => format!("#{}", self.id.0),
        }
    }

    fn left_out(&self) -> MutexGuard<'_, Duration> {
        // A duration is whole at any time.
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_out(&self, time: Duration) {
        *self.left_out() += time;
    }

    /// Does work that other steps account for: its time is not this step's.
    pub(super) fn beside<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        self.leave_out(started.elapsed());
        done
    }
}

impl<'a> Shared<'a> {
    pub(super) fn new(
        services: &'a Services<'a>,
        options: &'a BuildOptions,
        imported: ImportedCaches,
    ) -> Self {
        let ImportedCaches { offers, known } = imported;
        Self {
            travel: Travel::new(offers),
            caches: known,
            steps: Steps::new(services),
            options,
            next_directory: AtomicU32::new(CONTEXT_DIRECTORY + 1),
            context: OnceLock::new(),
            fetched: Fetched::default(),
            named: NamedDirectories::default(),
            resolv_conf: OnceLock::new(),
            met: Mutex::default(),
            elsewhere_is_silent: AtomicBool::new(false),
            late: Mutex::default(),
        }
    }

    pub(super) fn meet(&self, step: &StepRecord) {
        // Each use is one call on the map.
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.insert(step.definition, step.clone());
    }

    /// The steps that were made or found so far.
    pub(super) fn steps_met(&self) -> Vec<StepRecord> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.values().cloned().collect()
    }

    /// Notes in the store that these steps were used.
    pub(super) fn note_steps_used(&self) -> Result<(), BuildError> {
        let steps = self.steps_met().into_iter().map(|step| step.definition);
        Ok(self.services.store.steps().note_use(steps)?)
    }

    /// And that this base image was.
    pub(super) fn note_base_used(&self, image: &ImageRequest) -> Result<(), BuildError> {
        Ok(self.services.store.resolved_images().note_use(&image.name, &image.platform)?)
    }

    /// Ends the build because of an error that no stage has met yet.
    pub(super) fn fail_late(&self, error: &Failure) {
        self.late
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(Failure::clone(error));
        self.services.stop.fail();
    }

    /// That error, if there is one.
    pub(super) fn late_failure(&self) -> Option<Failure> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the layer is here, or a place that should have it still does.
    pub(super) fn can_have(&self, layer: DiffId) -> std::result::Result<bool, BuildError> {
        let (store, registry) = (self.services.store, self.services.registry);
        if store.has_layer(layer)? {
            return Ok(true);
        }
        if self.elsewhere_is_silent.load(Ordering::Relaxed) {
            return Ok(false);
        }
        image::is_obtainable(store, registry, layer).or_else(|error| {
            self.elsewhere_is_silent.store(true, Ordering::Relaxed);
            let text = format!("steps that were made elsewhere are not used: {}", chain(&error));
            self.event(Event::Warning { text });
            Ok(false)
        })
    }

    /// The context, opened when a step first needs it.
    pub(super) fn context(&self) -> std::result::Result<&Context, BuildError> {
        if let Some(context) = self.context.get() {
            return Ok(context);
        }
        let context = self.open_context(&self.options.context, CONTEXT_DIRECTORY);
        let context = context.map_err(|error| error.at(None))?;
        Ok(self.context.get_or_init(|| context))
    }

    /// Keeps the hashes of the context's files for the next build.
    pub(super) fn save_memo(&self) -> std::result::Result<(), BuildError> {
        let source = &self.options.context;
        if let Some(context) = self.context.get() {
            self.save_memo_of(&source.path, context)?;
        }
        self.save_named_memos()?;
        Ok(())
    }

    pub(super) fn resolv_conf(&self) -> &[u8] {
        self.resolv_conf.get_or_init(step_root::read_resolv_conf)
    }

    /// A number for a directory that files may lie in.
    pub(super) fn next_directory(&self) -> u32 {
        self.next_directory.fetch_add(1, Ordering::Relaxed)
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
