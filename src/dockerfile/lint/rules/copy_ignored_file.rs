//! `CopyIgnoredFile`: COPY and ADD should not name files that the ignore file excludes.
//!
//! Excluded files are not part of the context, so COPY does not find them. The rule is off if the ignore
//! file includes paths again with `!`.
//!
//! <https://docs.docker.com/reference/build-checks/copy-ignored-file/>
//!
//! Bad:
//! ```dockerfile
//! # .dockerignore: tmp
//! COPY tmp/file /
//! ```
//! Good:
//! ```dockerfile
//! # .dockerignore: tmp
//! COPY file /
//! ```

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::analysis::context_sources;

pub(super) const RULE: Rule = Rule::new(codes::COPY_IGNORED_FILE, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    let Some(ignored) = analysis.options.ignored else { return };
    analysis.for_each_instruction(|instruction, scope| {
        for word in context_sources(instruction) {
            let Some(text) = scope.expand_known(word) else { continue };
            if is_remote(&text) {
                continue;
            }
            let path = clean(&text);
            if ignored(&path) {
                let keyword = instruction.keyword.value.to_ascii_uppercase();
                let message =
                    format!("{keyword} names `{text}`, which is excluded by the ignore file");
                found.push(
                    Diagnostic::warning(codes::COPY_IGNORED_FILE, word.span, message)
                        .label(word.span, "not in the build context")
                        .help("remove the pattern from .dockerignore, or do not copy the file"),
                );
            }
        }
    });
}

fn is_remote(source: &str) -> bool {
    source.contains("://") || source.starts_with("git@")
}

/// Returns the path relative to the context; `.` is the context itself.
fn clean(source: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in source.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    if names.is_empty() { ".".to_owned() } else { names.join("/") }
}
