//! Events of the targets of a bake, as those of one build.

use std::sync::Mutex;

use crate::cli::progress::Reporter;
use crate::executor::{Event, StageOutline, StepPlace};
use crate::pool;

/// Passes the events of several builds to one reporter. If there are several, stages get the names of their targets.
#[derive(Debug)]
pub(super) struct TargetEvents<'a> {
    reporter: &'a Reporter<'a>,
    names: Vec<&'a str>,
    /// The stages of each target, as far as they are planned.
    planned: Mutex<Vec<Vec<StageOutline>>>,
}

impl<'a> TargetEvents<'a> {
    /// Reports the events of the targets with these names.
    pub(super) fn new(reporter: &'a Reporter<'a>, names: Vec<&'a str>) -> Self {
        let planned = Mutex::new(vec![Vec::new(); names.len()]);
        Self { reporter, names, planned }
    }

    /// Reports an event of a target.
    pub(super) fn report(&self, target: usize, event: Event) {
        if let Event::Planned { stages } = event {
            let mut planned = pool::lock(&self.planned);
            let stages = stages
                .into_iter()
                .map(|stage| StageOutline { name: self.stage_name(target, &stage.name), ..stage });
            if let Some(of_target) = planned.get_mut(target) {
                *of_target = stages.collect();
            }
            // The lock is held until the event is reported: the last one has all stages.
            return self.reporter.event(&Event::Planned { stages: joined(&planned) });
        }
        let event = if let Event::Started { step, place: Some(place), .. } = event {
            let stage = self.stage_name(target, &place.stage);
            let place = StepPlace { stage, ..place };
            Event::Started { step, name: place.to_string(), place: Some(place) }
        } else {
            event
        };
        self.reporter.event(&event);
    }

    fn stage_name(&self, target: usize, stage: &str) -> String {
        match self.names.get(target) {
            Some(name) if self.names.len() > 1 => format!("{name} {stage}"),
            _ => stage.to_owned(),
        }
    }
}

/// Joins the stages of all targets to one list.
fn joined(planned: &[Vec<StageOutline>]) -> Vec<StageOutline> {
    let mut all: Vec<StageOutline> = Vec::new();
    for stages in planned {
        let first = all.len();
        all.extend(stages.iter().map(|stage| StageOutline {
            parent: stage.parent.map(|parent| first + parent),
            needs: stage.needs.iter().map(|need| first + need).collect(),
            ..stage.clone()
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_refer_to_stages_of_their_own_target() {
        let stage = |name: &str, needs: &[usize]| StageOutline {
            name: name.to_owned(),
            base: None,
            parent: needs.first().copied(),
            needs: needs.to_vec(),
            instructions: Vec::new(),
        };
        let all = joined(&[vec![stage("a", &[])], vec![stage("b", &[]), stage("c", &[0])]]);
        assert_eq!(all.last(), Some(&stage("c", &[1])));
    }
}
