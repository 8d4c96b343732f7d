//! Finds the comments that describe an ARG or a stage in `--call=outline`.

use crate::diag::Span;

/// Returns the comment lines directly above the instruction at `span`, top first, without `#` and
/// blanks.
///
/// A blank line or an empty comment ends them. Directives are left out.
pub(super) fn above(source: &str, span: Span) -> Vec<&str> {
    let before = source.get(..span.start).unwrap_or("");
    let before = before.rfind('\n').and_then(|end| before.get(..end)).unwrap_or("");
    let mut lines: Vec<&str> = before
        .rsplit('\n')
        .map_while(|line| line.trim().strip_prefix('#'))
        .map(str::trim)
        .take_while(|comment| !comment.is_empty())
        .filter(|comment| !is_directive(comment))
        .collect();
    lines.reverse();
    lines
}

/// Returns the description of `name`: the rest of a comment line above `span` that begins with it.
pub(super) fn description<'a>(source: &'a str, span: Span, name: &str) -> Option<&'a str> {
    above(source, span)
        .into_iter()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(' ')?.trim()))
}

fn is_directive(comment: &str) -> bool {
    let name = comment.split('=').next().unwrap_or("").trim().to_ascii_lowercase();
    comment.contains('=') && ["syntax", "escape", "check"].contains(&name.as_str())
}
