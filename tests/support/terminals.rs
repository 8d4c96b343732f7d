//! The special sequences (`? … ?`) of the grammar, of which `grammar/weights.toml` has samples.
//! Each matches as much as it can.
#![expect(clippy::panic, clippy::string_slice, reason = "tests panic on failure")]

use serde::de::IgnoredAny;

use super::generate::argument;

/// The context of the text that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scene {
    /// The escape character in force.
    pub(crate) escape: char,
    /// True if `'` and `"` quote, which they do not in a heredoc.
    pub(crate) quotes: bool,
}

impl Scene {
    /// Returns how many bytes of `rest` the terminal `name` matches, if it matches.
    pub(crate) fn terminal(self, name: &str, rest: &str) -> Option<usize> {
        let Self { escape, quotes } = self;
        let looks = |holds: bool| holds.then_some(0);
        match name {
            "ESCAPE" => one(rest, |c| c == escape),
            "ESCAPABLE" => one(rest, |_| true),
            "QUOTES" => looks(quotes),
            "PLAIN" => one(rest, |c| {
                !(matches!(c, '$' | '}') || c == escape || (quotes && matches!(c, '\'' | '"')))
            }),
            "SINGLE_TEXT" => some(rest, |c| c != '\''),
            "DOUBLE_TEXT" => one(rest, |c| !matches!(c, '"' | '$') && c != escape),
            "NO_NAME" => looks(
                !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "_{@*#?-$!".contains(c)),
            ),
            "NAME" => variable_name(rest),
            "LETTER" => one(rest, |c| c.is_ascii_alphabetic()),
            "DIGIT" => one(rest, |c| c.is_ascii_digit()),
            "HEX" => one(rest, |c| c.is_ascii_hexdigit()),
            "LETTER_OR_DIGIT" => one(rest, |c| c.is_ascii_alphanumeric()),
            "LOWER_OR_DIGIT" => one(rest, |c| c.is_ascii_digit() || c.is_ascii_lowercase()),
            "HEX_64" => {
                Some(some(rest, |c| matches!(c, '0'..='9' | 'a'..='f'))?).filter(|n| *n == 64)
            }
            "NO_ID" => looks(!is_id(rest)),
            "NO_DOMAIN" => looks(!begins_with_domain(rest)),
            "BOM" => one(rest, |c| c == '\u{feff}'),
            "NO_BOM" => looks(!rest.starts_with('\u{feff}')),
            "COMMENT" => some(rest, |c| c != '\n'),
            "PATTERN_CHAR" => one(rest, |c| !matches!(c, '\\' | '[' | '*' | '?' | '/' | '\n')),
            "OTHER_BLANK" => one(rest, |c| matches!(c, '\r' | '\x0b' | '\x0c')),
            "NOT_BLANK" => looks(!rest.starts_with(is_blank)),
            // Blanks at the end of a line are not part of it.
            "PATTERN_ESCAPABLE" => {
                let line = rest.split('\n').next().unwrap_or(rest);
                one(line, |_| !line.trim().is_empty())
            }
            "CLASS_CHAR" => one(rest, |c| !matches!(c, '\\' | ']' | '-' | '\n')),
            _ => match argument(name) {
                Some(("NOT", text)) => looks(!rest.starts_with(text)),
                Some(_) | None => self.of_instruction(name, rest),
            },
        }
    }

    /// Matches the terminals of `dockerfile.ebnf`.
    fn of_instruction(self, name: &str, rest: &str) -> Option<usize> {
        match name {
            "IMAGE" | "PATH" | "PORT" | "SHELL" | "FLAG_TEXT" => word(rest),
            "PLATFORM" | "MODE" | "CHECKSUM" => Some(word(rest).unwrap_or(0)),
            // Variables are not allowed: stages are known before the build starts.
            "STAGE" => Some(word(rest).unwrap_or(0)).filter(|n| !rest[..*n].contains('$')),
            "LEGACY_NAME" => {
                let first = &rest[..self.quoted_word(rest)];
                word(rest).filter(|_| !first.contains('='))
            }
            "arg_item" => Some(self.quoted_word(rest)).filter(|n| {
                let name = rest[..*n].split('=').next().unwrap_or_default();
                !name.is_empty() && !name.contains('$')
            }),
            "pair" => Some(self.quoted_word(rest))
                .filter(|n| rest[..*n].contains('=') && !rest.starts_with('=')),
            "NO_ARRAY" => serde_json::from_str::<Vec<IgnoredAny>>(rest).is_err().then_some(0),
            "JSON_TEXT" => one(rest, |c| !matches!(c, '"' | '\\') && c >= ' '),
            "NUMBER" => number(rest),
            "UNIT" => longest(rest, &["ns", "us", "µs", "μs", "ms", "s", "m", "h"]),
            "FLAG_BOOLEAN" => {
                let is = |word: &&str| {
                    rest.get(..word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word))
                };
                ["false", "true"].iter().find(|word| is(word)).map(|word| word.len())
            }
            "BOOLEAN" => {
                let words = ["true", "TRUE", "True", "t", "T", "1"];
                let others = ["false", "FALSE", "False", "f", "F", "0"];
                longest(rest, &[words, others].concat())
            }
            _ => panic!("`{name}` has no language here"),
        }
    }

    /// Returns the length of a word that ends at a blank outside of quotes. A quote may stay open.
    fn quoted_word(self, text: &str) -> usize {
        let mut quote = None;
        let mut escaped = false;
        for (at, c) in text.char_indices() {
            match quote {
                _ if escaped => escaped = false,
                Some('\'') if c == '\'' => quote = None,
                Some('\'') => {}
                _ if c == self.escape => escaped = true,
                Some(open) if c == open => quote = None,
                Some(_) => {}
                None if matches!(c, '\'' | '"') => quote = Some(c),
                None if is_blank(c) => return at,
                None => {}
            }
        }
        text.len()
    }
}

/// Returns whether a character separates words of an instruction.
pub(crate) const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0b' | '\x0c' | '\r')
}

fn one(rest: &str, is: impl Fn(char) -> bool) -> Option<usize> {
    rest.chars().next().filter(|c| is(*c)).map(char::len_utf8)
}

fn some(rest: &str, is: impl Fn(char) -> bool) -> Option<usize> {
    Some(rest.find(|c| !is(c)).unwrap_or(rest.len()))
}

fn word(rest: &str) -> Option<usize> {
    some(rest, |c| !is_blank(c)).filter(|n| *n > 0)
}

fn longest(rest: &str, words: &[&str]) -> Option<usize> {
    words.iter().filter(|word| rest.starts_with(**word)).map(|word| word.len()).max()
}

fn variable_name(rest: &str) -> Option<usize> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    some(rest, is_name).filter(|n| *n > 0 && !rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn number(rest: &str) -> Option<usize> {
    let digits =
        |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let whole = digits(rest);
    let Some(fraction) = rest[whole..].strip_prefix('.') else {
        return Some(whole).filter(|n| *n > 0);
    };
    let fraction = digits(fraction);
    (whole + fraction > 0).then_some(whole + 1 + fraction)
}

/// Returns whether the whole text is the id of an image.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns whether the first of several components of an image's name must be a host.
fn begins_with_domain(rest: &str) -> bool {
    let looks_so = |first: &str| {
        first == "localhost" || first.contains(|c: char| c.is_ascii_uppercase() || ".:".contains(c))
    };
    rest.split_once('/').is_some_and(|(first, _)| looks_so(first))
}

/// Returns the instructions of a Dockerfile without directives and heredocs: comments are left out,
/// continued lines are joined.
pub(crate) fn instructions(text: &str, escape: char) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in text.split('\n') {
        let line = line.trim_end_matches('\r');
        let bare = line.trim_start_matches(is_blank);
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let start = open.take();
        let line = if start.is_some() { line } else { bare };
        let joined = start.unwrap_or_default();
        let kept = line.trim_end_matches([' ', '\t']).strip_suffix(escape);
        match kept.filter(|kept| !kept.ends_with(escape)) {
            Some(kept) => open = Some(joined + kept),
            None => found.push(joined + line),
        }
    }
    found.extend(open);
    found.retain(|text| !text.trim_matches(is_blank).is_empty());
    found.iter().map(|text| text.trim_matches(is_blank).to_owned()).collect()
}
