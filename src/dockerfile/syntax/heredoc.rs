//! Parses heredoc openings: `<<NAME` in a line of RUN, COPY or ADD
//! (<https://docs.docker.com/reference/dockerfile/#here-documents>).

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

/// The opening of a heredoc in a folded line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeredocOpening<'a> {
    /// Opening as written: a slice of the line.
    pub(super) part: &'a str,
    /// Offset in the folded line.
    pub(super) at: usize,
    /// Terminator: the name without quotes.
    pub(super) name: String,
    /// True if no part of the name is quoted.
    pub(super) expand: bool,
    /// True for `<<-`.
    pub(super) strip_tabs: bool,
    /// True if blanks precede the name: it may be a shift, as in `$((1 << 2))`.
    pub(super) spaced: bool,
}

/// Returns the openings of a folded line, in order.
///
/// There are none if the instruction does not take heredocs, if it is in JSON form, or if its quotes
/// are unbalanced (the shell reports that).
pub(super) fn openings(line: &str, escape: Escape) -> Vec<HeredocOpening<'_>> {
    let Some(arguments) = heredoc_arguments(line, escape) else { return Vec::new() };
    let (rest, _) = flag::flags(arguments, escape);
    if matches!(exec_form::parse(trim(rest)), exec_form::JsonForm::Strings(_)) {
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
                    found.push(HeredocOpening { part, at, name, expand, strip_tabs, spaced });
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

/// Returns the text after the keyword if the instruction, or the trigger of an ONBUILD, takes heredocs.
fn heredoc_arguments(line: &str, escape: Escape) -> Option<&str> {
    let mut word = preceded(blanks0, bare_word);
    let (mut rest, mut keyword) = word.parse(line).ok()?;
    if keyword.eq_ignore_ascii_case("ONBUILD") {
        // ONBUILD has no flags, but a bare `--` may precede the trigger.
        (rest, keyword) = word.parse(flag::flags(rest, escape).0).ok()?;
    }
    let known = ["RUN", "COPY", "ADD"].iter().any(|name| keyword.eq_ignore_ascii_case(name));
    known.then_some(rest)
}

/// Parses an opening: returns all of it, the dash or blanks before the name, and the name as written.
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

/// Parses a word as a shell splits it, with its quotes. `\` always escapes here, independent of the
/// `escape` directive.
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

/// Removes the quotes of a name, and returns whether it had none. Returns `None` for an empty name.
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
