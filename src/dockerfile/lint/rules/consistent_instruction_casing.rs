//! `ConsistentInstructionCasing`: keywords should be all upper or all lower case.
//!
//! Keywords in one case are easy to find. The majority of the file decides which case; without a majority
//! it is upper case.
//!
//! <https://docs.docker.com/reference/build-checks/consistent-instruction-casing/>
//!
//! Bad:
//! ```dockerfile
//! FROM alpine
//! run apk upgrade
//! COPY . /app
//! ```
//! Good:
//! ```dockerfile
//! FROM alpine
//! RUN apk upgrade
//! COPY . /app
//! ```

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::fix::replace;

pub(super) const RULE: Rule = Rule::new(codes::CONSISTENT_INSTRUCTION_CASING, check);

/// The letter case of a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Casing {
    Upper,
    Lower,
}

/// Returns the casing of a keyword; `None` if it is mixed.
pub(super) fn casing(keyword: &str) -> Option<Casing> {
    if keyword.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Some(Casing::Upper);
    }
    keyword.bytes().all(|byte| byte.is_ascii_lowercase()).then_some(Casing::Lower)
}

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    let keywords = || {
        analysis.file.stages.iter().flat_map(|stage| {
            let own = stage.instructions.iter().map(|instruction| &instruction.keyword);
            std::iter::once(&stage.from.keyword).chain(own)
        })
    };
    let count = |want| keywords().filter(|word| casing(&word.value) == Some(want)).count();
    let lower = count(Casing::Lower) > count(Casing::Upper);
    for keyword in keywords() {
        let (want, name) = if lower {
            (keyword.value.to_ascii_lowercase(), "lowercase")
        } else {
            (keyword.value.to_ascii_uppercase(), "uppercase")
        };
        if keyword.value != want {
            let message = format!(
                "instruction `{}` should match the case of the majority ({name})",
                keyword.value
            );
            found.push(
                Diagnostic::warning(codes::CONSISTENT_INSTRUCTION_CASING, keyword.span, message)
                    .label(keyword.span, format!("write `{want}`"))
                    .maybe_fix([replace(analysis.source, keyword, &want)]),
            );
        }
    }
}
