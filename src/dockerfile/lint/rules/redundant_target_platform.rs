//! `RedundantTargetPlatform`: `FROM --platform=$TARGETPLATFORM` is redundant.
//!
//! Without `--platform`, FROM uses the image for the target platform.
//!
//! <https://docs.docker.com/reference/build-checks/redundant-target-platform/>
//!
//! Bad:
//! ```dockerfile
//! FROM --platform=$TARGETPLATFORM alpine
//! ```
//! Good:
//! ```dockerfile
//! FROM alpine
//! ```

use crate::diag::{Diagnostic, Edit, Span, codes};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;

pub(super) const RULE: Rule = Rule::new(codes::REDUNDANT_TARGET_PLATFORM, check);

const REDUNDANT: [&str; 2] = ["$TARGETPLATFORM", "${TARGETPLATFORM}"];

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for platform in analysis.file.stages.iter().filter_map(|stage| stage.from.platform.as_ref()) {
        if REDUNDANT.contains(&platform.value.trim_matches('"')) {
            let message =
                format!("setting the platform to {} is redundant in FROM", platform.value);
            found.push(
                Diagnostic::warning(codes::REDUNDANT_TARGET_PLATFORM, platform.span, message)
                    .label(platform.span, "this is the default")
                    .help("remove the flag")
                    .maybe_fix([without_flag(analysis.source, platform.span)]),
            );
        }
    }
}

/// Removes the flag whose value is at `value`, and the blanks after it.
fn without_flag(source: &str, value: Span) -> Option<Edit> {
    let before = source.get(..value.start)?.strip_suffix("--platform=")?;
    let after = source.get(value.end..)?;
    let rest = after.trim_start_matches([' ', '\t']);
    let n_blanks = after.len() - rest.len();
    (n_blanks > 0).then(|| Edit::new(Span::new(before.len(), value.end + n_blanks), ""))
}
