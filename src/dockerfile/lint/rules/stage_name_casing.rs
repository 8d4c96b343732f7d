//! `StageNameCasing`: stage names should be lower case.
//!
//! Names are compared in lower case, so references look like the name only if all of them are lower
//! case.
//!
//! <https://docs.docker.com/reference/build-checks/stage-name-casing/>
//!
//! Bad:
//! ```dockerfile
//! FROM golang AS BuildBase
//! ```
//! Good:
//! ```dockerfile
//! FROM golang AS build-base
//! ```

use crate::diag::{Diagnostic, Edit, codes};
use crate::dockerfile::ir::{Instruction, Kind, Word};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::fix::replace;

pub(super) const RULE: Rule = Rule::new(codes::STAGE_NAME_CASING, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for (_, name) in analysis.file.stages.iter().filter_map(|stage| stage.from.name.as_ref()) {
        let lower = name.value.to_ascii_lowercase();
        if name.value != lower {
            let message = format!("stage name `{}` should be lower case", name.value);
            found.push(
                Diagnostic::warning(codes::STAGE_NAME_CASING, name.span, message)
                    .label(name.span, "has upper-case letters")
                    .help(format!("write `{lower}` here and in all references to the stage"))
                    .maybe_fix(everywhere(analysis, name, &lower)),
            );
        }
    }
}

/// Replaces the name everywhere by lower case; returns `None` if two stages have it.
fn everywhere(analysis: &Analysis<'_>, name: &Word, lower: &str) -> Vec<Option<Edit>> {
    let stages = &analysis.file.stages;
    let is_name = |word: &&Word| word.value.eq_ignore_ascii_case(lower);
    let names = stages.iter().filter_map(|stage| stage.from.name.as_ref().map(|(_, name)| name));
    if names.filter(is_name).count() != 1 {
        return vec![None];
    }
    let uses = stages.iter().flat_map(|stage| {
        let inside = stage.instructions.iter().flat_map(named_stages);
        std::iter::once(&stage.from.image).chain(inside)
    });
    let words = std::iter::once(name).chain(uses.filter(is_name));
    words.map(|word| replace(analysis.source, word, lower)).collect()
}

/// Returns the words of an instruction, or of a trigger, that may name a stage.
fn named_stages(instruction: &Instruction) -> impl Iterator<Item = &Word> {
    if let Kind::Onbuild(onbuild) = &instruction.kind {
        return onbuild.instruction.from_words();
    }
    instruction.from_words()
}
