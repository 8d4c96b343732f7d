//! The smallest parsers: blanks and words between them.

use nom::bytes::complete::{take_till1, take_while, take_while1};
use nom::{IResult, Parser as _};

/// What separates words. A line feed is none: it never gets into a folded line.
///
/// grammar: space
/// grammar: blank
pub(super) const fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\x0b' | '\x0c' | '\r')
}

/// grammar: spaces
pub(super) fn blanks0(input: &str) -> IResult<&str, &str> {
    take_while(is_blank).parse(input)
}

/// grammar: blanks
pub(super) fn blanks1(input: &str) -> IResult<&str, &str> {
    take_while1(is_blank).parse(input)
}

/// A run of anything but blanks.
pub(super) fn bare_word(input: &str) -> IResult<&str, &str> {
    take_till1(is_blank).parse(input)
}

/// `input` without blanks at its ends.
pub(super) fn trim(input: &str) -> &str {
    input.trim_matches(is_blank)
}

/// The words of `input`, separated by blanks alone.
pub(super) fn bare_words(input: &str) -> Vec<&str> {
    input.split(is_blank).filter(|word| !word.is_empty()).collect()
}
