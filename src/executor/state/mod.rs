//! The state that all stages of a build share.

pub(super) mod layers;
pub(super) mod memory_budget;
pub(super) mod memory_files;
pub(super) mod root_directories;
pub(super) mod stage_result;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use crate::pathio;
use crate::plan::{CacheKey, OperationKey, Plan};
use crate::pool;

use super::cache::build_caches::BuildCaches;
use super::cache::explain::Explainer;
use super::cache::lookup::StepCache;
use super::inputs::build_inputs::BuildInputs;
use super::inputs::image_table::ImageTable;
use super::mounts::context_directories::ContextDirectories;
use super::slot::Slot;
use super::stack::Stack;
use super::{BuildOptions, Failure, Services};

use root_directories::RootDirectories;
use stage_result::StageResult;

/// Maximum size of the host's `/etc/resolv.conf`.
const MAX_RESOLV_BYTES: u64 = 1 << 20;

/// A plan that is executed, with everything that its stages share.
#[derive(Debug)]
pub(in crate::executor) struct BuildState<'a> {
    pub(in crate::executor) services: &'a Services<'a>,
    pub(in crate::executor) options: &'a BuildOptions,
    pub(in crate::executor) inputs: &'a BuildInputs<'a>,
    pub(in crate::executor) caches: &'a BuildCaches,
    pub(in crate::executor) plan: &'a Plan,
    pub(in crate::executor) images: &'a ImageTable,
    /// Lookup of steps in the store and in this build.
    pub(in crate::executor) steps: StepCache<'a>,
    pub(in crate::executor) context_directories: ContextDirectories,
    pub(in crate::executor) roots: RootDirectories,
    /// Cache mounts that `--no-cache` has emptied in this build.
    pub(in crate::executor) emptied_caches: Mutex<BTreeSet<CacheKey>>,
    stages: Vec<Slot<StageResult>>,
    resolv_conf: OnceLock<Vec<u8>>,
    /// Error while the layer of a RUN was hashed and the next step was running already. That step then
    /// ends only because the build is cancelled.
    late: Mutex<Option<Failure>>,
}

impl<'a> BuildState<'a> {
    /// Returns the state of a plan of which nothing has been executed.
    pub(in crate::executor) fn new(
        inputs: &'a BuildInputs<'a>,
        caches: &'a BuildCaches,
        plan: &'a Plan,
        images: &'a ImageTable,
    ) -> Self {
        let (services, options) = (inputs.services, inputs.options);
        let explainer = Explainer::new(services, options, plan, images);
        Self {
            services,
            options,
            inputs,
            caches,
            plan,
            images,
            steps: StepCache::new(services, caches, explainer),
            context_directories: ContextDirectories::default(),
            roots: RootDirectories::new(options.max_in_memory),
            emptied_caches: Mutex::default(),
            stages: plan.stages.iter().map(|_stage| Slot::new()).collect(),
            resolv_conf: OnceLock::new(),
            late: Mutex::default(),
        }
    }

    /// Returns the slot that the result of a stage is put into.
    pub(in crate::executor) fn stage_slot(&self, number: usize) -> &Slot<StageResult> {
        self.stages.get(number).expect("a plan names its own stages")
    }

    /// Returns the result of a stage; waits for it.
    ///
    /// # Errors
    /// The error of the stage.
    pub(in crate::executor) fn stage(&self, number: usize) -> Result<StageResult, Failure> {
        self.stage_slot(number).wait()
    }

    /// Sets the result of a stage whose steps were all found, so that others can read its files.
    pub(in crate::executor) fn set_found_stage(&self, number: usize, stack: &Stack) {
        let (stack, history) = (stack.clone(), Arc::default());
        let done = self.stage_slot(number).fill(|| Ok(StageResult { number, stack, history }));
        done.expect("it is what was put in");
    }

    /// Returns the key of an operation for this build, which may clamp file times.
    pub(in crate::executor) fn clamped(&self, key: OperationKey) -> OperationKey {
        key.clamped(self.options.layer_options().clamp_s)
    }

    /// Cancels the build because of an error that no stage returns by itself.
    pub(in crate::executor) fn fail_late(&self, error: &Failure) {
        pool::lock(&self.late).get_or_insert(Failure::clone(error));
        self.services.cancel.fail();
    }

    /// Returns the first error that [`Self::fail_late`] was given.
    pub(in crate::executor) fn late_failure(&self) -> Option<Failure> {
        pool::lock(&self.late).clone()
    }

    /// Returns the content of the host's `/etc/resolv.conf`, empty if it cannot be read.
    ///
    /// If systemd-resolved wrote the address of its own stub there, the stub works for steps too: they
    /// share the host's network.
    pub(in crate::executor) fn resolv_conf(&self) -> &[u8] {
        let path = Path::new("/etc/resolv.conf");
        self.resolv_conf.get_or_init(|| pathio::read(path, MAX_RESOLV_BYTES).unwrap_or_default())
    }
}
