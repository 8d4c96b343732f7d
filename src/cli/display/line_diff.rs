//! Two texts of mostly the same lines, compared: what `diff -U0` prints.

use std::fmt::Write as _;

/// How far ahead equal lines are looked for.
const MAX_AHEAD: usize = 64;

/// The lines that differ, with their numbers; the texts are called `name`.
pub(crate) fn line_diff(name: &str, old: &str, new: &str) -> String {
    let old: Vec<&str> = old.lines().collect();
    let new: Vec<&str> = new.lines().collect();
    let mut text = format!("--- {name}\n+++ {name}\n");
    let (mut a, mut b) = (0, 0);
    while a < old.len() || b < new.len() {
        if a < old.len() && old.get(a) == new.get(b) {
            (a, b) = (a + 1, b + 1);
            continue;
        }
        let (gone, come) = next_equal(&old, &new, a, b);
        let lines = |at: usize, count: usize| {
            // A range of no lines is named by the line above it.
            let first = if count == 0 { at } else { at + 1 };
            if count == 1 { first.to_string() } else { format!("{first},{count}") }
        };
        // Writing to a string does not fail.
        let _written = writeln!(text, "@@ -{} +{} @@", lines(a, gone), lines(b, come));
        for line in old.iter().skip(a).take(gone) {
            text.push_str(&format!("-{line}\n"));
        }
        for line in new.iter().skip(b).take(come) {
            text.push_str(&format!("+{line}\n"));
        }
        (a, b) = (a + gone, b + come);
    }
    text
}

/// How many lines of each differ until they agree again.
fn next_equal(old: &[&str], new: &[&str], a: usize, b: usize) -> (usize, usize) {
    for sum in 1..=MAX_AHEAD {
        for gone in (0..=sum).rev() {
            let come = sum - gone;
            let ends = a + gone == old.len() && b + come == new.len();
            let both = old.get(a + gone).is_some() && old.get(a + gone) == new.get(b + come);
            if ends || both {
                return (gone, come);
            }
        }
    }
    (old.len() - a, new.len() - b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_shown_with_their_numbers() {
        for (old, new, want) in [
            ("a\nb\nc\n", "a\nb\nc\n", ""),
            ("a\nb\nc\n", "a\nB\nc\n", "@@ -2 +2 @@\n-b\n+B\n"),
            ("a\n\n\nc\n", "a\nc\n", "@@ -2,2 +1,0 @@\n-\n-\n"),
            ("a\n", "a\nb\n", "@@ -1,0 +2 @@\n+b\n"),
            ("a\nb\nc\nd\n", "A\nb\nc\nD\n", "@@ -1 +1 @@\n-a\n+A\n@@ -4 +4 @@\n-d\n+D\n"),
            ("a\nb\n", "", "@@ -1,2 +0,0 @@\n-a\n-b\n"),
        ] {
            let want = format!("--- f\n+++ f\n{want}");
            assert_eq!(line_diff("f", old, new), want);
        }
    }
}
