//! Text whose pieces come from several places of the source, as continued lines do.

use nom::Offset as _;

use crate::diag::{Span, Spanned};
use crate::dockerfile::ir::Word;

/// Text with a map from its offsets to those of the source.
#[derive(Debug, Clone, Default)]
pub(super) struct Folded {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    folded: usize,
    source: usize,
}

impl Folded {
    /// Adds `text`, which stands at `source` there.
    pub(super) fn push(&mut self, source: usize, text: &str) {
        if text.is_empty() && !self.pieces.is_empty() {
            return;
        }
        self.pieces.push(Piece { folded: self.text.len(), source });
        self.text.push_str(text);
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where `part`, a slice of [`Self::text`], stands in the source.
    pub(super) fn span_of(&self, part: &str) -> Span {
        let start = self.text.offset(part);
        if part.is_empty() {
            // What is missing is missing right after what is there.
            return Span::at(self.past(start));
        }
        Span::new(self.place(start), self.past(start + part.len()))
    }

    /// `part` as a word.
    pub(super) fn word(&self, part: &str) -> Word {
        Spanned::new(part.to_owned(), self.span_of(part))
    }

    fn place(&self, at: usize) -> usize {
        let count = self.pieces.partition_point(|piece| piece.folded <= at);
        let piece = count.checked_sub(1).and_then(|index| self.pieces.get(index));
        piece.map_or(at, |piece| piece.source + (at - piece.folded))
    }

    fn past(&self, at: usize) -> usize {
        match at.checked_sub(1) {
            Some(last) => self.place(last) + 1,
            None => self.place(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_folded_text_are_those_of_the_source() {
        let mut folded = Folded::default();
        folded.push(10, "RUN a ");
        folded.push(20, "  bc");
        let text = folded.text();
        for (part, want) in [
            (text.get(0..3), Span::new(10, 13)),
            (text.get(4..5), Span::new(14, 15)),
            (text.get(8..10), Span::new(22, 24)),
            (text.get(4..10), Span::new(14, 24)),
            (text.get(0..0), Span::at(10)),
            (text.get(6..6), Span::at(16)),
            (text.get(10..10), Span::at(24)),
        ] {
            assert_eq!(folded.span_of(part.unwrap()), want, "{part:?}");
        }
    }
}
