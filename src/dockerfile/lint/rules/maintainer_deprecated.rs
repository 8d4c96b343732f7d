//! `MaintainerDeprecated`: MAINTAINER should be a label.
//!
//! A label can be overridden, inherited and queried; the author field set by MAINTAINER cannot.
//!
//! <https://docs.docker.com/reference/build-checks/maintainer-deprecated/>
//!
//! Bad:
//! ```dockerfile
//! MAINTAINER moby@example.com
//! ```
//! Good:
//! ```dockerfile
//! LABEL org.opencontainers.image.authors="moby@example.com"
//! ```

use crate::diag::{Diagnostic, Edit, codes};
use crate::dockerfile::ir::{Instruction, Kind, Word};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::fix::{is_verbatim, quoted_for_pair};

pub(super) const RULE: Rule = Rule::new(codes::MAINTAINER_DEPRECATED, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for instruction in analysis.file.stages.iter().flat_map(|stage| &stage.instructions) {
        let Kind::Maintainer(who) = &instruction.kind else { continue };
        let message = "MAINTAINER is deprecated in favour of a label";
        let help = format!("write `LABEL org.opencontainers.image.authors={:?}`", who.value);
        found.push(
            Diagnostic::warning(codes::MAINTAINER_DEPRECATED, instruction.span, message)
                .label(instruction.keyword.span, "deprecated")
                .help(help)
                .maybe_fix([as_label(analysis, instruction, who)]),
        );
    }
}

/// Replaces the instruction by a label, unless the file already has that label.
fn as_label(analysis: &Analysis<'_>, instruction: &Instruction, who: &Word) -> Option<Edit> {
    let has_label = |instruction: &Instruction| {
        let Kind::Label(pairs) = &instruction.kind else { return false };
        pairs.iter().any(|pair| pair.name.value.contains(LABEL))
    };
    let keyword = &instruction.keyword;
    let in_one_piece = is_verbatim(analysis.source, keyword) && is_verbatim(analysis.source, who);
    if !in_one_piece || analysis.file.stages.iter().flat_map(|s| &s.instructions).any(has_label) {
        return None;
    }
    let is_lower = keyword.value.bytes().all(|byte| byte.is_ascii_lowercase());
    let label = if is_lower { "label" } else { "LABEL" };
    let escape = analysis.file.escape();
    let value = quoted_for_pair(escape, label, LABEL, &who.value, &|_| Some(who.value.clone()))?;
    let value = if value.starts_with('"') { value } else { format!("\"{value}\"") };
    Some(Edit::new(keyword.span.to(who.span), format!("{label} {LABEL}={value}")))
}

/// Label for the authors of an image (image-spec, annotations.md).
const LABEL: &str = "org.opencontainers.image.authors";
