//! One plan for one or several platforms. A stage that is equal for several of them is planned once.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Span, codes, nearest};
use crate::dockerfile::ir;
use crate::oci::{Platform, PlatformError};

use super::stages::Planner;
use super::{Images, Outcome, Plan, PlannedStage, Request, Target};

/// Makes the error of an invalid platform in the Dockerfile.
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
        // Other platforms may have other errors, but one report is enough.
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
        request.changes.finish(config);
        let platform = image_platform(config.platform(), wanted, request.platform_given);
        targets.push(Target { stage, platform });
    }
    Ok(Outcome::Ready(Box::new(Plan { stages, targets, warnings })))
}

/// Returns the platform of an image whose stage ends with a config for `have`.
///
/// A platform that the caller names is written into the image even if the base has another. The
/// variant of the base is kept if the caller names none (BuildKit,
/// `dockerfile2llb.finalizeResultImage`).
fn image_platform(have: Platform, wanted: &Platform, is_given: bool) -> Platform {
    let is_same = (&have.os, &have.architecture) == (&wanted.os, &wanted.architecture);
    if !is_given || is_same && wanted.variant.is_none() { have } else { wanted.clone() }
}

/// Stages of all platforms, each after those that it needs.
#[derive(Debug, Default)]
pub(super) struct PlannedStages(Vec<SharedStage>);

#[derive(Debug)]
struct SharedStage {
    stage: PlannedStage,
    /// Platforms whose images need the stage.
    targets: Vec<Platform>,
}

impl PlannedStages {
    /// Adds a stage that the image for `target` needs, and returns its number.
    ///
    /// An equal stage of another platform is used if there is one. Equal stages have equal numbers,
    /// so stages that name them can be compared too.
    pub(super) fn add(&mut self, stage: PlannedStage, target: &Platform) -> usize {
        let mut known = self.0.iter_mut().enumerate();
        if let Some((at, same)) = known.find(|(_, known)| known.stage == stage) {
            same.add_target(target);
            return at;
        }
        self.0.push(SharedStage { stage, targets: vec![target.clone()] });
        self.0.len() - 1
    }

    /// Returns the stages; their names include the platform if there are several.
    pub(super) fn named(self, platforms: &[Platform]) -> Vec<PlannedStage> {
        let is_single = platforms.len() == 1;
        self.0
            .into_iter()
            .map(|shared| if is_single { shared.stage } else { shared.named() })
            .collect()
    }
}

impl SharedStage {
    fn add_target(&mut self, target: &Platform) {
        if !self.targets.contains(target) {
            self.targets.push(target.clone());
        }
    }

    /// Names the stage as in `linux/arm64 build`, or as in `linux/amd64->arm64 build` if it runs on
    /// another platform than its only target.
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

/// Returns a platform without its operating system if that is Linux.
fn short(platform: &Platform) -> String {
    let full = platform.to_string();
    full.strip_prefix("linux/").map_or_else(|| full.clone(), str::to_owned)
}
