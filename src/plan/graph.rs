//! Finds the layers of a plan that a later step mounts; others are only exported.

use super::{Base, Operation, Plan, PlannedStage};

/// The layers of a plan that will be mounted.
///
/// A layer is mounted if a RUN follows it, in its own stage or in one that starts from it, or if a
/// RUN mounts its stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedLayers {
    /// By stage: true if another stage mounts its final layers.
    mounted_by_other: Vec<bool>,
    /// By stage: number of the last step that is a RUN.
    last_run: Vec<Option<usize>>,
}

/// Finds the layers of `plan` that will be mounted.
#[must_use]
pub fn mounted_layers(plan: &Plan) -> MountedLayers {
    let last_run: Vec<Option<usize>> = plan.stages.iter().map(last_run).collect();
    let mut mounted_by_other = vec![false; plan.stages.len()];
    // A stage comes after those that it starts from, so one pass from the end is enough.
    for (at, stage) in plan.stages.iter().enumerate().rev() {
        let own = last_run.get(at).is_some_and(Option::is_some);
        let later = mounted_by_other.get(at).copied().unwrap_or(false);
        if let Base::Stage(parent) = stage.base
            && (own || later)
            && let Some(mounted) = mounted_by_other.get_mut(parent)
        {
            *mounted = true;
        }
        for source in mounted_by_runs(stage) {
            if let Some(mounted) = mounted_by_other.get_mut(source) {
                *mounted = true;
            }
        }
    }
    MountedLayers { mounted_by_other, last_run }
}

/// Iterates over the stages that the `--mount` flags of `stage` use.
fn mounted_by_runs(stage: &PlannedStage) -> impl Iterator<Item = usize> {
    let operations = stage.steps.iter().filter_map(|step| step.operation.as_ref());
    operations
        .filter(|operation| matches!(operation, Operation::Run(_)))
        .flat_map(Operation::stages)
}

fn last_run(stage: &PlannedStage) -> Option<usize> {
    stage.steps.iter().rposition(|step| matches!(step.operation, Some(Operation::Run(_))))
}

impl MountedLayers {
    /// Returns whether the layer of step `step` of stage `stage` will be mounted.
    #[must_use]
    pub fn is_mounted(&self, stage: usize, step: usize) -> bool {
        self.mounted_by_other.get(stage).copied().unwrap_or(false)
            || self.last_run.get(stage).copied().flatten().is_some_and(|last| step < last)
    }
}

impl PlannedStage {
    /// Iterates over the numbers of the stages that this one needs.
    pub fn needs(&self) -> impl Iterator<Item = usize> {
        let base = match self.base {
            Base::Stage(number) => Some(number),
            Base::Scratch | Base::Image(_) => None,
        };
        let operations = self.steps.iter().filter_map(|step| step.operation.as_ref());
        base.into_iter().chain(operations.flat_map(Operation::stages))
    }
}
