//! The nearest of some known names, for "did you mean".

/// Finds the candidate that differs least from `word` (ASCII case ignored), if it is near enough
/// to be what was meant: at most one edit in three characters.
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

/// Edits (insert, delete, replace, swap neighbours) from `a` to `b`: the restricted
/// Damerau-Levenshtein distance.
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
    fn nearest_finds_the_word_that_was_meant() {
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
