//! The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: `*` and `?`, no brackets.

/// One step of a pattern.
///
/// grammar: pattern_part
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Atom {
    Literal(char),
    AnyChar,
    AnyText,
}

/// How much a pattern is to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Shortest,
    Longest,
}

/// A pattern ready for matching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    atoms: Vec<Atom>,
}

impl Pattern {
    /// Reads a pattern. `\*`, `\?` and `\\` stand for the character; `\}` and `\/` too, because
    /// those end parts of an expression.
    ///
    /// The error is the escape that makes no sense.
    ///
    /// grammar: pattern
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut atoms = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            atoms.push(match char {
                '*' => Atom::AnyText,
                '?' => Atom::AnyChar,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Atom::Literal(escaped),
                    Some(other) => return Err(format!("\\{other}")),
                    None => return Err("\\".to_owned()),
                },
                other => Atom::Literal(other),
            });
        }
        Ok(Self { atoms })
    }

    /// What is left of `value` without a matching prefix.
    pub(super) fn trim_prefix<'a>(&self, value: &'a str, reach: Reach) -> &'a str {
        self.match_at_start(value, reach).and_then(|end| value.get(end..)).unwrap_or(value)
    }

    /// What is left of `value` without a matching suffix.
    pub(super) fn trim_suffix<'a>(&self, value: &'a str, reach: Reach) -> &'a str {
        let mut starts: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
        starts.push(value.len());
        if reach == Reach::Shortest {
            starts.reverse();
        }
        starts
            .into_iter()
            .find(|&start| value.get(start..).is_some_and(|tail| self.matches(tail)))
            .and_then(|start| value.get(..start))
            .unwrap_or(value)
    }

    /// Replaces the first match (the longest that starts there), or every one.
    ///
    /// A match of nothing right after another match is none, so that `*` replaces once. `None` when
    /// the result would be longer than `max_bytes`.
    pub(super) fn replace(
        &self,
        value: &str,
        with: &str,
        all: bool,
        max_bytes: usize,
    ) -> Option<String> {
        let mut result = String::with_capacity(value.len());
        let mut rest = value;
        let mut after_match = false;
        loop {
            let end =
                self.match_at_start(rest, Reach::Longest).filter(|&end| end > 0 || !after_match);
            if let Some(end) = end {
                result.push_str(with);
                rest = rest.get(end..).unwrap_or("");
                if result.len() > max_bytes {
                    return None;
                }
                if !all {
                    break;
                }
            }
            after_match = end.is_some_and(|end| end > 0);
            if after_match {
                continue;
            }
            let mut chars = rest.chars();
            let Some(char) = chars.next() else { break };
            result.push(char);
            rest = chars.as_str();
        }
        result.push_str(rest);
        Some(result).filter(|result| result.len() <= max_bytes)
    }

    fn matches(&self, text: &str) -> bool {
        self.match_at_start(text, Reach::Longest) == Some(text.len())
    }

    /// The end of the shortest or longest match that starts where `text` starts.
    fn match_at_start(&self, text: &str, reach: Reach) -> Option<usize> {
        // All ways to match are followed at once: `states` holds how many atoms are behind each.
        let mut states = vec![false; self.atoms.len() + 1];
        if let Some(first) = states.first_mut() {
            *first = true;
        }
        self.skip_stars(&mut states);
        let mut found = self.accepts(&states).then_some(0);
        for (at, char) in text.char_indices() {
            if found.is_some() && reach == Reach::Shortest {
                break;
            }
            states = self.step(&states, char);
            if !states.contains(&true) {
                break;
            }
            if self.accepts(&states) {
                found = Some(at + char.len_utf8());
            }
        }
        found
    }

    fn accepts(&self, states: &[bool]) -> bool {
        states.get(self.atoms.len()).copied().unwrap_or(false)
    }

    fn step(&self, states: &[bool], char: char) -> Vec<bool> {
        let mut next = vec![false; states.len()];
        for (at, atom) in self.atoms.iter().enumerate() {
            if !states.get(at).copied().unwrap_or(false) {
                continue;
            }
            let to = match atom {
                Atom::Literal(literal) if *literal == char => at + 1,
                Atom::Literal(_) => continue,
                Atom::AnyChar => at + 1,
                Atom::AnyText => at,
            };
            if let Some(state) = next.get_mut(to) {
                *state = true;
            }
        }
        self.skip_stars(&mut next);
        next
    }

    fn skip_stars(&self, states: &mut [bool]) {
        for (at, atom) in self.atoms.iter().enumerate() {
            let here = states.get(at).copied().unwrap_or(false);
            if here
                && *atom == Atom::AnyText
                && let Some(state) = states.get_mut(at + 1)
            {
                *state = true;
            }
        }
    }
}
