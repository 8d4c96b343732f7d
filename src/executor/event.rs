//! Events of a build, in the order in which they happen. Only `cli` turns them into text.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::oci::{DiffId, Digest};
use crate::plan::{Base, Operation, Plan, PlannedStage};
use crate::sandbox::Isolation;

use super::Reason;

/// Number of a step in the events of one command, in the order of start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// Numbers the steps of one command, and notes whether one of them was executed.
#[derive(Debug, Default)]
pub struct StepNumbers {
    last: AtomicU32,
    has_executed: AtomicBool,
}

impl StepNumbers {
    /// Returns the next number, beginning with 1.
    pub(in crate::executor) fn next(&self) -> StepId {
        StepId(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Notes that a step is executed. Returns whether it is the first.
    pub(in crate::executor) fn note_execution(&self) -> bool {
        !self.has_executed.swap(true, Ordering::Relaxed)
    }

    /// Returns whether a step was executed, rather than found in the cache.
    #[must_use]
    pub fn has_executed(&self) -> bool {
        self.has_executed.load(Ordering::Relaxed)
    }
}

/// An output stream of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output of the command.
    Stdout,
    /// Standard error of the command.
    Stderr,
}

/// The end of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The step was executed.
    Done,
    /// The result of the step was in the store.
    Cached,
    /// The step failed; the build's error has the cause.
    Failed,
    /// The step was cancelled by the caller, or because another one failed.
    Cancelled,
}

/// Number and name of an instruction that makes a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlace {
    /// Name of the stage in logs.
    pub stage: String,
    /// Number among the instructions of the stage that make layers, from 1, which is FROM.
    pub number: usize,
    /// Count of these instructions, FROM included.
    pub of: usize,
    /// The instruction in one line.
    pub instruction: String,
}

impl StepPlace {
    /// Returns whether it is FROM, which makes no layer.
    #[must_use]
    pub const fn is_from(&self) -> bool {
        self.number == 1
    }

    /// Returns step number `at` of a stage, or its FROM.
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
    /// Name as in [`StepPlace::stage`].
    pub name: String,
    /// The image that it starts from; `None` if that is `scratch` or another stage.
    pub base: Option<String>,
    /// Index in the plan of the stage that it starts from.
    pub parent: Option<usize>,
    /// Indexes in the plan of the stages that it starts from, copies from or mounts.
    pub needs: Vec<usize>,
    /// The instructions that make layers, without FROM.
    pub instructions: Vec<String>,
}

impl StageOutline {
    /// Returns the outlines of all stages of a plan.
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

/// One event of a build.
#[derive(Debug, Clone)]
pub enum Event {
    /// The plan is complete. Its steps are executed unless they are cached.
    Planned {
        /// The stages, each after those that it needs.
        stages: Vec<StageOutline>,
    },
    /// A step starts.
    Started {
        /// The step that starts.
        step: StepId,
        /// Name as in `[build 2/5] RUN make`.
        name: String,
        /// The instruction; `None` for other work, such as a pull.
        place: Option<StepPlace>,
    },
    /// The first command of the build is about to run, in this isolation.
    Isolated {
        /// The isolation of all steps of the build.
        isolation: Isolation,
        /// The reason why it is not a stronger one, and what it does not fence off; for people.
        remarks: Vec<String>,
    },
    /// The step was not cached, and all that it needs is available: its command runs. Its time
    /// counts from here.
    Executing {
        /// The step whose command runs.
        step: StepId,
    },
    /// A step is executed instead of found in the cache.
    Explained {
        /// The step that is executed.
        step: StepId,
        /// Reason for the miss.
        reason: Reason,
    },
    /// A command wrote output: any bytes, not split at line ends.
    Output {
        /// The step of the command.
        step: StepId,
        /// The stream that was written to.
        stream: Stream,
        /// Output with secrets masked.
        bytes: Vec<u8>,
    },
    /// Bytes were transferred over the network or into a file.
    Progress {
        /// The step that transfers.
        step: StepId,
        /// Bytes transferred so far.
        done_bytes: u64,
        /// Bytes to transfer; 0 if not known yet.
        total_bytes: u64,
    },
    /// The layer of a step is known: once for each instruction that makes a layer, cached or not.
    /// After a RUN this may come later than its end, since a layer is hashed while the next step
    /// runs.
    Made {
        /// The step that has the layer.
        step: StepId,
        /// DiffID of the layer.
        layer: DiffId,
        /// Size of the layer's uncompressed tar.
        n_bytes: u64,
    },
    /// A step has ended.
    Finished {
        /// The step that ended.
        step: StepId,
        /// Its result.
        outcome: Outcome,
        /// Duration, without the time that other steps account for.
        took: Duration,
    },
    /// A problem that does not stop the build.
    Warning {
        /// Message for the user.
        text: String,
    },
    /// Information for the user.
    Note {
        /// Message for the user.
        text: String,
    },
    /// An output was written.
    Wrote {
        /// Path of the output.
        path: PathBuf,
    },
    /// The image was pushed.
    Pushed {
        /// Full name with registry and tag.
        name: String,
        /// Digest of its manifest or index in the registry.
        digest: Digest,
    },
}
