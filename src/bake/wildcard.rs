//! Patterns of target names (Go's `path.Match`, without separators).

/// Returns whether a name matches a pattern with `*`, `?` and `[a-z]`.
#[must_use]
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    matches_from(&pattern, &name)
}

/// Returns whether a text is a pattern.
#[must_use]
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', ']'])
}

fn matches_from(mut pattern: &[char], mut name: &[char]) -> bool {
    // Position after the last star, and the name that it has to match.
    let mut star: Option<(&[char], &[char])> = None;
    loop {
        let step = match (pattern.split_first(), name.split_first()) {
            (Some(('*', rest)), _) => {
                star = Some((rest, name));
                pattern = rest;
                continue;
            }
            (None, None) => return true,
            (Some((_, _)), Some((c, rest))) => one(pattern, *c).map(|after| (after, rest)),
            (_, None) | (None, _) => None,
        };
        if let Some((after, rest)) = step {
            (pattern, name) = (after, rest);
            continue;
        }
        // The last star takes one character more.
        match star {
            Some((after, tried)) if !tried.is_empty() => {
                let tried = tried.get(1..).unwrap_or(&[]);
                star = Some((after, tried));
                (pattern, name) = (after, tried);
            }
            _ => return false,
        }
    }
}

/// Matches one character with the start of a pattern. Returns the rest of the pattern.
fn one(pattern: &[char], c: char) -> Option<&[char]> {
    match pattern.split_first()? {
        ('?', rest) => Some(rest),
        ('[', rest) => class(rest, c),
        ('\\', rest) => {
            let (literal, rest) = rest.split_first()?;
            (*literal == c).then_some(rest)
        }
        (literal, rest) => (*literal == c).then_some(rest),
    }
}

fn class(pattern: &[char], c: char) -> Option<&[char]> {
    let (negated, mut rest) = match pattern.split_first()? {
        ('^', rest) => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    let mut first = true;
    loop {
        let (low, after) = rest.split_first()?;
        if *low == ']' && !first {
            return (found != negated).then_some(after);
        }
        first = false;
        let (high, after) = match after {
            ['-', high, after @ ..] => (high, after),
            _ => (low, after),
        };
        found |= (*low..=*high).contains(&c);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "app", true),
            ("a*p", "app", true),
            ("a*p", "apple", false),
            ("?pp", "app", true),
            ("[a-c]pp", "app", true),
            ("[^a-c]pp", "app", false),
            ("a*b*c", "axxbyyc", true),
            ("", "", true),
            ("a", "", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
