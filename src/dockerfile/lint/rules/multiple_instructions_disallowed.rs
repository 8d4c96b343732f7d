//! `MultipleInstructionsDisallowed`: a stage should have only one CMD, ENTRYPOINT and HEALTHCHECK.
//!
//! Of several, only the last has an effect, so the others are leftovers.
//!
//! <https://docs.docker.com/reference/build-checks/multiple-instructions-disallowed/>
//!
//! Bad:
//! ```dockerfile
//! CMD ["a"]
//! CMD ["b"]
//! ```
//! Good:
//! ```dockerfile
//! CMD ["b"]
//! ```

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::ir::Kind;
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;

pub(super) const RULE: Rule = Rule::new(codes::MULTIPLE_INSTRUCTIONS_DISALLOWED, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for view in analysis.checked_stages() {
        let mut last: BTreeMap<String, Span> = BTreeMap::new();
        for instruction in &view.stage.instructions {
            let once = matches!(
                instruction.kind,
                Kind::Cmd(_) | Kind::Entrypoint(_) | Kind::Healthcheck(_)
            );
            if !once {
                continue;
            }
            let keyword = instruction.keyword.value.to_ascii_uppercase();
            if let Some(ignored) = last.insert(keyword.clone(), instruction.span) {
                let message = format!(
                    "multiple {keyword} instructions should not be used in one stage: only the last one counts"
                );
                found.push(
                    Diagnostic::warning(codes::MULTIPLE_INSTRUCTIONS_DISALLOWED, ignored, message)
                        .label(ignored, "has no effect")
                        .label(instruction.span, "because of this one")
                        .help("remove it"),
                );
            }
        }
    }
}
