//! The build checks that need the base images: they are run once every image is known, and stop
//! the build before its first step when `check=error=true` asks for it.

use crate::diag::Diagnostic;
use crate::ir;
use crate::lint::{self, BaseFacts, LintOptions, Wanted};
use crate::oci::{Platform, Reference};

use super::{ImageRequest, Images, Request};

/// Warnings of the rules that need images; with the error that asks to stop, if there is one.
pub(super) fn with_images(
    file: &ir::Dockerfile,
    request: &Request,
    images: &Images,
) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let facts = |name: &Reference, platform: &Platform| {
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
    };
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
