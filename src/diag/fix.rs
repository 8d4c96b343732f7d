//! Fixes: edits of the source that resolve a diagnostic and change nothing else.

use super::Span;

/// A replacement of some bytes by a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edit {
    /// Bytes of the source to replace.
    pub span: Span,
    /// Replacement, empty for a deletion.
    pub text: String,
}

impl Edit {
    /// Replaces the bytes at `span` by `text`.
    pub fn new(span: Span, text: impl Into<String>) -> Self {
        Self { span, text: text.into() }
    }

    fn collides(&self, other: &Self) -> bool {
        let (a, b) = (self.span, other.span);
        self != other && a.start <= b.end && b.start <= a.end
    }
}

/// Edits that belong together: all of them are applied, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// Edits in any order; none touches another.
    pub edits: Vec<Edit>,
}

/// Applies `fixes` to `source`, and returns the new text and, for each fix, whether it was applied.
///
/// A fix is left out if it lies outside of the text or touches the edit of an earlier fix.
#[must_use]
pub fn apply<'a>(source: &str, fixes: impl IntoIterator<Item = &'a Fix>) -> (String, Vec<bool>) {
    let mut edits: Vec<&Edit> = Vec::new();
    let mut made = Vec::new();
    for fix in fixes {
        let fits = |edit: &Edit| {
            source.get(edit.span.start..edit.span.end).is_some()
                && !edits.iter().any(|known| known.collides(edit))
        };
        let all_fit = fix.edits.iter().all(fits);
        if all_fit {
            edits.extend(&fix.edits);
        }
        made.push(all_fit);
    }
    edits.sort();
    edits.dedup();
    let mut text = String::with_capacity(source.len());
    let mut at = 0;
    for edit in edits {
        text.push_str(source.get(at..edit.span.start).unwrap_or_default());
        text.push_str(&edit.text);
        at = edit.span.end;
    }
    text.push_str(source.get(at..).unwrap_or_default());
    (text, made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fix(edits: &[(usize, usize, &str)]) -> Fix {
        let edit =
            |&(start, end, text): &(usize, usize, &str)| Edit::new(Span::new(start, end), text);
        Fix { edits: edits.iter().map(edit).collect() }
    }

    #[test]
    fn fixes_are_applied_whole_or_not_at_all() {
        let check = |fixes: &[Fix], want: &str, made: &[bool]| {
            assert_eq!(apply("FROM a AS B", fixes), (want.to_owned(), made.to_vec()));
        };
        check(&[], "FROM a AS B", &[]);
        check(&[fix(&[(10, 11, "b")]), fix(&[(0, 4, "from")])], "from a AS b", &[true, true]);
        // The same edit twice counts once; one that touches another is left out.
        check(&[fix(&[(10, 11, "b")]), fix(&[(10, 11, "b")])], "FROM a AS b", &[true, true]);
        check(
            &[fix(&[(7, 9, "as")]), fix(&[(0, 4, "x"), (8, 11, "y")])],
            "FROM a as B",
            &[true, false],
        );
        // A span outside of the text belongs to another text.
        check(&[fix(&[(10, 40, "b")])], "FROM a AS B", &[false]);
    }
}
