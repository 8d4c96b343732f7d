//! The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`, with `*` and `?` but without brackets.
//!
//! A pattern is a list of segments with `*` between them. Each segment is searched once, from the end
//! of the segment before it, so matching takes time in proportion to the text. The first match of a
//! segment is as good as a later one, except for the last segment of a longest match. A search keeps
//! one bit for each character of the segment and handles 64 of them in one operation: the Shift-And
//! algorithm of Baeza-Yates and Gonnet, "A new approach to text searching" (CACM 35, 1992).

use std::collections::HashMap;

use crate::limits::MAX_PATTERN_CHARS;

/// A pattern element that matches one character.
///
/// grammar: pattern_part
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PatternAtom {
    Literal(char),
    AnyChar,
}

/// The reason why a pattern is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PatternError {
    /// A backslash before a character that is not special.
    Escape(String),
    /// More than [`MAX_PATTERN_CHARS`] characters.
    TooLong,
}

/// The preferred length among several possible matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatchLength {
    Shortest,
    Longest,
}

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    first: Vec<PatternAtom>,
    /// Segments after the first, each preceded by a `*`.
    others: Vec<Vec<PatternAtom>>,
}

impl Pattern {
    /// Parses a pattern. A backslash makes `*`, `?` and `\` ordinary characters, and also `}` and `/`,
    /// which would end a part of the expression.
    ///
    /// # Errors
    /// [`PatternError::Escape`] for any other escape, and [`PatternError::TooLong`].
    ///
    /// grammar: pattern
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut pattern = Self { first: Vec::new(), others: Vec::new() };
        let mut chars = text.chars();
        let mut n_chars = 0;
        while let Some(char) = chars.next() {
            n_chars += 1;
            if n_chars > MAX_PATTERN_CHARS {
                return Err(PatternError::TooLong);
            }
            let atom = match char {
                '*' => {
                    // Several stars in a row match what one matches.
                    if pattern.others.last().is_none_or(|segment| !segment.is_empty()) {
                        pattern.others.push(Vec::new());
                    }
                    continue;
                }
                '?' => PatternAtom::AnyChar,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => PatternAtom::Literal(escaped),
                    Some(other) => return Err(PatternError::Escape(format!("\\{other}"))),
                    None => return Err(PatternError::Escape("\\".to_owned())),
                },
                other => PatternAtom::Literal(other),
            };
            pattern.others.last_mut().unwrap_or(&mut pattern.first).push(atom);
        }
        Ok(pattern)
    }

    /// Returns `value` without a matching prefix.
    pub(super) fn trim_prefix<'a>(&self, value: &'a str, length: MatchLength) -> &'a str {
        let text: Vec<char> = value.chars().collect();
        let end = self.match_at_start(&text, length).unwrap_or(0);
        let n_bytes: usize = text.iter().take(end).map(|char| char.len_utf8()).sum();
        value.get(n_bytes..).unwrap_or(value)
    }

    /// Returns `value` without a matching suffix.
    pub(super) fn trim_suffix<'a>(&self, value: &'a str, length: MatchLength) -> &'a str {
        // A suffix is a prefix of the reversed text.
        let text: Vec<char> = value.chars().rev().collect();
        let end = self.reversed().match_at_start(&text, length).unwrap_or(0);
        let n_bytes: usize = text.iter().take(end).map(|char| char.len_utf8()).sum();
        value.get(..value.len().saturating_sub(n_bytes)).unwrap_or(value)
    }

    fn reversed(&self) -> Self {
        let all = self.others.iter().rev().chain([&self.first]);
        let mut segments = all.map(|segment| segment.iter().rev().copied().collect());
        Self { first: segments.next().unwrap_or_default(), others: segments.collect() }
    }

    /// Replaces the first match, or all matches, each as long as possible.
    ///
    /// An empty match directly after another match does not count, so `*` replaces once. Returns
    /// `None` if the result would be longer than `max_bytes`.
    pub(super) fn replace(
        &self,
        value: &str,
        with: &str,
        all: bool,
        max_bytes: usize,
    ) -> Option<String> {
        let text: Vec<char> = value.chars().collect();
        let mut result = String::with_capacity(value.len());
        let mut search = SegmentSearch::new(&self.first);
        let mut at = 0;
        while let Some((start, end)) = self.find(&mut search, &text, at) {
            result.extend(text.get(at..start).unwrap_or_default());
            result.push_str(with);
            at = end;
            // No empty match follows another match directly, so the next one is after a character.
            if self.first.is_empty() {
                let Some(char) = text.get(at) else { break };
                result.push(*char);
                at += 1;
            }
            if result.len() > max_bytes {
                return None;
            }
            if !all {
                break;
            }
        }
        result.extend(text.get(at..).unwrap_or_default());
        Some(result).filter(|result| result.len() <= max_bytes)
    }

    /// Finds the leftmost match at or after `at`, and among those the longest.
    fn find(&self, search: &mut SegmentSearch, text: &[char], at: usize) -> Option<(usize, usize)> {
        let end = search.first(text, at)?;
        // A later start leaves less text for the other segments, so if they fail here, they fail there.
        let end_of_all = self.rest_after(text, end, MatchLength::Longest)?;
        Some((end - self.first.len(), end_of_all))
    }

    /// Returns the end of the shortest or longest match at the start of `text`.
    fn match_at_start(&self, text: &[char], length: MatchLength) -> Option<usize> {
        let start = text.get(..self.first.len())?;
        let fits = self.first.iter().zip(start).all(|(atom, char)| atom.matches(*char));
        fits.then(|| self.rest_after(text, self.first.len(), length)).flatten()
    }

    /// Returns the end of a match whose first segment ends at `at`.
    fn rest_after(&self, text: &[char], mut at: usize, length: MatchLength) -> Option<usize> {
        let Some((last, middle)) = self.others.split_last() else { return Some(at) };
        for segment in middle {
            at = SegmentSearch::new(segment).first(text, at)?;
        }
        match length {
            MatchLength::Shortest => SegmentSearch::new(last).first(text, at),
            MatchLength::Longest => SegmentSearch::new(last).last(text, at),
        }
    }
}

impl PatternAtom {
    fn matches(self, char: char) -> bool {
        match self {
            Self::Literal(literal) => literal == char,
            Self::AnyChar => true,
        }
    }
}

/// A search for one segment.
struct SegmentSearch {
    n_atoms: usize,
    /// For each character of the segment, a bit for each atom that matches it.
    masks: HashMap<char, Vec<u64>>,
    /// The same bits for all other characters.
    others: Vec<u64>,
}

impl SegmentSearch {
    fn new(segment: &[PatternAtom]) -> Self {
        let mut others = vec![0; segment.len().div_ceil(64)];
        for (at, atom) in segment.iter().enumerate() {
            if *atom == PatternAtom::AnyChar {
                set(&mut others, at);
            }
        }
        let mut masks = HashMap::new();
        for (at, atom) in segment.iter().enumerate() {
            if let PatternAtom::Literal(char) = atom {
                set(masks.entry(*char).or_insert_with(|| others.clone()), at);
            }
        }
        Self { n_atoms: segment.len(), masks, others }
    }

    /// Returns the end of the first match at or after `at`.
    fn first(&self, text: &[char], at: usize) -> Option<usize> {
        self.ends(text, at).next()
    }

    /// Returns the end of the last match at or after `at`.
    fn last(&self, text: &[char], at: usize) -> Option<usize> {
        if self.n_atoms == 0 {
            return Some(text.len());
        }
        self.ends(text, at).last()
    }

    /// Iterates over the ends of all matches at or after `at`, in order.
    fn ends<'a>(&'a self, text: &'a [char], at: usize) -> impl Iterator<Item = usize> + 'a {
        let empty = (self.n_atoms == 0).then_some(at);
        // Bit n is set if the last n + 1 characters match the first n + 1 atoms.
        let mut states = vec![0_u64; self.others.len()];
        let found = text.iter().enumerate().skip(at).filter_map(move |(index, char)| {
            let mask = self.masks.get(char).unwrap_or(&self.others);
            let mut carry = 1;
            for (state, mask) in states.iter_mut().zip(mask) {
                let next = *state >> 63;
                *state = ((*state << 1) | carry) & mask;
                carry = next;
            }
            self.accepts(&states).then_some(index + 1)
        });
        empty.into_iter().chain(found)
    }

    fn accepts(&self, states: &[u64]) -> bool {
        let last = self.n_atoms.wrapping_sub(1);
        states.get(last / 64).is_some_and(|state| (state >> (last % 64)) & 1 == 1)
    }
}

fn set(bits: &mut [u64], at: usize) {
    if let Some(word) = bits.get_mut(at / 64) {
        *word |= 1 << (at % 64);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    /// Returns whether all of `text` matches; the simplest definition of a pattern.
    fn fits(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(('*', rest)), _) => (0..=text.len()).any(|at| fits(rest, &text[at..])),
            (Some((wanted, rest)), Some((char, tail))) => {
                (*wanted == '?' || wanted == char) && fits(rest, tail)
            }
            (Some(_), None) => false,
        }
    }

    /// Returns the first or the last of the given ends.
    fn chosen(fitting: impl DoubleEndedIterator<Item = usize>, last: bool) -> Option<usize> {
        let mut fitting = fitting;
        if last { fitting.next_back() } else { fitting.next() }
    }

    fn replaced(pattern: &[char], text: &[char], all: bool) -> String {
        let (mut result, mut at, mut after_match) = (String::new(), 0, false);
        loop {
            let ends = (at..=text.len()).filter(|end| fits(pattern, &text[at..*end]));
            let end = chosen(ends, true).filter(|end| *end > at || !after_match);
            if let Some(end) = end {
                result.push('-');
                after_match = end > at;
                at = end;
                if !all {
                    break;
                }
                if after_match {
                    continue;
                }
            }
            after_match = false;
            let Some(char) = text.get(at) else { break };
            result.push(*char);
            at += 1;
        }
        result.extend(&text[at..]);
        result
    }

    proptest! {
        #[test]
        fn operators_agree_with_the_plain_definition(
            pattern in "[ab?*é]{0,6}",
            value in "[abé]{0,9}",
        ) {
            let parsed = Pattern::parse(&pattern).unwrap();
            let pattern: Vec<char> = pattern.chars().collect();
            let text: Vec<char> = value.chars().collect();
            for (length, last) in [(MatchLength::Shortest, false), (MatchLength::Longest, true)] {
                let ends = (0..=text.len()).filter(|end| fits(&pattern, &text[..*end]));
                let want: String = text[chosen(ends, last).unwrap_or(0)..].iter().collect();
                prop_assert_eq!(parsed.trim_prefix(&value, length), want);
                let starts = (0..=text.len()).filter(|start| fits(&pattern, &text[*start..]));
                let start = chosen(starts, !last).unwrap_or(text.len());
                let want: String = text[..start].iter().collect();
                prop_assert_eq!(parsed.trim_suffix(&value, length), want);
            }
            for all in [false, true] {
                let want = replaced(&pattern, &text, all);
                prop_assert_eq!(parsed.replace(&value, "-", all, 1000), Some(want));
            }
        }
    }

    #[test]
    fn segments_longer_than_a_word_of_bits_are_found() {
        for length in [63, 64, 65, 127, 128, 129, 200] {
            let segment = format!("{}?b", "a".repeat(length - 2));
            let value = format!("xx{}cbyy", "a".repeat(length + 3));
            let pattern = Pattern::parse(&segment).unwrap();
            let want = format!("xx{}-yy", "a".repeat(5));
            assert_eq!(pattern.replace(&value, "-", true, 1000).unwrap(), want, "{length}");
        }
    }

    #[test]
    fn many_stars_and_long_values_take_time_in_proportion() {
        let value = "a".repeat(60_000);
        let stars = format!("{}b", "*a".repeat(30));
        let wild = format!("{}b", "a?".repeat(MAX_PATTERN_CHARS / 2 - 1));
        let started = Instant::now();
        for pattern in [stars.as_str(), wild.as_str(), "*b*b", "?*b"] {
            let pattern = Pattern::parse(pattern).unwrap();
            for length in [MatchLength::Shortest, MatchLength::Longest] {
                assert_eq!(pattern.trim_prefix(&value, length), value);
                assert_eq!(pattern.trim_suffix(&value, length), value);
            }
            for all in [false, true] {
                assert_eq!(pattern.replace(&value, "-", all, 1 << 20).unwrap(), value);
            }
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn too_long_patterns_are_refused() {
        assert!(Pattern::parse(&"?".repeat(MAX_PATTERN_CHARS)).is_ok());
        let error = Pattern::parse(&"?".repeat(MAX_PATTERN_CHARS + 1));
        assert_eq!(error, Err(PatternError::TooLong));
    }
}
