//! `InvalidDefaultArgInFrom`: a Dockerfile should build without `--build-arg`, so the defaults of the global
//! ARGs have to give FROM an image name.
//!
//! Bad:
//! ```dockerfile
//! ARG TAG
//! FROM busybox:${TAG}
//! ```
//! Good:
//! ```dockerfile
//! ARG TAG=latest
//! FROM busybox:${TAG}
//! ```

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::scope::Globals;
use crate::dockerfile::lint::stage_scopes::Scene;
use crate::dockerfile::lint::stage_scopes::lower_name;
use crate::oci::Reference;

/// The rule.
pub(super) const RULE: Rule = Rule::new(codes::INVALID_DEFAULT_ARG_IN_FROM, check);

fn check(scene: &Scene<'_>, found: &mut Vec<Diagnostic>) {
    let defaults = Globals::new(scene.file, scene.options, &BTreeMap::new());
    for (at, stage) in scene.file.stages.iter().enumerate() {
        let image = &stage.from.image;
        if !image.value.contains('$') {
            continue;
        }
        let Some(name) = defaults.expand(image).map(|expanded| expanded.value) else { continue };
        let lower = name.to_ascii_lowercase();
        let earlier = scene.file.stages.iter().take(at).filter_map(lower_name);
        if earlier.into_iter().any(|stage| stage == lower) || name.parse::<Reference>().is_ok() {
            continue;
        }
        let message = format!(
            "the default for `{}` results in an empty or invalid base image name",
            image.value
        );
        let becomes = if name.is_empty() {
            "is empty without build arguments".to_owned()
        } else {
            format!("is `{name}` without build arguments")
        };
        found.push(
            Diagnostic::warning(codes::INVALID_DEFAULT_ARG_IN_FROM, image.span, message)
                .label(image.span, becomes)
                .help("give the ARG before the first FROM a default, as in `ARG TAG=latest`"),
        );
    }
}
