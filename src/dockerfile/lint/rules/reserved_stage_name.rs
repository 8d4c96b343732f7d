//! `ReservedStageName`: reserved words should not be stage names.
//!
//! `scratch` is the empty image and `context` the build context. A stage with such a name hides them or is
//! hidden by them.
//!
//! <https://docs.docker.com/reference/build-checks/reserved-stage-name/>
//!
//! Bad:
//! ```dockerfile
//! FROM alpine AS scratch
//! ```
//! Good:
//! ```dockerfile
//! FROM alpine AS builder
//! ```

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;

pub(super) const RULE: Rule = Rule::new(codes::RESERVED_STAGE_NAME, check);

const RESERVED: [&str; 2] = ["context", "scratch"];

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for (_, name) in analysis.file.stages.iter().filter_map(|stage| stage.from.name.as_ref()) {
        if RESERVED.contains(&name.value.to_ascii_lowercase().as_str()) {
            let message = format!("stage name `{}` is a reserved word", name.value);
            found.push(
                Diagnostic::warning(codes::RESERVED_STAGE_NAME, name.span, message)
                    .label(name.span, "already has another meaning")
                    .help("give the stage another name"),
            );
        }
    }
}
