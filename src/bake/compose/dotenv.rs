//! Files of environment variables: `.env` and `env_file` (compose-go, `dotenv`).

use std::collections::BTreeMap;

use super::interpolate::{Lookup, expand};

/// Reads `NAME=value` lines. `lookup` finds variables that values refer to.
///
/// # Errors
/// A line is wrong; the message has its number.
pub(super) fn parse(text: &str, lookup: Lookup<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line_number = text.len() - rest.len();
        let line_number = text.get(..line_number).unwrap_or("").matches('\n').count() + 1;
        let failed = |reason: &str| format!("line {line_number}: {reason}");
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            continue;
        }
        let trimmed = trimmed.strip_prefix("export ").unwrap_or(trimmed).trim_start();
        let end = trimmed.find(['=', ':']);
        let Some(end) = end else {
            // A name alone takes the value of the environment.
            if trimmed.contains(char::is_whitespace) {
                return Err(failed("NAME=VALUE is required"));
            }
            found.extend(lookup(trimmed).map(|value| (trimmed.to_owned(), value)));
            rest = after;
            continue;
        };
        let name = trimmed.get(..end).unwrap_or("").trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(failed("the name of a variable is wrong"));
        }
        let value_at = rest.find(['=', ':']).map_or(rest.len(), |at| at + 1);
        let all = rest.get(value_at..).unwrap_or("").trim_start_matches([' ', '\t']);
        let known = |name: &str| lookup(name).or_else(|| found.get(name).cloned());
        let (value, after) = value(all, &known).map_err(|reason| failed(&reason))?;
        found.insert(name.to_owned(), value);
        rest = after;
    }
    Ok(found)
}

/// Reads a value. Returns it and the following lines.
fn value<'a>(all: &'a str, lookup: Lookup<'_>) -> Result<(String, &'a str), String> {
    let after_line = |text: &'a str| text.split_once('\n').map_or("", |(_, after)| after);
    if let Some(quoted) = all.strip_prefix('\'') {
        let (value, after) = quoted.split_once('\'').ok_or("a quote is not closed")?;
        return Ok((value.to_owned(), after_line(after)));
    }
    if let Some(quoted) = all.strip_prefix('"') {
        let mut escaped = false;
        let end = quoted.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let (end, _) = end.ok_or("a quote is not closed")?;
        let value = expand(&unescaped(quoted.get(..end).unwrap_or("")), lookup, 0)?;
        return Ok((value, after_line(quoted.get(end..).unwrap_or(""))));
    }
    let line = all.split('\n').next().unwrap_or("").trim_end_matches('\r');
    let line = line.split(" #").next().unwrap_or(line).trim();
    Ok((expand(line, lookup, 0)?, after_line(all)))
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, false) => out.push(c),
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('$') => out.push_str("$$"),
                Some(other @ ('"' | '\\' | '\'')) => out.push(other),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_be_quoted_and_refer_to_others() {
        let text =
            "# c\nA=1\nexport B=\"x ${A}\\ny\"\nC='$A'\nD=a b # c\nE: e\nHOME\nM=\"a\nb\"\nZ=z\n";
        let lookup = |name: &str| (name == "HOME").then(|| "/h".to_owned());
        let found = parse(text, &lookup).unwrap();
        let value = |name: &str| found.get(name).map(String::as_str);
        assert_eq!(value("A"), Some("1"));
        assert_eq!(value("B"), Some("x 1\ny"));
        assert_eq!(value("C"), Some("$A"));
        assert_eq!(value("D"), Some("a b"));
        assert_eq!(value("E"), Some("e"));
        assert_eq!(value("HOME"), Some("/h"));
        assert_eq!(value("M"), Some("a\nb"));
        assert_eq!(value("Z"), Some("z"));
        assert!(parse("A=\"x", &lookup).unwrap_err().starts_with("line 1"));
    }
}
