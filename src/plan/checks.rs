//! Planning without a build (`--check`), and the build checks that need the base images.
//!
//! These run once every image is known. With `check=error=true`, a violation stops the build before
//! its first step. `--check` plans with the images that the store has.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Span};
use crate::dockerfile::ir;
use crate::dockerfile::lint::{self, BaseFacts, LintOptions, RuleSelection};
use crate::oci::{Platform, Reference};

use super::platforms::PlannedStages;
use super::stages::Planner;
use super::{ImageRequest, Images, Request};

/// The result of planning a Dockerfile without building it.
#[derive(Debug)]
pub struct Checked {
    /// Errors that would stop the build before its first step, in source order.
    pub errors: Vec<Diagnostic>,
    /// Images that are not known. An instruction that depends on them is assumed to be correct.
    pub unknown: Vec<(ImageRequest, Span)>,
}

/// Plans the stages that the target needs, or all stages without a target, and reports their errors.
#[must_use]
pub fn check(file: &ir::Dockerfile, request: &Request, images: &Images) -> Checked {
    let mut errors: Vec<Diagnostic> = Vec::new();
    let mut unknown = BTreeMap::new();
    for platform in &request.platforms {
        let mut stages = PlannedStages::default();
        let mut planner = Planner::new(file, request, platform, images, &mut stages);
        planner.guesses = true;
        let wanted = match request.target {
            Some(_) => planner.target().into_iter().collect(),
            None => (0..file.stages.len()).collect::<Vec<_>>(),
        };
        for at in wanted {
            planner.stage(at);
        }
        unknown.extend(planner.needs);
        for error in planner.errors {
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
    }
    errors.sort_by_key(|error| error.span);
    Checked { errors, unknown: unknown.into_iter().collect() }
}

/// Returns a lookup of the facts about base images that build checks need.
pub fn base_facts(images: &Images) -> impl Fn(&Reference, &Platform) -> Option<BaseFacts> {
    |name, platform| {
        let named = |known: &ImageRequest| known.name == *name && known.platform == *platform;
        let base = images.iter().find_map(|(known, base)| named(known).then_some(base))?;
        let env = base.config.config.env.iter().map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        });
        Some(BaseFacts {
            env: env.collect(),
            platform: base.config.platform(),
            triggers: base.triggers.clone(),
        })
    }
}

/// Runs the rules that need images. `Err` has the warnings and the error that `check=error=true`
/// makes of them.
pub(super) fn with_images(
    file: &ir::Dockerfile,
    request: &Request,
    images: &Images,
) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let facts = base_facts(images);
    let options = LintOptions {
        build_args: &request.build_args,
        platform: &request.build_platform,
        build_platform: &request.build_platform,
        target: request.target.as_deref(),
        only_needed: true,
        ignored: None,
        bases: Some(&facts),
        selection: RuleSelection::WithImages,
    };
    // Without the source text, a use of a variable is reported with the span of its whole word.
    let mut warnings = lint::check_each(file, "", &[], &options, &request.platforms);
    match lint::violation(file, &request.build_args, &warnings) {
        None => Ok(warnings),
        Some(error) => {
            warnings.push(error);
            Err(warnings)
        }
    }
}
