//! Parsers for blanks and for the words between them.

use nom::bytes::complete::{take_till1, take_while, take_while1};
use nom::{IResult, Parser as _};

/// Returns whether a character separates words. A line feed does not: folded lines have none.
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

/// Parses characters up to the next blank, at least one.
pub(super) fn bare_word(input: &str) -> IResult<&str, &str> {
    take_till1(is_blank).parse(input)
}

/// Returns `input` without leading and trailing blanks.
pub(super) fn trim(input: &str) -> &str {
    input.trim_matches(is_blank)
}

/// Splits `input` at blanks; quotes and escapes have no effect.
pub(super) fn bare_words(input: &str) -> Vec<&str> {
    input.split(is_blank).filter(|word| !word.is_empty()).collect()
}
