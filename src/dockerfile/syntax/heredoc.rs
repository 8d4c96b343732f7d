//! Heredoc openings: `<<NAME` in a line of RUN, COPY or ADD.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_till1, take_while};
use nom::character::complete::{anychar, char};
use nom::combinator::{opt, recognize};
use nom::multi::many1_count;
use nom::sequence::{delimited, pair, preceded};
use nom::{IResult, Offset as _, Parser as _};

use crate::dockerfile::ir::Escape;

use super::blank::{bare_word, blanks0, is_blank, trim};
use super::exec_form;
use super::flag;

/// An opening found in a folded line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening<'a> {
    /// The opening as written.
    pub(super) part: &'a str,
    /// Where it stands in the folded line.
    pub(super) at: usize,
    /// The terminator.
    pub(super) name: String,
    /// Whether no part of the name is quoted.
    pub(super) expand: bool,
    /// `<<-`
    pub(super) strip_tabs: bool,
    /// Blanks stand before the name, so that it may be no heredoc but a shift, as in `$((1 << 2))`.
    pub(super) spaced: bool,
}

/// The openings of a folded line, in order; none if its instruction takes none, if it is in JSON
/// form, or if its quotes make no sense (the shell will complain).
pub(super) fn openings(line: &str, escape: Escape) -> Vec<Opening<'_>> {
    let Some(arguments) = heredoc_arguments(line, escape) else { return Vec::new() };
    let (rest, _) = flag::flags(arguments, escape);
    if matches!(exec_form::parse(trim(rest)), exec_form::Parsed::Strings(_)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut input = rest;
    loop {
        let (start, _) = blanks0(input).unwrap_or((input, ""));
        if start.is_empty() {
            return found;
        }
        match opening(start) {
            Ok((after, (part, gap, name))) => {
                if let Some((name, expand)) = unquoted(name) {
                    let at = line.offset(part);
                    let (strip_tabs, spaced) = (gap == "-", gap.starts_with(is_blank));
                    found.push(Opening { part, at, name, expand, strip_tabs, spaced });
                }
                input = after;
            }
            Err(_) => match shell_word(start) {
                Ok((after, _)) => input = after,
                Err(_) => return Vec::new(),
            },
        }
    }
}

/// What follows the keyword if it is one of those that take heredocs, below ONBUILD too.
fn heredoc_arguments(line: &str, escape: Escape) -> Option<&str> {
    let mut word = preceded(blanks0, bare_word);
    let (mut rest, mut keyword) = word.parse(line).ok()?;
    if keyword.eq_ignore_ascii_case("ONBUILD") {
        // Its own flags, of which there are none but the bare dashes, may stand between.
        (rest, keyword) = word.parse(flag::flags(rest, escape).0).ok()?;
    }
    let known = ["RUN", "COPY", "ADD"].iter().any(|name| keyword.eq_ignore_ascii_case(name));
    known.then_some(rest)
}

/// An opening: the whole, the dash or blanks before the name, and the name as written.
///
/// grammar: heredoc_opening
fn opening(input: &str) -> IResult<&str, (&str, &str, &str)> {
    let gap = alt((tag("-"), blanks0));
    let mut head = (take_while(|char: char| char.is_ascii_digit()), tag("<<"), gap);
    let (after, (_, _, gap)) = head.parse(input)?;
    let (rest, name) = shell_word(after)?;
    if name.contains('<') {
        return Err(nom::Err::Error(nom::error::make_error(after, nom::error::ErrorKind::Verify)));
    }
    let part = input.get(..input.offset(rest)).unwrap_or(input);
    Ok((rest, (part, gap, name)))
}

/// One word as a shell would split it, quotes and all. Inside it `\` always escapes, whatever
/// the `escape` directive says.
fn shell_word(input: &str) -> IResult<&str, &str> {
    let plain = take_till1(|char| is_blank(char) || matches!(char, '\'' | '"' | '\\' | '$'));
    let single = recognize(delimited(char('\''), take_till(|char| char == '\''), char('\'')));
    let escaped = recognize(pair(char('\\'), opt(anychar)));
    recognize(many1_count(alt((plain, single, double, escaped, braced, tag("$"))))).parse(input)
}

fn double(input: &str) -> IResult<&str, &str> {
    let plain = take_till1(|char| matches!(char, '"' | '\\'));
    let escaped = recognize(pair(char('\\'), anychar));
    recognize(delimited(char('"'), opt(many1_count(alt((plain, escaped)))), char('"'))).parse(input)
}

fn braced(input: &str) -> IResult<&str, &str> {
    recognize(delimited(tag("${"), take_till(|char| char == '}'), char('}'))).parse(input)
}

/// The name without quotes, and whether there were none; `None` if nothing is left of it.
fn unquoted(written: &str) -> Option<(String, bool)> {
    let mut name = String::new();
    let mut quote = None;
    let mut expand = true;
    let mut chars = written.chars().peekable();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(open), char) if char == open => quote = None,
            (Some('\''), char) => name.push(char),
            (Some(_), '\\') => {
                let escaped = chars.next_if(|next| matches!(next, '"' | '$' | '\\'));
                name.push(escaped.unwrap_or('\\'));
            }
            (None, '\\') => name.extend(chars.next()),
            (None, '\'' | '"') => {
                quote = Some(char);
                expand = false;
            }
            (_, char) => name.push(char),
        }
    }
    (!name.is_empty()).then_some((name, expand))
}
