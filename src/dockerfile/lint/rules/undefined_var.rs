//! `UndefinedVar`: variables should be defined before their use.
//!
//! An undefined variable is empty, which is seldom intended. Often it is misspelt, or a global ARG that the
//! stage does not declare again.
//!
//! Variables of the base image count as defined. While the image is not known (`--check` does not contact
//! registries), a name is reported only if a mistake is likely: it differs in one letter from a name in
//! scope, or the file defines it elsewhere.
//!
//! <https://docs.docker.com/reference/build-checks/undefined-var/>
//!
//! Bad:
//! ```dockerfile
//! FROM alpine
//! COPY $foo .
//! ```
//! Good:
//! ```dockerfile
//! FROM alpine
//! ARG foo
//! COPY $foo .
//! ```

use std::collections::BTreeSet;

use crate::diag::{Diagnostic, MAX_SHOWN, Span, codes, nearest};
use crate::dockerfile::ir::{Add, Copy, CopyFlags, CopySource, Heredoc, Kind, Word};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::variable_use::span_of_use;
use crate::dockerfile::scope::StageScope;

pub(super) const RULE: Rule = Rule { needs_bases: true, ..Rule::new(codes::UNDEFINED_VAR, check) };

/// Names that BuildKit reads from the Dockerfile, but that are not variables.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Maximum number of names that an undefined one is compared with. A Dockerfile with 10,000 variables
/// would otherwise need a hundred million comparisons.
const MAX_COMPARED: usize = 1000;

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    let elsewhere = defined_anywhere(analysis);
    analysis.for_each_instruction(|instruction, scope| {
        let mut uses: Vec<(String, Span)> = Vec::new();
        for word in words(&instruction.kind) {
            let mut undefined = scope.undefined(word);
            undefined.retain(|name| !declared_before(&instruction.kind, word, name));
            uses.extend(undefined.into_iter().map(|name| (name, word.span)));
        }
        for heredoc in heredocs(&instruction.kind) {
            let undefined = scope.undefined_in_heredoc(heredoc);
            uses.extend(undefined.into_iter().map(|name| (name, heredoc.body.span)));
        }
        let mut seen = BTreeSet::new();
        for (name, span) in uses {
            let suspicious = scope.is_complete()
                || elsewhere.contains(&name)
                || scope
                    .names()
                    .take(MAX_COMPARED)
                    .any(|known| differs_in_one_letter(known, &name));
            if NO_VARIABLES.contains(&name.as_str()) || !suspicious || !seen.insert(name.clone()) {
                continue;
            }
            let span = span_of_use(analysis.source, span, &name);
            let names_near = found.len() < MAX_SHOWN;
            found.push(warning(&name, span, analysis, scope, &elsewhere, names_near));
        }
    });
}

fn warning(
    name: &str,
    span: Span,
    analysis: &Analysis<'_>,
    scope: &StageScope,
    elsewhere: &BTreeSet<String>,
    names_near: bool,
) -> Diagnostic {
    let warning = Diagnostic::warning(
        codes::UNDEFINED_VAR,
        span,
        format!("usage of undefined variable `${name}`"),
    )
    .label(span, "is always empty here");
    if names_near && let Some(near) = nearest(name, scope.names().take(MAX_COMPARED)) {
        return warning.help(format!("did you mean `${near}`?"));
    }
    if analysis.globals.declares(name) {
        return warning.help(format!("add `ARG {name}` to this stage, above the line"));
    }
    if elsewhere.contains(name) {
        return warning.help("it is only defined further down or in another stage");
    }
    warning.help(format!("define it above the line with `ARG {name}` or `ENV {name}=…`"))
}

/// Returns the names that any ARG or ENV of the file defines, and the platform arguments.
fn defined_anywhere(analysis: &Analysis<'_>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = analysis.globals.names().map(str::to_owned).collect();
    for instruction in analysis.file.stages.iter().flat_map(|stage| &stage.instructions) {
        if let Kind::Arg(args) = &instruction.kind {
            names.extend(args.iter().map(|arg| arg.name.value.clone()));
        } else if let Kind::Env(pairs) = &instruction.kind {
            // `ENV PATH=$PATH:/x` of a stage says nothing about the others, whose bases may
            // define the same.
            let fresh = pairs.iter().filter(|pair| !pair.value.value.contains('$'));
            names.extend(fresh.map(|pair| pair.name.value.clone()));
        }
    }
    names
}

/// Returns whether two names differ by one added, removed or replaced letter, or by two adjacent letters
/// that are swapped.
fn differs_in_one_letter(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rest = |text: &'_ [u8]| text.get(common..).unwrap_or_default().to_vec();
    let (mut a, mut b) = (rest(a), rest(b));
    while a.last().is_some() && a.last() == b.last() {
        a.pop();
        b.pop();
    }
    let swapped = matches!((a.as_slice(), b.as_slice()), ([a, b], [c, d]) if a == d && b == c);
    swapped || (a.len() <= 1 && b.len() <= 1)
}

/// Returns whether the default `word` comes after the declaration of `name` in the same ARG.
fn declared_before(kind: &Kind, word: &Word, name: &str) -> bool {
    let Kind::Arg(args) = kind else { return false };
    let mut before = args.iter().take_while(|arg| arg.default.as_ref() != Some(word));
    before.any(|arg| arg.name.value == name)
}

/// Returns the words of an instruction in which variables are expanded.
fn words(kind: &Kind) -> Vec<&Word> {
    match kind {
        Kind::Arg(args) => args.iter().filter_map(|arg| arg.default.as_ref()).collect(),
        Kind::Env(pairs) | Kind::Label(pairs) => {
            pairs.iter().flat_map(|pair| [&pair.name, &pair.value]).collect()
        }
        Kind::Copy(copy) => copied(&copy.flags, &copy.sources, &copy.destination),
        Kind::Add(add) => copied(&add.flags, &add.sources, &add.destination),
        Kind::Workdir(word) | Kind::User(word) | Kind::Stopsignal(word) => vec![word],
        Kind::Expose(expose) => expose.ports.iter().collect(),
        Kind::Volume(words) => words.iter().collect(),
        Kind::Run(run) => run
            .mounts
            .iter()
            .flat_map(|mount| [&mount.value.target, &mount.value.source, &mount.value.id])
            .flatten()
            .collect(),
        Kind::Cmd(_)
        | Kind::Entrypoint(_)
        | Kind::Shell(_)
        | Kind::Healthcheck(_)
        | Kind::Onbuild(_)
        | Kind::Maintainer(_) => Vec::new(),
    }
}

fn copied<'a>(
    flags: &'a CopyFlags,
    sources: &'a [CopySource],
    destination: &'a Word,
) -> Vec<&'a Word> {
    let path = |source: &'a CopySource| match source {
        CopySource::Path(word) => Some(word),
        CopySource::Heredoc(_) => None,
    };
    let flags = flags.chown.iter().chain(&flags.chmod);
    flags.chain(sources.iter().filter_map(path)).chain([destination]).collect()
}

/// Returns the heredocs of COPY and ADD.
fn heredocs(kind: &Kind) -> Vec<&Heredoc> {
    let (Kind::Copy(Copy { sources, .. }) | Kind::Add(Add { sources, .. })) = kind else {
        return Vec::new();
    };
    sources
        .iter()
        .filter_map(|source| match source {
            CopySource::Heredoc(heredoc) => Some(heredoc),
            CopySource::Path(_) => None,
        })
        .collect()
}
