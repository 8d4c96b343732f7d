//! Text from several parts of the source, such as the lines of a continued instruction.

use nom::Offset as _;

use crate::diag::{Span, Spanned};
use crate::dockerfile::ir::Word;

/// Text with a map from its offsets to offsets of the source.
#[derive(Debug, Clone, Default)]
pub(super) struct FoldedText {
    text: String,
    segments: Vec<Segment>,
}

/// A part of the text that is contiguous in the source.
#[derive(Debug, Clone, Copy)]
struct Segment {
    /// Offset in the text.
    folded: usize,
    /// Offset in the source.
    source: usize,
}

impl FoldedText {
    /// Appends `text`, which begins at offset `source` of the source.
    pub(super) fn push(&mut self, source: usize, text: &str) {
        if text.is_empty() && !self.segments.is_empty() {
            return;
        }
        self.segments.push(Segment { folded: self.text.len(), source });
        self.text.push_str(text);
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the source span of `part`, a slice of [`Self::text`].
    pub(super) fn span_of(&self, part: &str) -> Span {
        let start = self.text.offset(part);
        if part.is_empty() {
            // Something missing is shown right after the text before it.
            return Span::at(self.source_end(start));
        }
        Span::new(self.source_offset(start), self.source_end(start + part.len()))
    }

    /// Makes a word of `part`, a slice of [`Self::text`].
    pub(super) fn word(&self, part: &str) -> Word {
        Spanned::new(part.to_owned(), self.span_of(part))
    }

    /// Maps an offset of the text to the source.
    fn source_offset(&self, at: usize) -> usize {
        let count = self.segments.partition_point(|segment| segment.folded <= at);
        let segment = count.checked_sub(1).and_then(|index| self.segments.get(index));
        segment.map_or(at, |segment| segment.source + (at - segment.folded))
    }

    /// Maps the end of a range to the source: right after the byte before it.
    fn source_end(&self, at: usize) -> usize {
        match at.checked_sub(1) {
            Some(last) => self.source_offset(last) + 1,
            None => self.source_offset(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_folded_text_are_those_of_the_source() {
        let mut folded = FoldedText::default();
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
