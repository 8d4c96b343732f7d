//! Fixing a whole file: the rules that have one safe fix say which, and here they are made until
//! nothing is left to fix.

use crate::diag::{self, Code, Diagnostic, Edit, Fix, Span, codes};
use crate::dockerfile::expand;
use crate::dockerfile::ir::{Escape, Kind, Word};
use crate::dockerfile::syntax;
use crate::oci::Platform;

use super::{LintOptions, check_each};

/// One fix may bring about another: that of FROM's case, that of its `as`; and of the blank lines in
/// an instruction the first ones are told. Never so often.
const MAX_ROUNDS: usize = 64;

/// A file after its fixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The whole text.
    pub text: String,
    /// The rules whose fixes were made, one for each fix, sorted.
    pub rules: Vec<Code>,
}

/// Makes every fix that the checks on `source` offer. A file with mistakes is left as it is: what
/// it means is not known.
#[must_use]
pub fn fix_all(source: &str, options: &LintOptions<'_>, platforms: &[Platform]) -> Fixed {
    let mut fixed = Fixed { text: source.to_owned(), rules: Vec::new() };
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
        // No fix makes a file that is none.
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

/// Whether a word stands in the source as it is in the IR: in one piece, nothing folded away.
pub(super) fn is_verbatim(source: &str, word: &Word) -> bool {
    source.get(word.span.start..word.span.end) == Some(word.value.as_str())
}

/// The edit that writes `text` in place of a word, if that stands there in one piece.
pub(super) fn replace(source: &str, word: &Word, text: &str) -> Option<Edit> {
    is_verbatim(source, word).then(|| Edit::new(word.span, text))
}

/// How `value` is written behind `name=` so that it means what it does now: `None` if no way is
/// sure. `reads` says what the value means now, given the variables.
pub(super) fn joined(
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
    candidates.into_iter().find(|text| means(escape, keyword, name, text, reads))
}

/// Whether `keyword name=text` gives the one variable or label that `reads` gives, whatever the
/// variables in it are.
fn means(
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

/// The line of an instruction that is deleted with its end.
pub(super) fn without_line(source: &str, at: usize) -> Option<Span> {
    let start = source.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let rest = source.get(start..)?;
    let end = start + rest.find('\n')? + 1;
    source
        .get(start..end)?
        .trim_matches([' ', '\t', '\r', '\n'])
        .is_empty()
        .then(|| Span::new(start, end))
}

/// The fix of a blank line inside an instruction: all blank lines from there on go.
pub(super) fn of_blank_lines(source: &str, said: &Diagnostic) -> Option<Fix> {
    let first = without_line(source, said.span.start)?;
    let mut end = first.end;
    while let Some(next) = without_line(source, end).filter(|next| next.start == end) {
        end = next.end;
    }
    debug_assert_eq!(said.code, codes::EMPTY_CONTINUATION);
    Some(Fix { edits: vec![Edit::new(Span::new(first.start, end), "")] })
}
