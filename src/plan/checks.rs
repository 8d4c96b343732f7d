//! What is wrong with a Dockerfile.
//!
//! The build checks that need the base images are run once every image is known, and stop the build
//! before its first step when `check=error=true` asks for it. `--check` plans without building, and
//! with the images that are known.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Span};
use crate::dockerfile::ir;
use crate::dockerfile::lint::{self, BaseFacts, LintOptions, Wanted};
use crate::oci::{Platform, Reference};

use super::platforms::PlannedStages;
use super::stages::Planner;
use super::{ImageRequest, Images, Request};

/// Result of planning a Dockerfile that is not built.
#[derive(Debug)]
pub struct Checked {
    /// Errors that would stop the build before its first step, in source order.
    pub errors: Vec<Diagnostic>,
    /// The images that are not known. What depends on them counts as right.
    pub unknown: Vec<(ImageRequest, Span)>,
}

/// Plans the stages that the target needs, or every stage without a target, and reports all that is
/// wrong with them.
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

/// Looks up what build checks have to know of an image.
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

/// Warnings of the rules that need images; with the error that asks to stop, if there is one.
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
        wanted: Wanted::WithImages,
    };
    // Places of variables are whole words here: the source is not known.
    let mut warnings = lint::check_each(file, "", &[], &options, &request.platforms);
    match lint::violation(file, &request.build_args, &warnings) {
        None => Ok(warnings),
        Some(error) => {
            warnings.push(error);
            Err(warnings)
        }
    }
}
