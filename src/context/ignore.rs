//! Ignore files: `.dockerignore` and `<Dockerfile>.dockerignore`
//! (<https://docs.docker.com/build/concepts/context/#dockerignore-files>).

use crate::tree::TreePath;
use crate::tree::patterns::{DirectoryMatch, PatternError, Patterns};

/// A file name that no pattern matches, except one that matches every file.
const ANY_FILE: &str = "any.file.of.the.context";

/// The rules of an ignore file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreRules {
    patterns: Patterns,
    /// The line of each pattern.
    lines: Vec<IgnoreLine>,
}

/// A pattern of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreLine {
    /// Line number, from 1.
    pub line: usize,
    /// The pattern as written, without surrounding white space.
    pub text: String,
}

/// An invalid line of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct IgnoreError {
    /// Line number, from 1.
    pub line: usize,
    /// The error in the pattern.
    pub message: PatternError,
}

/// Parses an ignore file: one pattern a line, `#` in the first column begins a comment, `!` makes
/// an exception. White space around a pattern is removed
/// (<https://docs.docker.com/build/concepts/context/#syntax>).
///
/// # Errors
/// [`IgnoreError`] for the first invalid line.
pub fn parse_ignore(text: &str) -> Result<IgnoreRules, IgnoreError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rules = IgnoreRules::default();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        rules.patterns.push(line).map_err(|message| IgnoreError { line: at + 1, message })?;
        let text = line.trim().to_owned();
        if !text.is_empty() {
            rules.lines.push(IgnoreLine { line: at + 1, text });
        }
    }
    Ok(rules)
}

impl IgnoreRules {
    /// Returns whether `path` is excluded from the context.
    #[must_use]
    pub fn excludes(&self, path: &TreePath) -> bool {
        self.patterns.matches_from_root(path)
    }

    /// Returns the line that excludes `path`, if any.
    #[must_use]
    pub fn excluding(&self, path: &TreePath) -> Option<&IgnoreLine> {
        self.lines.get(self.patterns.deciding(path)?)
    }

    /// Returns whether an exception may include something below the excluded directory `dir`.
    #[must_use]
    pub fn may_hold_exceptions_below(&self, dir: &TreePath) -> bool {
        self.patterns.may_hold_exceptions_below(dir)
    }

    /// Returns whether a COPY of `source`, a path or pattern below the context, cannot find
    /// anything.
    ///
    /// Always false with exceptions (`!`): then it depends on the files.
    #[must_use]
    pub fn hides(&self, source: &str) -> bool {
        let source = if source == "." { ANY_FILE } else { source };
        let path = TreePath::new(source.as_bytes());
        !self.is_empty()
            && !self.may_hold_exceptions_below(&TreePath::root())
            && path.is_ok_and(|path| self.excludes(&path))
    }

    /// Returns whether there are no rules.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns the state of the rules at the context's root.
    pub(super) fn at_root(&self) -> DirectoryMatch {
        self.patterns.at_root()
    }

    /// Returns whether a file is excluded, given the state in its directory.
    pub(super) fn excludes_in(&self, path: &TreePath, directory: &DirectoryMatch) -> bool {
        !self.is_empty() && self.patterns.matches(path, directory)
    }

    /// Returns whether a directory is excluded, and the state of the rules in it.
    pub(super) fn enter(
        &self,
        path: &TreePath,
        directory: &DirectoryMatch,
    ) -> (bool, DirectoryMatch) {
        self.patterns.enter(path, directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn excluded_file_has_its_line() {
        let rules = parse_ignore("# sources only\n\n*\n  !src  \nsrc/*.log\n").unwrap();
        let line = |name: &str| rules.excluding(&path(name)).map(|it| (it.line, it.text.as_str()));
        assert_eq!(line("config/app.json"), Some((3, "*")));
        assert_eq!(line("src/a.log"), Some((5, "src/*.log")));
        assert_eq!(line("src/a"), None);
    }

    fn check(table: &str) {
        let mut n_paths = 0;
        for block in table.split("\n\n") {
            let lines = |mark: char| block.lines().filter_map(move |line| line.strip_prefix(mark));
            let text = lines('|').collect::<Vec<_>>().join("\n");
            let rules = parse_ignore(&text).unwrap();
            for (mark, want) in [('-', true), ('+', false)] {
                for name in lines(mark) {
                    n_paths += 1;
                    assert_eq!(rules.excludes(&path(name.trim())), want, "{name} under\n{text}");
                }
            }
        }
        assert!(n_paths > 20, "the table was read");
    }

    #[test]
    fn files_are_excluded_as_buildkit_does() {
        check(include_str!("../../testdata/dockerignore/buildkit.tbl"));
    }

    #[test]
    fn files_are_excluded_by_rules_without_a_recorded_case() {
        check(include_str!("../../testdata/dockerignore/rules.tbl"));
    }

    #[test]
    fn byte_order_mark_and_carriage_returns_are_ignored() {
        let rules = parse_ignore("\u{feff}tmp\r\n*.md\r\n").unwrap();
        assert!(rules.excludes(&path("tmp/x")) && rules.excludes(&path("a.md")));
        assert!(!rules.is_empty() && parse_ignore("# only\n\n  \n").unwrap().is_empty());
    }

    #[test]
    fn sources_are_hidden_unless_there_are_exceptions() {
        let hides = |rules: &str, source: &str| parse_ignore(rules).unwrap().hides(source);
        assert!(hides("tmp\n", "tmp/x") && hides("*.md\n", "*.md") && hides("**\n", "."));
        assert!(!hides("tmp\n", ".") && !hides("", "x") && !hides("*\n!x\n", "y"));
    }

    #[test]
    fn invalid_line_is_reported_with_its_number() {
        let message = |text: &str| parse_ignore(text).unwrap_err().to_string();
        assert_eq!(message("# c\n\n!\n"), "line 3: `!` needs a pattern after it");
        assert_eq!(
            message("ok\na[\n"),
            "line 2: `a[` is not a pattern: `[` needs characters and a closing `]`"
        );
    }
}
