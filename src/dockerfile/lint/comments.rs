//! Comments that describe an ARG or a stage.

use crate::diag::Span;

/// The comment lines right above the instruction at `span`, top first, without `#` and blanks.
///
/// A blank line or an empty comment ends them; lines that are directives are left out.
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

/// What the comments above `span` say about `name`: the text of the line that begins with it.
pub(super) fn description<'a>(source: &'a str, span: Span, name: &str) -> Option<&'a str> {
    above(source, span)
        .into_iter()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(' ')?.trim()))
}

fn is_directive(comment: &str) -> bool {
    let name = comment.split('=').next().unwrap_or("").trim().to_ascii_lowercase();
    comment.contains('=') && ["syntax", "escape", "check"].contains(&name.as_str())
}
