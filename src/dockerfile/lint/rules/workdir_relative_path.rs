//! `WorkdirRelativePath`: WORKDIR should be absolute.
//!
//! A relative WORKDIR is below that of the base image, and moves when the base image changes. The rule
//! checks the first WORKDIR of a stage, unless the stage inherits one from another stage.
//!
//! <https://docs.docker.com/reference/build-checks/workdir-relative-path/>
//!
//! Bad:
//! ```dockerfile
//! FROM nginx
//! WORKDIR usr/share/nginx/html
//! ```
//! Good:
//! ```dockerfile
//! FROM nginx
//! WORKDIR /usr/share/nginx/html
//! ```

use std::collections::BTreeSet;

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::Kind;
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;

pub(super) const RULE: Rule = Rule::new(codes::WORKDIR_RELATIVE_PATH, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    let inherited = analysis.inherits(|kind| matches!(kind, Kind::Workdir(_)));
    let mut firsts = BTreeSet::new();
    for (view, inherited) in analysis.stages.iter().zip(inherited) {
        let first = view.instructions.iter().find(|own| matches!(own.kind, Kind::Workdir(_)));
        firsts.extend(first.filter(|_| !inherited).map(|first| first.span));
    }
    analysis.for_each_stage_instruction(|stage, instruction, scope| {
        let Kind::Workdir(word) = &instruction.kind else { return };
        if !firsts.contains(&instruction.span) {
            return;
        }
        // A variable of an unknown base image may be absolute.
        let Some(path) = scope.expand_known(word) else { return };
        if is_absolute(&path, analysis.os(stage)) {
            return;
        }
        let message = format!(
            "relative WORKDIR `{path}` can have unexpected results if the base image changes"
        );
        found.push(
            Diagnostic::warning(codes::WORKDIR_RELATIVE_PATH, instruction.span, message)
                .label(word.span, "relative to the WORKDIR of the base image")
                .help(format!("write an absolute path, such as `WORKDIR /{path}`")),
        );
    });
}

/// Returns whether a path is absolute. Drives and backslashes count on Windows only (BuildKit,
/// `util/system.IsAbs`).
fn is_absolute(path: &str, os: &str) -> bool {
    if os != "windows" {
        return path.starts_with('/');
    }
    let has_drive = path.get(1..2) == Some(":");
    let below = path.get(2..).filter(|_| has_drive).unwrap_or(path);
    below.starts_with(['/', '\\'])
}
