//! `FromPlatformFlagConstDisallowed`: `FROM --platform` should not be a constant.
//!
//! With a constant platform, the stage is the same for every target, which is seldom intended. A stage
//! name with the operating system or the architecture in it shows that it is.
//!
//! <https://docs.docker.com/reference/build-checks/from-platform-flag-const-disallowed/>
//!
//! Bad:
//! ```dockerfile
//! FROM --platform=linux/amd64 alpine AS base
//! ```
//! Good:
//! ```dockerfile
//! FROM --platform=$BUILDPLATFORM alpine AS base
//! ```

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::oci::Platform;

pub(super) const RULE: Rule = Rule::new(codes::FROM_PLATFORM_FLAG_CONST_DISALLOWED, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for stage in &analysis.file.stages {
        let Some(word) = &stage.from.platform else { continue };
        if word.value.contains('$') {
            continue;
        }
        let Ok(platform) = word.value.trim_matches('"').parse::<Platform>() else { continue };
        let name = stage.name().unwrap_or_default();
        if name.contains(&platform.os) || name.contains(&platform.architecture) {
            continue;
        }
        let message = format!("FROM --platform should not use the constant value `{}`", word.value);
        let help = format!(
            "use $BUILDPLATFORM, or remove the flag and build with `--platform {platform}`; \
             a stage name that contains `{}` shows that it is intended",
            platform.architecture
        );
        found.push(
            Diagnostic::warning(codes::FROM_PLATFORM_FLAG_CONST_DISALLOWED, word.span, message)
                .label(word.span, "the same for every target")
                .help(help),
        );
    }
}
