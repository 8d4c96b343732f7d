//! Finds where the source text uses a variable; the IR has spans of whole words only.

use crate::diag::Span;

/// Returns the span of `$name` or `${name}` within `span`, or all of `span` if it has none.
pub(super) fn span_of_use(source: &str, span: Span, name: &str) -> Span {
    let text = source.get(span.start..span.end).unwrap_or("");
    let ends =
        |rest: &str| !rest.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '_');
    for (at, _) in text.match_indices('$') {
        let rest = text.get(at + 1..).unwrap_or("");
        let (braced, rest) = match rest.strip_prefix('{') {
            Some(rest) => (1, rest),
            None => (0, rest),
        };
        let Some(after) = rest.strip_prefix(name).filter(|after| ends(after)) else { continue };
        let close = usize::from(braced == 1 && after.starts_with('}'));
        let start = span.start + at;
        return Span::new(start, start + 1 + braced + name.len() + close);
    }
    span
}
