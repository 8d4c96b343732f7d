//! Finds the most similar of some known names, for "did you mean".

/// Finds the candidate most similar to `word`, ignoring ASCII case.
///
/// At most one edit in three characters is allowed. A candidate equal to `word` does not count.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(edits, _)| (1..=limit).contains(edits))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Returns the number of insertions, deletions, replacements and swaps of adjacent characters from `a`
/// to `b`: the restricted Damerau-Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous_a = None;
    for (row, char_a) in a.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, &char_b) in b.iter().enumerate() {
            let at =
                |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let replace = at(&last, column) + usize::from(char_a != char_b);
            let mut best = replace.min(at(&last, column + 1) + 1).min(at(&current, column) + 1);
            let swapped =
                column > 0 && previous_a == Some(char_b) && b.get(column - 1) == Some(&char_a);
            if swapped {
                best = best.min(at(&before_last, column - 1) + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
        previous_a = Some(char_a);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_the_intended_word() {
        let known = ["RUN", "COPY", "ENTRYPOINT", "WORKDIR"];
        for (typed, want) in [
            ("RNU", Some("RUN")),
            ("coppy", Some("COPY")),
            ("ENTRYPONT", Some("ENTRYPOINT")),
            ("WROKDIR", Some("WORKDIR")),
            ("FETCH", None),
            ("RUN", None),
        ] {
            assert_eq!(nearest(typed, known), want, "{typed}");
        }
    }
}
