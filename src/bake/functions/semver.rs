//! Versions and constraints on them (github.com/Masterminds/semver, version 3).

use std::cmp::Ordering;

use super::arguments::text;
use super::{Function, Param, Run};
use crate::bake::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[Function {
    name: "semvercmp",
    params: &[Param::Text, Param::Text],
    variadic: None,
    run: Run::Pure(|a| {
        let version = Version::parse(text(a, 0)?)?;
        Ok(Value::Bool(satisfies(&version, text(a, 1)?)?))
    }),
}];

/// A version; missing numbers are zero.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    numbers: [u64; 3],
    /// Number of the given numbers; `x` and `*` are not.
    n_given: usize,
    pre: Vec<String>,
}

impl Version {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a version such as 1.2.3");
        let rest = text.strip_prefix('v').unwrap_or(text);
        let rest = rest.split_once('+').map_or(rest, |(rest, _build)| rest);
        let (numbers, pre) = match rest.split_once('-') {
            Some((numbers, pre)) => (numbers, pre.split('.').map(str::to_owned).collect()),
            None => (rest, Vec::new()),
        };
        let mut parsed = Self { numbers: [0; 3], n_given: 0, pre };
        let parts: Vec<&str> = numbers.split('.').collect();
        let empty = parsed.pre.iter().any(String::is_empty);
        if parts.len() > 3 || empty {
            return Err(bad());
        }
        for (slot, part) in parsed.numbers.iter_mut().zip(&parts) {
            if matches!(*part, "x" | "X" | "*") {
                break;
            }
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            *slot = part.parse().ok().filter(|_| digits).ok_or_else(bad)?;
            parsed.n_given += 1;
        }
        Ok(parsed)
    }

    /// Orders by precedence (semver.org, section 11).
    fn order(&self, other: &Self) -> Ordering {
        let numbers = self.numbers.cmp(&other.numbers);
        numbers.then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let pairs = self.pre.iter().zip(&other.pre).map(|(a, b)| identifiers(a, b));
                let first = pairs.into_iter().find(|order| order.is_ne());
                first.unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
            }
        })
    }

    /// Returns the version below which the same numbers up to `at` stay.
    fn next(&self, at: usize) -> Self {
        let mut numbers = self.numbers;
        for (position, number) in numbers.iter_mut().enumerate() {
            match position.cmp(&at) {
                Ordering::Less => {}
                Ordering::Equal => *number = number.saturating_add(1),
                Ordering::Greater => *number = 0,
            }
        }
        Self { numbers, n_given: 3, pre: Vec::new() }
    }
}

fn identifiers(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

/// Returns whether a version satisfies one of the alternatives between `||`.
fn satisfies(version: &Version, constraint: &str) -> Result<bool, String> {
    let mut any = false;
    for alternative in constraint.split("||") {
        let mut all = true;
        for (operator, wanted) in conditions(alternative)? {
            all &= holds(version, operator, &Version::parse(&wanted)?)?;
        }
        any |= all;
    }
    Ok(any)
}

/// Splits conditions, which commas or blanks separate. `a - b` is a range.
fn conditions(text: &str) -> Result<Vec<(&str, String)>, String> {
    if let Some((from, to)) = text.split_once(" - ") {
        return Ok(vec![(">=", from.trim().to_owned()), ("<=", to.trim().to_owned())]);
    }
    let bad = || format!("{text:?} is not a constraint such as >= 1.2, < 2");
    let mut found = Vec::new();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !"=<>!~^".contains(c)).ok_or_else(bad)?;
        let (operator, after) = rest.split_at_checked(end).ok_or_else(bad)?;
        let after = after.trim_start();
        let end = after.find([',', ' ']).unwrap_or(after.len());
        let (version, after) = after.split_at_checked(end).ok_or_else(bad)?;
        found.push((operator, version.to_owned()));
        rest = after.trim_start_matches([',', ' ']);
    }
    Ok(found)
}

fn holds(version: &Version, operator: &str, wanted: &Version) -> Result<bool, String> {
    // A pre-release is only meant where the constraint names one.
    if !version.pre.is_empty() && wanted.pre.is_empty() && operator != "!=" {
        return Ok(false);
    }
    let order = version.order(wanted);
    let partial = wanted.n_given < 3;
    let below = |at: usize| version.order(&wanted.next(at)).is_lt();
    // A partial version stands for all versions that begin with its numbers.
    let inside = wanted.n_given == 0 || (order.is_ge() && below(wanted.n_given - 1));
    let tilde = |at: usize| wanted.n_given == 0 || (order.is_ge() && below(at));
    Ok(match operator {
        "" | "=" | "==" if partial => inside,
        "" | "=" | "==" => order.is_eq(),
        "!=" if partial => !inside,
        "!=" => order.is_ne(),
        ">" if partial => !inside && order.is_gt(),
        ">" => order.is_gt(),
        ">=" | "=>" => order.is_ge(),
        "<" => order.is_lt(),
        "<=" | "=<" if partial => inside || order.is_lt(),
        "<=" | "=<" => order.is_le(),
        "~" | "~>" => tilde(if wanted.n_given <= 1 { 0 } else { 1 }),
        "^" => {
            let first = wanted.numbers.iter().position(|number| *number != 0);
            tilde(first.unwrap_or(2).min(wanted.n_given.saturating_sub(1)))
        }
        other => return Err(format!("{other:?} is not an operator of constraints")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_hold_as_in_masterminds_semver() {
        let cases = [
            ("1.2.3", ">= 1.0, < 2", true),
            ("1.2.3", "1.2", true),
            ("1.2.3", "1.x", true),
            ("1.2.3", "*", true),
            ("2.0.0", "1.x || >= 2", true),
            ("1.3.0", "~1.2", false),
            ("1.2.9", "~1.2.3", true),
            ("1.9.0", "^1.2.3", true),
            ("0.3.0", "^0.2.3", false),
            ("1.2.3", "!= 1.2.3", false),
            ("1.2.3", "1.0 - 1.3", true),
            ("1.2.3-beta", ">= 1.2", false),
            ("1.2.3-beta", ">= 1.2.3-alpha", true),
            ("v1.2", "= 1.2.0", true),
        ];
        for (version, constraint, expected) in cases {
            let version = Version::parse(version).unwrap();
            assert_eq!(satisfies(&version, constraint), Ok(expected), "{version:?} {constraint}");
        }
        assert!(Version::parse("a.b").is_err());
        assert!(satisfies(&Version::parse("1").unwrap(), "?? 1").is_err());
    }
}
