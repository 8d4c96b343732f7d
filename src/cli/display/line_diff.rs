//! Differences of two texts, in the unified format of diff(1).

use similar::TextDiff;

/// Returns what `diff -U0` prints for two versions of the file `name`; nothing if they are equal.
pub(crate) fn line_diff(name: &str, old: &str, new: &str) -> String {
    let diff = TextDiff::from_lines(old, new);
    diff.unified_diff().context_radius(0).header(name, name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_shown_with_their_numbers() {
        for (old, new, want) in [
            ("a\nb\nc\n", "a\nB\nc\n", "@@ -2 +2 @@\n-b\n+B\n"),
            ("a\n\n\nc\n", "a\nc\n", "@@ -2,2 +1,0 @@\n-\n-\n"),
            ("a\n", "a\nb\n", "@@ -1,0 +2 @@\n+b\n"),
            ("a\nb\nc\nd\n", "A\nb\nc\nD\n", "@@ -1 +1 @@\n-a\n+A\n@@ -4 +4 @@\n-d\n+D\n"),
            ("a\nb\n", "", "@@ -1,2 +0,0 @@\n-a\n-b\n"),
        ] {
            assert_eq!(line_diff("f", old, new), format!("--- f\n+++ f\n{want}"));
        }
        assert_eq!(line_diff("f", "a\n", "a\n"), "");
    }
}
