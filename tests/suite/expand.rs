//! The tables of `testdata/expand`: environment, input, what comes out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rbuild::expand::{self, ExpandError, Expanded};
use rbuild::ir::Escape;

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

/// Checks each line: `NAME=value … | input | expected`, where `expected` is the text, with
/// `; undefined NAME …` if there are such, or `error START..END message`.
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

/// `␤` is a line feed and `␠` a blank at a place where one would not be seen.
fn unescaped(text: &str) -> String {
    text.replace('␤', "\n").replace('␠', " ")
}
