//! What happens during a build, as it happens. Only `cli` turns it into text.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::oci::{DiffId, Digest};
use crate::plan::{Base, Operation, Plan, PlannedStage};

use super::Reason;

/// Numbers what is shown as one step, in the order in which they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// Gives each step of one command its number.
#[derive(Debug, Default)]
pub struct StepNumbers(AtomicU32);

impl StepNumbers {
    /// The next number, from 1.
    pub(in crate::executor) fn next(&self) -> StepId {
        StepId(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Which of a command's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was made.
    Done,
    /// Its result was in the store.
    Cached,
    /// It failed; the build's error says why.
    Failed,
    /// It was stopped because another one failed, or by the caller.
    Cancelled,
}

/// Which instruction of the Dockerfile a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlace {
    /// The stage, as logs call it.
    pub stage: String,
    /// The place among those of the stage that make layers, from 1, which is FROM.
    pub number: usize,
    /// How many of those there are.
    pub of: usize,
    /// The instruction in one line.
    pub instruction: String,
}

impl StepPlace {
    /// Whether it is FROM, which makes nothing.
    #[must_use]
    pub const fn is_from(&self) -> bool {
        self.number == 1
    }

    /// Step number `at` of a stage, or its FROM.
    pub(in crate::executor) fn of(
        stage: &PlannedStage,
        at: Option<usize>,
        instruction: String,
    ) -> Self {
        let n_before = at.map_or(0, |at| {
            let before = stage.steps.iter().take(at);
            before.filter(|step| step.operation.is_some()).count() + 1
        });
        let (number, of) = (n_before + 1, stage.n_operations() + 1);
        Self { stage: stage.name.clone(), number, of, instruction }
    }
}

impl std::fmt::Display for StepPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} {}/{}] {}", self.stage, self.number, self.of, self.instruction)
    }
}

/// A stage that will be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageOutline {
    /// As in [`StepPlace::stage`].
    pub name: String,
    /// The image that it starts from; nothing if that is `scratch` or another stage.
    pub base: Option<String>,
    /// The stage that it starts from, by its place in the plan.
    pub parent: Option<usize>,
    /// The stages that it starts from, copies from or mounts, by their places in the plan.
    pub needs: Vec<usize>,
    /// The instructions that make layers, FROM not among them.
    pub instructions: Vec<String>,
}

impl StageOutline {
    /// Of every stage of a plan.
    pub(in crate::executor) fn all(plan: &Plan) -> Vec<Self> {
        plan.stages.iter().map(Self::of).collect()
    }

    pub(in crate::executor) fn of(stage: &PlannedStage) -> Self {
        let (base, parent) = match &stage.base {
            Base::Scratch => (None, None),
            Base::Stage(parent) => (None, Some(*parent)),
            Base::Image(request) => (Some(request.name.familiar()), None),
        };
        let steps = stage.steps.iter().filter(|step| step.operation.is_some());
        let operations = stage.steps.iter().filter_map(|step| step.operation.as_ref());
        let mut needs: Vec<usize> =
            parent.into_iter().chain(operations.flat_map(Operation::stages)).collect();
        needs.sort_unstable();
        needs.dedup();
        let instructions = steps.map(|step| step.text.clone()).collect();
        Self { name: stage.name.clone(), base, parent, needs, instructions }
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is known what will be done, if it is not in the cache.
    Planned {
        /// What is built, in an order in which each stage comes after those that it needs.
        stages: Vec<StageOutline>,
    },
    /// Work starts.
    Started {
        /// Which.
        step: StepId,
        /// As in `[build 2/5] RUN make`.
        name: String,
        /// The instruction, if it is one.
        place: Option<StepPlace>,
    },
    /// The step was not in the cache, and all that it needs is there: its command runs. Its time
    /// counts from here.
    Executing {
        /// Which.
        step: StepId,
    },
    /// Why a step is made and not found.
    Explained {
        /// Which step.
        step: StepId,
        /// Why.
        reason: Reason,
    },
    /// A command wrote something: any bytes, not cut at line ends.
    Output {
        /// Whose.
        step: StepId,
        /// Where to.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// Bytes were moved over the network or into a file.
    Progress {
        /// By which step.
        step: StepId,
        /// How many so far.
        done_bytes: u64,
        /// Of how many; 0 when nobody knows yet.
        total_bytes: u64,
    },
    /// The layer of a step is known, made or found: once for each instruction that has one. After a
    /// RUN that may be later than its end, since a layer is hashed while the next step runs.
    Made {
        /// Which step.
        step: StepId,
        /// Its layer.
        layer: DiffId,
        /// The length of that layer's uncompressed tar.
        n_bytes: u64,
    },
    /// Work ended.
    Finished {
        /// Which.
        step: StepId,
        /// How.
        outcome: Outcome,
        /// How long it took.
        took: Duration,
    },
    /// Something odd that stops nothing.
    Warning {
        /// What.
        text: String,
    },
    /// Something that people want to know.
    Note {
        /// What.
        text: String,
    },
    /// An output was written.
    Wrote {
        /// Where to.
        path: PathBuf,
    },
    /// The image is in a registry.
    Pushed {
        /// Its full name.
        name: String,
        /// Its manifest or index there.
        digest: Digest,
    },
}
