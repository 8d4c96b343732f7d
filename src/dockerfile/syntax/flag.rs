//! Parses flags: `--name=value` directly after the keyword.

use nom::Parser as _;
use nom::branch::alt;
use nom::bytes::complete::{tag, take_till1};
use nom::character::complete::{anychar, char, none_of, satisfy};
use nom::combinator::{map, opt, peek, recognize};
use nom::multi::{fold_many0, many0_count};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Offset as _};

use crate::dockerfile::ir::Escape;

use super::blank::{blanks0, is_blank};

/// A flag as written in the folded line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawFlag<'a> {
    /// The whole flag: a slice of the line.
    pub(super) part: &'a str,
    /// Name between the dashes and `=`.
    pub(super) name: &'a str,
    /// Value after `=`: as written, and without quotes and escapes.
    pub(super) value: Option<(&'a str, String)>,
    /// True if a quote in the value is not closed.
    pub(super) unclosed: bool,
}

/// Parses the flags at the start of `input`, up to a bare `--`.
///
/// grammar: end_of_flags
pub(super) fn flags(input: &str, escape: Escape) -> (&str, Vec<RawFlag<'_>>) {
    let mut found = Vec::new();
    let mut rest = input;
    loop {
        let (start, _) = blanks0(rest).unwrap_or((rest, ""));
        let Ok((after, flag)) = raw_flag(start, escape) else { return (start, found) };
        rest = after;
        if flag.part == "--" {
            return (rest, found);
        }
        found.push(flag);
    }
}

fn raw_flag(input: &str, escape: Escape) -> IResult<&str, RawFlag<'_>> {
    let name = opt(take_till1(|char| is_blank(char) || char == '='));
    let (rest, name) = preceded(tag("--"), name).parse(input)?;
    let (rest, equals) = opt(char('=')).parse(rest)?;
    let value_start = rest;
    let (rest, (value, closed)) = match equals {
        Some(_) => flag_value(rest, escape)?,
        None => (rest, (String::new(), true)),
    };
    let until = |from: &'_ str| from.len() - rest.len();
    Ok((
        rest,
        RawFlag {
            part: input.get(..input.offset(rest)).unwrap_or(input),
            name: name.unwrap_or(""),
            value: equals.map(|_| (value_start.get(..until(value_start)).unwrap_or(""), value)),
            unclosed: !closed,
        },
    ))
}

/// Parses a value; returns it without quotes and escapes, and whether every quote is closed.
///
/// grammar: flag_value
/// grammar: flag_part
fn flag_value(input: &str, escape: Escape) -> IResult<&str, (String, bool)> {
    let escape = escape.char();
    let escaped = || map(preceded(char(escape), opt(anychar)), |char| (char, true));
    let plain = move |input| {
        let mut allowed =
            satisfy(|char| !is_blank(char) && !matches!(char, '\'' | '"') && char != escape);
        allowed.parse(input)
    };
    let quoted = |quote: char| {
        move |input| {
            let start = char(quote);
            let inner = fold_many0(
                alt((
                    map(preceded(char(escape), opt(anychar)), |char: Option<char>| char),
                    map(satisfy(move |char| char != quote && char != escape), Some),
                )),
                String::new,
                |mut text: String, char| {
                    text.extend(char);
                    text
                },
            );
            (preceded(start, inner), opt(char(quote))).parse(input)
        }
    };
    fold_many0(
        alt((
            map(escaped(), |(char, closed)| (String::from_iter(char), closed)),
            map(plain, |char: char| (char.to_string(), true)),
            map(quoted('"'), |(text, end)| (text, end.is_some())),
            map(quoted('\''), |(text, end)| (text, end.is_some())),
        )),
        || (String::new(), true),
        |(mut text, closed), (part, part_closed): (String, bool)| {
            text.push_str(&part);
            (text, closed && part_closed)
        },
    )
    .parse(input)
}

/// Splits a list of `NAME=value` at blanks, except in quotes and after the escape character. The words
/// stay as written.
pub(super) fn quoted_words(input: &str, escape: Escape) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = input;
    loop {
        let (start, _) = blanks0(rest).unwrap_or((rest, ""));
        match quoted_word(start, escape) {
            Ok((after, word)) => {
                found.push(word);
                rest = after;
            }
            Err(_) => return found,
        }
    }
}

fn quoted_word(input: &str, escape: Escape) -> IResult<&str, &str> {
    let (_, _) = peek(anychar).parse(input)?;
    let escape = escape.char();
    let escaped = |input| recognize((char(escape), opt(anychar))).parse(input);
    let plain =
        recognize(satisfy(|char| !is_blank(char) && !matches!(char, '\'' | '"') && char != escape));
    // An unclosed quote extends to the end; expansion reports it.
    let single = recognize(delimited(char('\''), many0_count(none_of("'")), opt(char('\''))));
    let double = recognize(delimited(
        char('"'),
        many0_count(alt((escaped, recognize(satisfy(|char| char != '"' && char != escape))))),
        opt(char('"')),
    ));
    recognize(many0_count(alt((escaped, plain, single, double)))).parse(input)
}
