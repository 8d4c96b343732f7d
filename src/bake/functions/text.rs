//! Text: case, blanks, parts and paths.

use unicode_segmentation::UnicodeSegmentation as _;

use super::arguments::{sequence, text, whole};
use super::{Function, Outcome, Param, Run};
use crate::bake::value::Value;

const fn function(
    name: &'static str,
    params: &'static [Param],
    run: fn(&[Value]) -> Outcome,
) -> Function {
    Function { name, params, variadic: None, run: Run::Pure(run) }
}

const ONE: &[Param] = &[Param::Text];
const TWO: &[Param] = &[Param::Text, Param::Text];
const THREE: &[Param] = &[Param::Text, Param::Text, Param::Text];

pub(super) const FUNCTIONS: &[Function] = &[
    function("basename", ONE, |a| Ok(Value::text(base(text(a, 0)?)))),
    function("chomp", ONE, |a| Ok(Value::text(text(a, 0)?.trim_end_matches(['\r', '\n'])))),
    function("dirname", ONE, |a| Ok(Value::text(directory(text(a, 0)?)))),
    function("indent", &[Param::Number, Param::Text], |a| {
        let blanks = usize::try_from(whole(a, 0)?).ok().ok_or("the indent is negative")?;
        let blanks = " ".repeat(blanks.min(MAX_INDENT));
        Ok(Value::text(text(a, 1)?.replace('\n', &format!("\n{blanks}"))))
    }),
    Function {
        name: "join",
        params: &[Param::Text],
        variadic: Some(Param::Texts),
        run: Run::Pure(join),
    },
    function("lower", ONE, |a| Ok(Value::text(text(a, 0)?.chars().map(lower).collect::<String>()))),
    function("replace", THREE, |a| Ok(Value::text(text(a, 0)?.replace(text(a, 1)?, text(a, 2)?)))),
    function("reverse", ONE, |a| {
        Ok(Value::text(text(a, 0)?.graphemes(true).rev().collect::<String>()))
    }),
    function("sanitize", ONE, |a| Ok(Value::text(sanitized(text(a, 0)?)))),
    function("split", TWO, |a| Ok(Value::texts(split(text(a, 1)?, text(a, 0)?)))),
    function("strlen", ONE, |a| Ok(Value::count(text(a, 0)?.graphemes(true).count()))),
    function("substr", &[Param::Text, Param::Number, Param::Number], substring),
    function("title", ONE, |a| Ok(Value::text(title(text(a, 0)?)))),
    function("trim", TWO, |a| {
        let cut: Vec<char> = text(a, 1)?.chars().collect();
        Ok(Value::text(text(a, 0)?.trim_matches(cut.as_slice())))
    }),
    function("trimprefix", TWO, |a| {
        let all = text(a, 0)?;
        Ok(Value::text(all.strip_prefix(text(a, 1)?).unwrap_or(all)))
    }),
    function("trimspace", ONE, |a| Ok(Value::text(text(a, 0)?.trim()))),
    function("trimsuffix", TWO, |a| {
        let all = text(a, 0)?;
        Ok(Value::text(all.strip_suffix(text(a, 1)?).unwrap_or(all)))
    }),
    function("upper", ONE, |a| Ok(Value::text(text(a, 0)?.chars().map(upper).collect::<String>()))),
];

/// Largest indent; a deeper one serves no reader.
const MAX_INDENT: usize = 1000;

/// Replaces the characters that a target's name may not have.
fn sanitized(name: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    name.chars().map(|c| if kept(c) { c } else { '_' }).collect()
}

fn split<'a>(all: &'a str, separator: &str) -> Vec<&'a str> {
    if all.is_empty() {
        return vec![""];
    }
    if separator.is_empty() {
        // Go's strings.Split splits between characters then.
        let mut ends = all.char_indices().map(|(at, c)| (at, at + c.len_utf8()));
        return std::iter::from_fn(|| ends.next().and_then(|(from, to)| all.get(from..to)))
            .collect();
    }
    all.split(separator).collect()
}

fn join(values: &[Value]) -> Outcome {
    let separator = text(values, 0)?;
    let mut parts = Vec::new();
    for at in 1..values.len() {
        for part in sequence(values, at)? {
            parts.push(part.as_text().ok_or("an element of the list is null")?);
        }
    }
    Ok(Value::text(parts.join(separator)))
}

/// Returns a part by its first character and its length; a negative start counts from the end.
fn substring(values: &[Value]) -> Outcome {
    let all: Vec<&str> = text(values, 0)?.graphemes(true).collect();
    let (start, length) = (whole(values, 1)?, whole(values, 2)?);
    let n = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let start = if start < 0 { start.saturating_add(n).max(0) } else { start };
    let end = if length < 0 { n } else { start.saturating_add(length).min(n) };
    let part = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let part = part.and_then(|(start, end)| all.get(start..end)).unwrap_or(&[]);
    Ok(Value::text(part.concat()))
}

/// Returns the only character that `mapped` has. Go maps characters one to one: `ß` stays.
fn single(c: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(mapped), None) => mapped,
        _ => c,
    }
}

fn upper(c: char) -> char {
    single(c, c.to_uppercase())
}

fn lower(c: char) -> char {
    single(c, c.to_lowercase())
}

/// Makes the first letter of each word a capital, as Go's `strings.Title` does.
fn title(all: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(all.len());
    for c in all.chars() {
        out.push(if inside { c } else { upper(c) });
        let word = c.is_alphanumeric() || c == '_';
        inside = word || !(c.is_ascii() || c.is_whitespace());
    }
    out
}

/// Returns the last element of a path (Go's `path.Base`).
fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

/// Returns a path without its last element (Go's `path.Dir`).
fn directory(path: &str) -> String {
    let end = path.rfind('/').map_or(0, |at| at + 1);
    crate::bake::paths::clean(path.get(..end).unwrap_or(""))
}
