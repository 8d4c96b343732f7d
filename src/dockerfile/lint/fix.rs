//! Applies the fixes of a file (`--check --fix`) until no rule offers another one.

use crate::diag::{self, Code, Diagnostic, Edit, Fix, Span, codes};
use crate::dockerfile::expand;
use crate::dockerfile::ir::{Escape, Kind, Word};
use crate::dockerfile::syntax;
use crate::oci::Platform;

use super::{LintOptions, check_each};

/// Maximum number of passes. One fix can cause another: that of FROM's case causes that of its `as`.
/// Each pass fixes only the first group of blank lines in an instruction.
const MAX_ROUNDS: usize = 64;

/// A Dockerfile after its fixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedFile {
    /// Text of the whole file.
    pub text: String,
    /// Rules whose fixes were applied, one entry for each fix, sorted.
    pub rules: Vec<Code>,
}

/// Applies every fix that the checks on `source` offer. A file with errors is left unchanged.
#[must_use]
pub fn fix_all(source: &str, options: &LintOptions<'_>, platforms: &[Platform]) -> FixedFile {
    let mut fixed = FixedFile { text: source.to_owned(), rules: Vec::new() };
    for _ in 0..MAX_ROUNDS {
        let (file, parsed) = syntax::parse(&fixed.text);
        if parsed.iter().any(Diagnostic::is_error) {
            break;
        }
        let found = check_each(&file, &fixed.text, &parsed, options, platforms);
        let offered: Vec<(Code, &Fix)> =
            found.iter().filter_map(|said| Some((said.code, said.fix.as_ref()?))).collect();
        if offered.is_empty() {
            break;
        }
        let (text, made) = diag::apply_fixes(&fixed.text, offered.iter().map(|(_, fix)| *fix));
        // Stop if the fixed Dockerfile would not parse.
        if syntax::parse(&text).1.iter().any(Diagnostic::is_error) {
            break;
        }
        let codes = offered.iter().zip(made).filter(|(_, made)| *made).map(|((code, _), _)| *code);
        fixed.rules.extend(codes);
        fixed.text = text;
    }
    fixed.rules.sort();
    fixed
}

/// Returns whether the source has a word exactly as in the IR, without a continuation in it.
pub(super) fn is_verbatim(source: &str, word: &Word) -> bool {
    source.get(word.span.start..word.span.end) == Some(word.value.as_str())
}

/// Replaces a word by `text`, if the source has the word without a continuation in it.
pub(super) fn replace(source: &str, word: &Word, text: &str) -> Option<Edit> {
    is_verbatim(source, word).then(|| Edit::new(word.span, text))
}

/// Quotes `value` so that it keeps its meaning after `name=`; returns `None` if no way is certain.
///
/// `reads` evaluates the present value for given variables.
pub(super) fn quoted_for_pair(
    escape: Escape,
    keyword: &str,
    name: &str,
    value: &str,
    reads: &dyn Fn(&expand::Lookup<'_>) -> Option<String>,
) -> Option<String> {
    let mark = escape.char();
    let mut escaped = String::new();
    for c in value.chars() {
        if matches!(c, '"' | '$') || c == mark {
            escaped.push(mark);
        }
        escaped.push(c);
    }
    let candidates = [value.to_owned(), format!("\"{value}\""), format!("\"{escaped}\"")];
    candidates.into_iter().find(|text| has_same_meaning(escape, keyword, name, text, reads))
}

/// Returns whether `keyword name=text` evaluates to what `reads` returns, for several environments.
fn has_same_meaning(
    escape: Escape,
    keyword: &str,
    name: &str,
    text: &str,
    reads: &dyn Fn(&expand::Lookup<'_>) -> Option<String>,
) -> bool {
    let directive = if escape == Escape::Backtick { "# escape=`\n" } else { "" };
    let line = format!("{directive}FROM scratch\n{keyword} {name}={text}\n");
    let (file, said) = syntax::parse(&line);
    let [stage] = file.stages.as_slice() else { return false };
    let [instruction] = stage.instructions.as_slice() else { return false };
    let (Kind::Env(pairs) | Kind::Label(pairs)) = &instruction.kind else { return false };
    let [pair] = pairs.as_slice() else { return false };
    if !said.is_empty() || pair.legacy || pair.name.value != name {
        return false;
    }
    let environments: [&expand::Lookup<'_>; 3] =
        [&|_| None, &|_| Some(String::new()), &|name| Some(format!("{name} \" ' \\ ` $x"))];
    environments.iter().all(|env| {
        let new = expand::word(&pair.value.value, escape, *env).ok().map(|done| done.value);
        new.is_some() && new == reads(*env)
    })
}

/// Returns the span of the line at `at` with its ending, if the line is blank.
pub(super) fn blank_line(source: &str, at: usize) -> Option<Span> {
    let start = source.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let rest = source.get(start..)?;
    let end = start + rest.find('\n')? + 1;
    source
        .get(start..end)?
        .trim_matches([' ', '\t', '\r', '\n'])
        .is_empty()
        .then(|| Span::new(start, end))
}

/// Removes a blank line inside an instruction, and the blank lines that follow it.
pub(super) fn remove_blank_lines(source: &str, said: &Diagnostic) -> Option<Fix> {
    let first = blank_line(source, said.span.start)?;
    let mut end = first.end;
    while let Some(next) = blank_line(source, end).filter(|next| next.start == end) {
        end = next.end;
    }
    debug_assert_eq!(said.code, codes::EMPTY_CONTINUATION);
    Some(Fix { edits: vec![Edit::new(Span::new(first.start, end), "")] })
}
