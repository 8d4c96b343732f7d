//! `StageNameCasing`: stage names are compared in lower case, and the places that name a stage
//! look alike only when all are written so.
//!
//! Bad:
//! ```dockerfile
//! FROM golang AS BuildBase
//! ```
//! Good:
//! ```dockerfile
//! FROM golang AS build-base
//! ```

use crate::diag::{Diagnostic, codes};
use crate::lint::Rule;
use crate::lint::scene::Scene;

/// The rule.
pub(super) const RULE: Rule = Rule::new(codes::STAGE_NAME_CASING, check);

fn check(scene: &Scene<'_>, found: &mut Vec<Diagnostic>) {
    for (_, name) in scene.file.stages.iter().filter_map(|stage| stage.from.name.as_ref()) {
        let lower = name.value.to_ascii_lowercase();
        if name.value != lower {
            let message = format!("stage name `{}` should be lower case", name.value);
            found.push(
                Diagnostic::warning(codes::STAGE_NAME_CASING, name.span, message)
                    .label(name.span, "has upper case letters")
                    .help(format!("write `{lower}`, here and where the stage is named")),
            );
        }
    }
}
