//! Regular expressions. Go's syntax and that of the `regex` crate are both RE2's.

use std::collections::BTreeMap;

use regex::{Captures, Regex, RegexBuilder};

use super::arguments::text;
use super::{Function, Outcome, Param, Run};
use crate::bake::value::{Type, Value, convert};
use crate::limits::MAX_BAKE_PATTERN_BYTES;

const fn function(
    name: &'static str,
    params: &'static [Param],
    run: fn(&[Value]) -> Outcome,
) -> Function {
    Function { name, params, variadic: None, run: Run::Pure(run) }
}

const TWO: &[Param] = &[Param::Text, Param::Text];

pub(super) const FUNCTIONS: &[Function] = &[
    function("regex", TWO, |a| {
        let pattern = compile(text(a, 0)?)?;
        let found = pattern.captures(text(a, 1)?);
        found
            .ok_or("the pattern matches no part of the text".to_owned())
            .and_then(|found| groups(&pattern, &found))
    }),
    function("regex_replace", &[Param::Text, Param::Text, Param::Text], |a| {
        let pattern = compile(text(a, 1)?)?;
        Ok(Value::text(pattern.replace_all(text(a, 0)?, text(a, 2)?)))
    }),
    function("regexall", TWO, |a| {
        let pattern = compile(text(a, 0)?)?;
        let all = pattern.captures_iter(text(a, 1)?).map(|found| groups(&pattern, &found));
        let all: Vec<Value> = all.collect::<Result<_, _>>()?;
        if all.is_empty() {
            return Ok(Value::List(Type::String, all));
        }
        convert(&Value::Tuple(all), &Type::Dynamic.list())
    }),
];

fn compile(pattern: &str) -> Result<Regex, String> {
    let regex = RegexBuilder::new(pattern).size_limit(MAX_BAKE_PATTERN_BYTES).build();
    regex.map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or("").trim_start_matches("error: ");
        format!("the pattern {pattern:?} is wrong: {reason}")
    })
}

/// Returns the match: a text, or its groups as a tuple or by name.
fn groups(pattern: &Regex, found: &Captures<'_>) -> Outcome {
    let text = |at: usize| match found.get(at) {
        Some(part) => Value::text(part.as_str()),
        None => Value::Null(Type::String),
    };
    let names: Vec<Option<&str>> = pattern.capture_names().skip(1).collect();
    let n_named = names.iter().flatten().count();
    match (names.len(), n_named) {
        (0, _) => Ok(text(0)),
        (n, 0) => Ok(Value::Tuple((1..=n).map(text).collect())),
        (n, named) if n == named => {
            let names = names.iter().flatten().enumerate();
            let members = names.map(|(at, name)| ((*name).to_owned(), text(at + 1)));
            Ok(Value::Object(members.collect::<BTreeMap<_, _>>()))
        }
        _ => Err("the pattern has groups with and without a name".to_owned()),
    }
}
