//! `NoEmptyContinuation`: a continued instruction should not contain empty lines.
//!
//! Such lines are ignored for now; `BuildKit` has announced that they will be errors.
//!
//! <https://docs.docker.com/reference/build-checks/no-empty-continuation/>
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
use crate::dockerfile::lint::fix::remove_blank_lines;

pub(super) const RULE: Rule = Rule::new(codes::NO_EMPTY_CONTINUATION, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    // Only the parser sees lines, and it warns of each.
    let empty = analysis.parsed.iter().filter(|said| said.code == codes::EMPTY_CONTINUATION);
    found.extend(empty.map(|said| Diagnostic {
        code: codes::NO_EMPTY_CONTINUATION,
        fix: remove_blank_lines(analysis.source, said),
        ..said.clone()
    }));
}
