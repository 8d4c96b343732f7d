//! `MaintainerDeprecated`: MAINTAINER cannot be overridden, inherited or queried as a label can.
//!
//! Bad:
//! ```dockerfile
//! MAINTAINER moby@example.com
//! ```
//! Good:
//! ```dockerfile
//! LABEL org.opencontainers.image.authors="moby@example.com"
//! ```

use crate::diag::{Diagnostic, codes};
use crate::ir::Kind;
use crate::lint::Rule;
use crate::lint::scene::Scene;

/// The rule.
pub(super) const RULE: Rule = Rule::new(codes::MAINTAINER_DEPRECATED, check);

fn check(scene: &Scene<'_>, found: &mut Vec<Diagnostic>) {
    for instruction in scene.file.stages.iter().flat_map(|stage| &stage.instructions) {
        let Kind::Maintainer(who) = &instruction.kind else { continue };
        let message = "MAINTAINER is deprecated in favour of a label";
        let help = format!("write `LABEL org.opencontainers.image.authors={:?}`", who.value);
        found.push(
            Diagnostic::warning(codes::MAINTAINER_DEPRECATED, instruction.span, message)
                .label(instruction.keyword.span, "deprecated")
                .help(help),
        );
    }
}
