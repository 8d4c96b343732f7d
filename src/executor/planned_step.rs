//! A step's position in a plan.

use crate::plan::{Plan, Step};

use super::StepPlace;

/// A step and its position in the plan.
#[derive(Clone, Copy)]
pub(in crate::executor) struct PlannedStep<'a> {
    /// Index of the stage in the plan.
    pub(in crate::executor) stage: usize,
    /// Index among the steps of the stage.
    pub(in crate::executor) number: usize,
    pub(in crate::executor) step: &'a Step,
}

impl PlannedStep<'_> {
    /// Returns the step's name and number for logs.
    pub(in crate::executor) fn place(self, plan: &Plan) -> StepPlace {
        let stage = plan.stages.get(self.stage).expect("a plan names its own stages");
        StepPlace::of(stage, Some(self.number), self.step.text.clone())
    }
}
