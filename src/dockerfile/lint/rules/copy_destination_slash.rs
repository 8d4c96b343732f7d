//! `CopyDestinationSlash`: the destination of several sources should end with a slash.
//!
//! With several sources the destination is a directory, and the reference requires a slash at its end.
//! Without one, the result depends on whether the base image has that directory. `BuildKit` has no such
//! rule.
//!
//! <https://docs.docker.com/reference/dockerfile/#copy>
//!
//! Bad:
//! ```dockerfile
//! COPY one two /dest
//! ```
//! Good:
//! ```dockerfile
//! COPY one two /dest/
//! ```

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::{CopySource, Instruction, Kind, Word};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;

pub(super) const RULE: Rule = Rule::new(codes::COPY_DESTINATION_SLASH, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    analysis.for_each_instruction(|instruction, scope| {
        let Some((sources, destination)) = needs_directory(instruction) else { return };
        let Some(text) = scope.expand_known(destination) else { return };
        if sources.len() < 2 || is_directory(&text) {
            return;
        }
        let keyword = instruction.keyword.value.to_ascii_uppercase();
        let message = format!(
            "{keyword} has {} sources, but the destination `{text}` does not end with `/`",
            sources.len()
        );
        found.push(
            Diagnostic::warning(codes::COPY_DESTINATION_SLASH, destination.span, message)
                .label(destination.span, format!("write `{text}/`")),
        );
    });
}

/// Returns sources and destination, unless `--parents` makes the destination a directory.
fn needs_directory(instruction: &Instruction) -> Option<(&[CopySource], &Word)> {
    if let Kind::Copy(copy) = &instruction.kind {
        let keeps_parents = copy.parents.as_ref().is_some_and(|parents| parents.value);
        return (!keeps_parents).then_some((&copy.sources, &copy.destination));
    }
    let Kind::Add(add) = &instruction.kind else { return None };
    Some((&add.sources, &add.destination))
}

/// Returns whether a destination is written as a directory.
fn is_directory(text: &str) -> bool {
    text.is_empty() || text == "." || text.ends_with('/') || text.ends_with("/.")
}
