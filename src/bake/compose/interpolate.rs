//! `$NAME` and `${NAME:-default}` in compose files (compose-go, `template`).

use super::yaml::{Node, NodeKind};
use crate::bake::source::BakeError;
use crate::limits::MAX_BAKE_DEPTH;

/// Returns the value of a variable.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces the variables in all texts of a tree.
pub(super) fn interpolate(node: &mut Node, lookup: Lookup<'_>) -> Result<(), BakeError> {
    match &mut node.kind {
        NodeKind::Null => {}
        NodeKind::Scalar(text) if text.contains('$') => {
            *text = expand(text, lookup, 0).map_err(|error| BakeError::at(node.at, error))?;
        }
        NodeKind::Scalar(_) => {}
        NodeKind::List(items) => {
            for item in items {
                interpolate(item, lookup)?;
            }
        }
        NodeKind::Map(members) => {
            for (_, _, value) in members {
                interpolate(value, lookup)?;
            }
        }
    }
    Ok(())
}

/// Replaces variables; `$$` stands for a dollar sign.
pub(super) fn expand(text: &str, lookup: Lookup<'_>, depth: usize) -> Result<String, String> {
    if depth > MAX_BAKE_DEPTH {
        return Err(format!("more than {MAX_BAKE_DEPTH} defaults are inside one another"));
    }
    let bad = || format!("bad use of a variable in {text:?}; write $$ for a dollar sign");
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(braced) = after.strip_prefix('{') {
            let end = closing(braced).ok_or_else(bad)?;
            let (inner, after) = braced.split_at_checked(end).ok_or_else(bad)?;
            out.push_str(&substitute(inner, lookup, depth)?.ok_or_else(bad)?);
            rest = after.get(1..).unwrap_or("");
        } else {
            let end = name_end(after);
            let (name, after) = after.split_at_checked(end).ok_or_else(bad)?;
            if name.is_empty() {
                return Err(bad());
            }
            out.push_str(&lookup(name).unwrap_or_default());
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Returns the length of the name at the start of a text.
fn name_end(text: &str) -> usize {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let other = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    if first { text.find(other).unwrap_or(text.len()) } else { 0 }
}

/// Returns the position of the brace that closes a variable.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        previous = c;
    }
    None
}

/// Evaluates the inside of braces: a name and perhaps an operator. `None` if it is neither.
fn substitute(inner: &str, lookup: Lookup<'_>, depth: usize) -> Result<Option<String>, String> {
    let (name, rest) = match inner.split_at_checked(name_end(inner)) {
        Some((name, rest)) if !name.is_empty() => (name, rest),
        _ => return Ok(None),
    };
    let value = lookup(name);
    let (strict, operator) = match rest.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, rest),
    };
    // With a colon, an empty value counts as missing.
    let present = value.as_ref().is_some_and(|value| !(strict && value.is_empty()));
    let mut chars = operator.chars();
    let operator = chars.next();
    let argument = || expand(chars.as_str(), lookup, depth + 1);
    Ok(match operator {
        None if !strict => Some(value.unwrap_or_default()),
        Some('-') => Some(if present { value.unwrap_or_default() } else { argument()? }),
        Some('+') => Some(if present { argument()? } else { String::new() }),
        Some('?') if present => value,
        Some('?') => {
            let reason = argument()?;
            let reason = if reason.is_empty() { "it is not set".to_owned() } else { reason };
            return Err(format!("the variable {name:?} is required: {reason}"));
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_defaults_are_replaced() {
        let lookup = |name: &str| match name {
            "SET" => Some("v".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let cases = [
            ("$SET-${SET}", "v-v"),
            ("${EMPTY-d}${EMPTY:-d}", "d"),
            ("${NONE-${SET}x}", "vx"),
            ("${SET+yes}${NONE+no}${EMPTY:+no}", "yes"),
            ("$$SET", "$SET"),
            ("${NONE}", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &lookup, 0).as_deref(), Ok(expected), "{text}");
        }
        assert!(expand("${NONE:?say why}", &lookup, 0).unwrap_err().contains("say why"));
        assert!(expand("${", &lookup, 0).is_err() && expand("${a b}", &lookup, 0).is_err());
    }
}
