//! The tables of `testdata/expand`: environment, input, result.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rbuild::diag::{Span, codes};
use rbuild::dockerfile::expand::{self, ExpandError, Expanded};
use rbuild::dockerfile::ir::Escape;

#[test]
fn words_expand_as_the_table_says() {
    check("words.tbl", |text, env| expand::word(text, Escape::Backslash, env));
}

#[test]
fn words_with_a_backtick_expand_as_the_table_says() {
    check("backtick.tbl", |text, env| expand::word(text, Escape::Backtick, env));
}

#[test]
fn heredocs_expand_as_the_table_says() {
    check("heredoc.tbl", |text, env| expand::heredoc(text, env));
}

#[test]
fn lists_split_as_the_table_says() {
    check("lists.tbl", |text, env| {
        let list = expand::words(text, Escape::Backslash, env)?;
        let value = list.value.iter().map(|word| format!("<{word}>")).collect();
        Ok(Expanded { value, undefined: list.undefined })
    });
}

#[test]
fn error_points_into_its_word_or_at_all_of_a_continued_one() {
    let error = expand::word("a${x:=y}", Escape::Backslash, &|_| None).unwrap_err();
    let diagnostic = error.diagnostic(Span::new(100, 108));
    assert_eq!((diagnostic.span, diagnostic.code), (Span::new(104, 106), codes::BAD_SUBSTITUTION));
    // The source is three bytes longer, since the word contains a line continuation.
    let diagnostic = error.diagnostic(Span::new(100, 111));
    assert_eq!(diagnostic.span, Span::new(100, 111));
}

#[test]
fn nesting_beyond_the_limit_is_an_error_and_no_overflow() {
    let text = "${a:-".repeat(20_000);
    let error = expand::word(&text, Escape::Backslash, &|_| None).unwrap_err();
    assert_eq!(error.to_string(), "`${…}` is nested more than 100 deep");
}

/// Checks each line: `NAME=value … | input | expected`, where `expected` is the text, with
/// `; undefined NAME …` if there are undefined names, or `error START..END message`.
fn check(
    table: &str,
    expand: impl Fn(&str, &expand::Lookup<'_>) -> Result<Expanded<String>, ExpandError>,
) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/expand").join(table);
    let text = fs::read_to_string(path).unwrap();
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        let columns: Vec<&str> = line.split(" | ").collect();
        let [env, input, expected] = columns.as_slice() else { panic!("{table}:{}", index + 1) };
        let env: BTreeMap<&str, &str> =
            env.split(' ').filter_map(|pair| pair.split_once('=')).collect();
        let lookup = |name: &str| env.get(name).map(|value| unescaped(value));
        let got = match expand(&unescaped(input), &lookup) {
            Ok(expanded) if expanded.undefined.is_empty() => expanded.value,
            Ok(Expanded { value, undefined }) => {
                format!("{value}; undefined {}", undefined.join(" "))
            }
            Err(error) => format!("error {}..{} {error}", error.at.start, error.at.end),
        };
        let got = format!("[{}]", got.replace('\n', "␤"));
        if got != *expected {
            wrong.push(format!("{table}:{}: {input}\n  want {expected}\n  got  {got}", index + 1));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Replaces `␤` by a line feed, and `␠` by a blank, which would be invisible in some positions.
fn unescaped(text: &str) -> String {
    text.replace('␤', "\n").replace('␠', " ")
}
