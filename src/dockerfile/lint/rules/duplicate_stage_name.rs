//! `DuplicateStageName`: stage names should be unique.
//!
//! If two stages have the same name, no later instruction can refer to the first one by name.
//!
//! <https://docs.docker.com/reference/build-checks/duplicate-stage-name/>
//!
//! Bad:
//! ```dockerfile
//! FROM debian AS base
//! FROM golang AS base
//! ```
//! Good:
//! ```dockerfile
//! FROM debian AS base
//! FROM golang AS build
//! ```

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;

pub(super) const RULE: Rule = Rule::new(codes::DUPLICATE_STAGE_NAME, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    for (_, name) in analysis.file.stages.iter().filter_map(|stage| stage.from.name.as_ref()) {
        let lower = name.value.to_ascii_lowercase();
        if let Some(first) = seen.insert(lower, name.span) {
            let message = format!("duplicate stage name `{}`", name.value);
            found.push(
                Diagnostic::warning(codes::DUPLICATE_STAGE_NAME, name.span, message)
                    .label(name.span, "this name is already used")
                    .label(first, "by this stage")
                    .help("give each stage a unique name"),
            );
        }
    }
}
