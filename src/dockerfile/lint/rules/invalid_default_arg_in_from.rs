//! `InvalidDefaultArgInFrom`: defaults of global ARGs should give a valid image name.
//!
//! A Dockerfile should build without `--build-arg`, so the defaults have to make every FROM valid.
//!
//! <https://docs.docker.com/reference/build-checks/invalid-default-arg-in-from/>
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
use crate::dockerfile::ir;
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::scope::{ArgInputs, GlobalScope};
use crate::oci::Reference;

pub(super) const RULE: Rule = Rule::new(codes::INVALID_DEFAULT_ARG_IN_FROM, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    let no_build_args = BTreeMap::new();
    let inputs = ArgInputs { build_args: &no_build_args, ..analysis.options.arg_inputs() };
    let defaults = GlobalScope::new(analysis.file, &inputs, &mut Vec::new());
    for (at, stage) in analysis.file.stages.iter().enumerate() {
        let image = &stage.from.image;
        if !image.value.contains('$') {
            continue;
        }
        let Ok(name) = defaults.expand(image) else { continue };
        let lower = name.to_ascii_lowercase();
        let earlier = analysis.file.stages.iter().take(at).filter_map(ir::Stage::name);
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
