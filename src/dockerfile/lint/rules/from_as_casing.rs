//! `FromAsCasing`: `AS` should have the same case as its FROM.
//!
//! Mixed case makes the line harder to read. A keyword like `From`, neither upper nor lower case, is left
//! to `ConsistentInstructionCasing`.
//!
//! <https://docs.docker.com/reference/build-checks/from-as-casing/>
//!
//! Bad:
//! ```dockerfile
//! FROM golang as build
//! ```
//! Good:
//! ```dockerfile
//! FROM golang AS build
//! ```

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::fix::replace;
use crate::dockerfile::lint::rules::consistent_instruction_casing::{Casing, casing};

pub(super) const RULE: Rule = Rule::new(codes::FROM_AS_CASING, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for stage in &analysis.file.stages {
        let Some((as_word, _)) = &stage.from.name else { continue };
        let from = &stage.from.keyword.value;
        let want = match casing(from) {
            Some(Casing::Upper) => "AS",
            Some(Casing::Lower) => "as",
            None => continue,
        };
        if as_word.value != want {
            let message = format!("casing of `{}` and `{from}` does not match", as_word.value);
            found.push(
                Diagnostic::warning(codes::FROM_AS_CASING, as_word.span, message)
                    .label(as_word.span, format!("write `{want}`"))
                    .label(stage.from.keyword.span, format!("because of this `{from}`"))
                    .maybe_fix([replace(analysis.source, as_word, want)]),
            );
        }
    }
}
