//! `NoEmptyContinuation`: an empty line inside a continued instruction is dropped today; `BuildKit` has
//! announced that it will be an error.
//!
//! Bad:
//! ```dockerfile
//! RUN apt-get update && \
//!
//!     apt-get install -y git
//! ```
//! Good:
//! ```dockerfile
//! RUN apt-get update && \
//!     apt-get install -y git
//! ```

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::fix::of_blank_lines;

pub(super) const RULE: Rule = Rule::new(codes::NO_EMPTY_CONTINUATION, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    // The parser alone still knows of lines.
    let empty = analysis.parsed.iter().filter(|said| said.code == codes::EMPTY_CONTINUATION);
    found.extend(empty.map(|said| Diagnostic {
        code: codes::NO_EMPTY_CONTINUATION,
        fix: of_blank_lines(analysis.source, said),
        ..said.clone()
    }));
}
