//! Parses the JSON form of arguments, an array of strings (RFC 8259)
//! (<https://docs.docker.com/reference/dockerfile/#exec-form>).

use nom::branch::alt;
use nom::bytes::complete::{is_a, take_till1, take_while_m_n};
use nom::character::complete::{anychar, char};
use nom::combinator::{all_consuming, consumed, map, map_opt, opt};
use nom::multi::{fold_many0, separated_list0};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser as _};
use serde::de::IgnoredAny;

/// The result of parsing arguments as a JSON array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JsonForm<'a> {
    /// Not a JSON array; the arguments are text.
    Text,
    /// An array of strings: each as written, with quotes, and decoded.
    Strings(Vec<(&'a str, String)>),
    /// An array with an element that is not a string.
    NotStrings,
}

/// Parses `arguments`, which must not have leading or trailing blanks.
///
/// grammar: exec_form
pub(super) fn parse(arguments: &str) -> JsonForm<'_> {
    if !arguments.starts_with('[') {
        return JsonForm::Text;
    }
    if let Ok((_, strings)) = all_consuming(array).parse(arguments) {
        return JsonForm::Strings(strings);
    }
    match serde_json::from_str::<Vec<IgnoredAny>>(arguments) {
        Ok(_) => JsonForm::NotStrings,
        Err(_) => JsonForm::Text,
    }
}

/// grammar: exec_words
/// grammar: json_comma
fn array(input: &str) -> IResult<&str, Vec<(&str, String)>> {
    delimited(
        (char('['), space),
        separated_list0((space, char(','), space), consumed(string)),
        (space, char(']')),
    )
    .parse(input)
}

/// Parses JSON whitespace (RFC 8259, section 2).
///
/// grammar: json_space
fn space(input: &str) -> IResult<&str, Option<&str>> {
    opt(is_a(" \t\r\n")).parse(input)
}

/// grammar: json_string
/// grammar: json_part
fn string(input: &str) -> IResult<&str, String> {
    let plain = take_till1(|char: char| matches!(char, '"' | '\\') || char < ' ');
    let part = alt((
        map(plain, str::to_owned),
        map(preceded(char('\\'), escaped), |char| char.to_string()),
    ));
    let text = fold_many0(part, String::new, |mut text: String, part| {
        text.push_str(&part);
        text
    });
    delimited(char('"'), text, char('"')).parse(input)
}

/// Parses the characters after a backslash.
///
/// grammar: json_escape
fn escaped(input: &str) -> IResult<&str, char> {
    alt((
        map_opt(anychar, |char| match char {
            '"' | '\\' | '/' => Some(char),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            _ => None,
        }),
        surrogates,
        // A lone surrogate is not a character.
        map(unit, |unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)),
    ))
    .parse(input)
}

fn surrogates(input: &str) -> IResult<&str, char> {
    map_opt((unit, preceded(char('\\'), unit)), |(high, low)| {
        char::decode_utf16([u16::try_from(high).ok()?, u16::try_from(low).ok()?])
            .next()
            .and_then(Result::ok)
            .filter(|char| *char > '\u{ffff}')
    })
    .parse(input)
}

fn unit(input: &str) -> IResult<&str, u32> {
    let digits = take_while_m_n(4, 4, |char: char| char.is_ascii_hexdigit());
    preceded(char('u'), map_opt(digits, |digits| u32::from_str_radix(digits, 16).ok())).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_of_strings_is_decoded_and_anything_else_is_not() {
        for (text, want) in [
            ("[]", "[]"),
            ("[ ]", "[]"),
            (r#"["a" , "b c"]"#, r#"["a", "b c"]"#),
            (r#"["\u00e9\n\"\\\/"]"#, r#"["é\n\"\\/"]"#),
            (r#"["\ud83d\ude00\ud800x"]"#, "[\"😀\u{fffd}x\"]"),
            ("['a']", "text"),
            (r#"["a",]"#, "text"),
            (r#"["a"] b"#, "text"),
            ("[\"a\tb\"]", "text"),
            (r#"["\x"]"#, "text"),
            (r#"["a", 1]"#, "not strings"),
            ("[null]", "not strings"),
            (r#"[["a"]]"#, "not strings"),
        ] {
            let got = match parse(text) {
                JsonForm::Strings(strings) => {
                    format!("{:?}", strings.into_iter().map(|(_, text)| text).collect::<Vec<_>>())
                }
                JsonForm::NotStrings => "not strings".to_owned(),
                JsonForm::Text => "text".to_owned(),
            };
            assert_eq!(got, want, "{text}");
        }
    }
}
