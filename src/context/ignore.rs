//! Ignore files: `.dockerignore` and `<Dockerfile>.dockerignore`.

use crate::tree::TreePath;
use crate::tree::patterns::{FolderMatch, PatternError, Patterns};

/// The rules of an ignore file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreRules {
    patterns: Patterns,
}

/// A line that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct IgnoreError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: PatternError,
}

/// Reads an ignore file: one pattern a line, `#` in the first column begins a comment, `!` takes
/// back, white space around a pattern is cut.
///
/// # Errors
/// [`IgnoreError`] for the first line that is no pattern.
pub fn parse_ignore(text: &str) -> Result<IgnoreRules, IgnoreError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut patterns = Patterns::default();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        patterns.push(line).map_err(|message| IgnoreError { line: at + 1, message })?;
    }
    Ok(IgnoreRules { patterns })
}

impl IgnoreRules {
    /// Whether `path` is no part of the context.
    #[must_use]
    pub fn excludes(&self, path: &TreePath) -> bool {
        self.patterns.matches_from_root(path)
    }

    /// Whether something below the excluded folder `dir` may be part of the context.
    #[must_use]
    pub fn may_hold_exceptions_below(&self, dir: &TreePath) -> bool {
        self.patterns.may_hold_exceptions_below(dir)
    }

    /// Whether there are no rules.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// What holds at the context's root.
    pub(super) fn at_root(&self) -> FolderMatch {
        self.patterns.at_root()
    }

    /// Whether a file is excluded, given what held for its folder.
    pub(super) fn excludes_in(&self, path: &TreePath, folder: &FolderMatch) -> bool {
        !self.is_empty() && self.patterns.matches(path, folder)
    }

    /// The same for a folder, and what holds in it.
    pub(super) fn enter(&self, path: &TreePath, folder: &FolderMatch) -> (bool, FolderMatch) {
        self.patterns.enter(path, folder)
    }
}
