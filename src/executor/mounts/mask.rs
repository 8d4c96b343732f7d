//! Masks the values of secrets in the output of steps.

use std::borrow::Cow;

/// Replacement for a value.
const STARS: &[u8] = b"****";
/// Minimum length of a masked value. A single byte occurs in every text: to mask it would only
/// destroy the text.
const MIN_VALUE_BYTES: usize = 2;
/// Minimum length of a line of a value to be masked by itself.
const MIN_LINE_BYTES: usize = 8;

/// The values that a step's output must not show.
#[derive(Default)]
pub(in crate::executor) struct Mask {
    /// Longest first, so that of two values with the same beginning the whole is masked.
    values: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").field("n_values", &self.values.len()).finish()
    }
}

/// One output stream, whose end may be the beginning of a value.
#[derive(Default)]
pub(in crate::executor) struct MaskedStream {
    held: Vec<u8>,
}

impl Mask {
    /// Masks `value`, with or without a line end, and each of its longer lines.
    pub(in crate::executor) fn add(&mut self, value: &[u8]) {
        let whole = value.trim_ascii_end();
        let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let lines = lines.filter(|line| line.len() >= MIN_LINE_BYTES);
        for hidden in lines.chain([whole]) {
            let is_new = !self.values.iter().any(|known| known == hidden);
            if hidden.len() >= MIN_VALUE_BYTES && is_new {
                self.values.push(hidden.to_vec());
            }
        }
        self.values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// Returns the part of the stream that can be shown now.
    pub(in crate::executor) fn pass<'a>(
        &self,
        stream: &mut MaskedStream,
        bytes: &'a [u8],
    ) -> Cow<'a, [u8]> {
        if self.values.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut all = std::mem::take(&mut stream.held);
        all.extend_from_slice(bytes);
        let (shown, held) = self.masked(&all, false);
        stream.held = held.to_vec();
        Cow::Owned(shown)
    }

    /// Returns the rest of the stream, which no more bytes can complete to a value.
    pub(in crate::executor) fn end(&self, stream: &MaskedStream) -> Vec<u8> {
        self.masked(&stream.held, true).0
    }

    /// Returns the masked text, and its end that more bytes could complete to a value.
    fn masked<'a>(&self, all: &'a [u8], is_end: bool) -> (Vec<u8>, &'a [u8]) {
        let mut shown = Vec::with_capacity(all.len());
        let mut rest = all;
        while let Some((first, after)) = rest.split_first() {
            let could_become =
                |value: &Vec<u8>| value.len() > rest.len() && value.starts_with(rest);
            if !is_end && self.values.iter().any(could_become) {
                return (shown, rest);
            }
            let whole = self.values.iter().find_map(|value| rest.strip_prefix(value.as_slice()));
            match whole {
                Some(after) => {
                    shown.extend_from_slice(STARS);
                    rest = after;
                }
                None => {
                    shown.push(*first);
                    rest = after;
                }
            }
        }
        (shown, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the chunks as they are shown, and the rest at the end.
    fn shown(values: &[&str], chunks: &[&str]) -> String {
        let mut mask = Mask::default();
        for value in values {
            mask.add(value.as_bytes());
        }
        let mut stream = MaskedStream::default();
        let mut text = Vec::new();
        for chunk in chunks {
            text.extend_from_slice(&mask.pass(&mut stream, chunk.as_bytes()));
        }
        text.extend(mask.end(&stream));
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn values_are_masked_across_chunks() {
        for (values, chunks, want) in [
            (["secret"].as_slice(), ["a secret b"].as_slice(), "a **** b"),
            (&["secret\n"], &["a secret\n"], "a ****\n"),
            (&["secret"], &["a sec", "ret b"], "a **** b"),
            (&["secret"], &["s", "e", "c", "r", "e", "t"], "****"),
            (&["secret"], &["a sec", "tor"], "a sector"),
            (&["secret"], &["sesecret"], "se****"),
            (&["secret"], &["end sec"], "end sec"),
            (&["abc", "abcdef"], &["abc", "def abc"], "**** ****"),
            (&["first line\nsecond line\n"], &["second line\n"], "****\n"),
            (&["", "x"], &["xyz"], "xyz"),
            (&[], &["plain"], "plain"),
        ] {
            assert_eq!(shown(values, chunks), want, "{values:?} {chunks:?}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let mut mask = Mask::default();
        mask.add(b"secret");
        assert_eq!(format!("{mask:?}"), "Mask { n_values: 1 }");
    }
}
