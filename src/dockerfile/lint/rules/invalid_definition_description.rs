//! `InvalidDefinitionDescription`: a comment above an ARG or a named stage should begin with its name.
//!
//! Such a comment is the description that `--call=outline` shows. The rule is experimental because other
//! comments are common there.
//!
//! <https://docs.docker.com/reference/build-checks/invalid-definition-description/>
//!
//! Bad:
//! ```dockerfile
//! # the version to build
//! ARG VERSION
//! ```
//! Good:
//! ```dockerfile
//! # VERSION the version to build
//! ARG VERSION
//! ```

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::ir::{Instruction, Kind};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::comments;

pub(super) const RULE: Rule =
    Rule { experimental: true, ..Rule::new(codes::INVALID_DEFINITION_DESCRIPTION, check) };

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for instruction in &analysis.file.meta_args {
        arg(analysis, instruction, found);
    }
    for stage in &analysis.file.stages {
        if let Some((_, name)) = &stage.from.name {
            found.extend(described(analysis, "FROM", stage.span, &[name.value.as_str()]));
        }
        for instruction in &stage.instructions {
            arg(analysis, instruction, found);
        }
    }
}

fn arg(analysis: &Analysis<'_>, instruction: &Instruction, found: &mut Vec<Diagnostic>) {
    if let Kind::Arg(args) = &instruction.kind {
        let names: Vec<&str> = args.iter().map(|arg| arg.name.value.as_str()).collect();
        found.extend(described(analysis, "ARG", instruction.span, &names));
    }
}

fn described(
    analysis: &Analysis<'_>,
    keyword: &str,
    span: Span,
    names: &[&str],
) -> Option<Diagnostic> {
    let comments = comments::above(analysis.source, span);
    let first_word = comments.last()?.split(' ').next()?;
    if names.contains(&first_word) {
        return None;
    }
    let name = match names {
        [name] => name,
        _ => "<arg_key>",
    };
    let message =
        format!("the comment for {keyword} should follow the format `# {name} <description>`");
    let help =
        "separate a comment that is not a description with an empty line or an empty comment";
    Some(
        Diagnostic::warning(codes::INVALID_DEFINITION_DESCRIPTION, span, message)
            .label(span, "the comment above does not begin with its name")
            .help(help),
    )
}
