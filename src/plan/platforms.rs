//! One plan for one or several platforms, in which a stage that is the same for some of them is
//! there once.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Span, codes, nearest};
use crate::dockerfile::ir;
use crate::oci::{Platform, PlatformError};

use super::stages::Planner;
use super::{Images, Outcome, Plan, PlannedStage, Request, Target};

/// Says what is wrong with a platform that the Dockerfile names.
pub(super) fn unreadable(error: &PlatformError, span: Span) -> Diagnostic {
    let near = error.unknown().and_then(|(name, known)| nearest(name, known.iter().copied()));
    let help = near.map(|name| format!("did you mean {name}?"));
    Diagnostic::error(codes::BAD_PLATFORM, span, error.to_string()).maybe_help(help)
}

pub(super) fn plan(
    file: &ir::Dockerfile,
    request: &Request,
    images: &Images,
) -> Result<Outcome, Vec<Diagnostic>> {
    let mut stages = PlannedStages::default();
    let mut numbers = Vec::new();
    let mut needs = BTreeMap::new();
    for platform in &request.platforms {
        let mut planner = Planner::new(file, request, platform, images, &mut stages);
        let target = planner.target();
        numbers.extend(target.and_then(|at| planner.stage(at)));
        // What is wrong for one platform need not be for the next, but one report is enough.
        if !planner.errors.is_empty() {
            return Err(planner.errors);
        }
        needs.extend(planner.needs);
    }
    if !needs.is_empty() {
        return Ok(Outcome::Needs(needs.into_iter().collect()));
    }
    let warnings = super::checks::with_images(file, request, images)?;
    let mut stages = stages.named(&request.platforms);
    let mut targets = Vec::with_capacity(numbers.len());
    for (stage, wanted) in numbers.into_iter().zip(&request.platforms) {
        let config = &mut stages.get_mut(stage).expect("a target is a stage of the plan").config;
        config.config.labels.extend(request.labels.iter().cloned());
        let platform = image_platform(config.platform(), wanted, request.platform_given);
        targets.push(Target { stage, platform });
    }
    Ok(Outcome::Ready(Box::new(Plan { stages, targets, warnings })))
}

/// Returns the platform of an image whose stage ends with a config for `have`.
///
/// The platform that the caller names is written into the image, whatever the base's is; a variant of the base
/// stays where the caller names none (BuildKit, `dockerfile2llb.finalizeResultImage`).
fn image_platform(have: Platform, wanted: &Platform, is_given: bool) -> Platform {
    let is_same = (&have.os, &have.architecture) == (&wanted.os, &wanted.architecture);
    if !is_given || is_same && wanted.variant.is_none() { have } else { wanted.clone() }
}

/// Stages as they are planned, each after those that it needs.
#[derive(Debug, Default)]
pub(super) struct PlannedStages(Vec<Shared>);

#[derive(Debug)]
struct Shared {
    stage: PlannedStage,
    /// The platforms whose images need it.
    targets: Vec<Platform>,
}

impl PlannedStages {
    /// Adds a stage that the image for `target` needs, and gives its number: that of an equal one,
    /// if another platform has it already. Stages that it names are in here, so equal ones have
    /// equal numbers.
    pub(super) fn add(&mut self, stage: PlannedStage, target: &Platform) -> usize {
        let mut known = self.0.iter_mut().enumerate();
        if let Some((at, same)) = known.find(|(_, known)| known.stage == stage) {
            same.note(target);
            return at;
        }
        self.0.push(Shared { stage, targets: vec![target.clone()] });
        self.0.len() - 1
    }

    /// The stages, called after what they run on where there are several platforms.
    pub(super) fn named(self, platforms: &[Platform]) -> Vec<PlannedStage> {
        let is_single = platforms.len() == 1;
        self.0
            .into_iter()
            .map(|shared| if is_single { shared.stage } else { shared.named() })
            .collect()
    }
}

impl Shared {
    fn note(&mut self, target: &Platform) {
        if !self.targets.contains(target) {
            self.targets.push(target.clone());
        }
    }

    /// As in `linux/arm64 build`, or `linux/amd64->arm64 build` for what runs on another machine
    /// than the only one that it is for.
    fn named(mut self) -> PlannedStage {
        let own = self.stage.config.platform();
        let other = match self.targets.as_slice() {
            [only] if *only != own => format!("->{}", short(only)),
            _ => String::new(),
        };
        self.stage.name = format!("{own}{other} {}", self.stage.name);
        self.stage
    }
}

/// A platform without its operating system, where that is the usual one.
fn short(platform: &Platform) -> String {
    let full = platform.to_string();
    full.strip_prefix("linux/").map_or_else(|| full.clone(), str::to_owned)
}
