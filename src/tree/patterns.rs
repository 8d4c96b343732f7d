//! Lists of path patterns in which the last match counts: ignore files, `--exclude`, and the
//! selection of `--parents`.
//!
//! The rules are those of moby/patternmatcher (<https://github.com/moby/patternmatcher>) as
//! BuildKit uses it. A pattern that matches a directory applies to everything below it, `!` makes
//! an exception, and each directory's result is passed on to its contents.

use std::sync::Arc;

use crate::limits::{MAX_PATTERN_BYTES, MAX_PATTERNS};

use super::TreePath;
use super::glob::{DoubleStar, Glob, GlobError};

/// A list of patterns, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    list: Vec<Pattern>,
    /// The total length of the patterns in bytes.
    n_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// True if the pattern began with `!`.
    negated: bool,
    whole: Glob,
    /// The globs for each name between slashes, up to one with `**`, which is `None`.
    names: Vec<Option<Glob>>,
}

/// The patterns that matched a directory or one of its parents: one bit each, trailing zeros left
/// out. A walk keeps one for each directory, so it must be small; directories in which nothing else
/// matches share it with their parents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryMatch(Arc<[u64]>);

impl DirectoryMatch {
    const BITS: usize = 64;

    fn has(&self, at: usize) -> bool {
        let word = self.0.get(at / Self::BITS).copied().unwrap_or(0);
        word >> (at % Self::BITS) & 1 == 1
    }
}

/// A [`DirectoryMatch`] under construction.
#[derive(Default)]
struct DirectoryMatchBuilder(Vec<u64>);

impl DirectoryMatchBuilder {
    fn add(&mut self, at: usize) {
        let word = at / DirectoryMatch::BITS;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (at % DirectoryMatch::BITS);
        }
    }

    /// Returns the finished set, shared with the parent's if they are equal.
    fn finish(self, parent: &DirectoryMatch) -> DirectoryMatch {
        if *self.0 == *parent.0 { parent.clone() } else { DirectoryMatch(self.0.into()) }
    }
}

/// The reason why a pattern of a list was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A `!` without a pattern after it.
    #[error("`!` needs a pattern after it")]
    LoneNegation,
    /// More patterns, or more bytes of them, than the limits allow.
    #[error("there are more than {MAX_PATTERNS} patterns or {} KiB of them; write fewer, with wildcards", MAX_PATTERN_BYTES >> 10)]
    TooMany,
    /// A pattern with a syntax error.
    #[error("`{pattern}` is not a pattern: {reason}")]
    Bad {
        /// The pattern as written.
        pattern: String,
        /// The syntax error.
        reason: GlobError,
    },
}

impl Patterns {
    /// Compiles patterns. Trims white space, drops a leading slash, resolves `.` and `..`, and
    /// ignores empty ones.
    ///
    /// # Errors
    /// [`PatternError`] for the first invalid pattern.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let mut patterns = Self::default();
        texts.into_iter().try_for_each(|text| patterns.push(text))?;
        Ok(patterns)
    }

    /// Appends one pattern, normalised as in [`Patterns::new`].
    ///
    /// # Errors
    /// [`PatternError`] if it is invalid, or one too many.
    pub fn push(&mut self, text: &str) -> Result<(), PatternError> {
        let text = text.trim();
        let (negated, body) = match text.strip_prefix('!') {
            Some(body) => (true, body.trim()),
            None => (false, text),
        };
        if body.is_empty() {
            return if negated { Err(PatternError::LoneNegation) } else { Ok(()) };
        }
        self.n_bytes += body.len();
        if self.list.len() >= MAX_PATTERNS || self.n_bytes > MAX_PATTERN_BYTES {
            return Err(PatternError::TooMany);
        }
        let clean = clean(body);
        let bad = |reason| PatternError::Bad { pattern: shortened(body), reason };
        let glob = |text: &str| Glob::new(text, DoubleStar::Directories).map_err(bad);
        let whole = glob(&clean)?;
        let mut names = Vec::new();
        for name in clean.split('/') {
            if name.contains("**") {
                names.push(None);
                break;
            }
            // A character class may contain a slash. The parts are then not patterns, and no name
            // is ruled out.
            names.push(Glob::new(name, DoubleStar::Directories).ok());
        }
        self.list.push(Pattern { negated, whole, names });
        Ok(())
    }

    /// Returns whether the list is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the state at the root, where no pattern has matched.
    #[must_use]
    pub fn at_root(&self) -> DirectoryMatch {
        DirectoryMatch::default()
    }

    /// Returns whether `path` is matched, given the state of its parent directory.
    #[must_use]
    pub fn matches(&self, path: &TreePath, parent: &DirectoryMatch) -> bool {
        self.judge(path, parent, |_| {})
    }

    /// Returns whether a directory is matched, and the state for its contents.
    #[must_use]
    pub fn enter(&self, path: &TreePath, parent: &DirectoryMatch) -> (bool, DirectoryMatch) {
        let mut own = DirectoryMatchBuilder::default();
        let matched = self.judge(path, parent, |at| own.add(at));
        (matched, own.finish(parent))
    }

    fn judge(&self, path: &TreePath, parent: &DirectoryMatch, mut note: impl FnMut(usize)) -> bool {
        let mut matched = false;
        for (at, pattern) in self.list.iter().enumerate() {
            let inherited = parent.has(at);
            // A pattern that cannot change the result is not tried, and so not passed on.
            // BuildKit's walk does the same, which is visible in lists such as `**/*.md`, `!docs`.
            if !inherited && (pattern.negated != matched || !pattern.whole.matches(path.as_bytes()))
            {
                continue;
            }
            note(at);
            matched = !pattern.negated;
        }
        matched
    }

    /// Returns whether `path` is matched, evaluating its parents from the root down.
    #[must_use]
    pub fn matches_from_root(&self, path: &TreePath) -> bool {
        let mut state = self.at_root();
        let mut at = TreePath::root();
        let mut matched = false;
        for name in path.names() {
            at = at.join(name);
            (matched, state) = self.enter(&at, &state);
        }
        matched
    }

    /// Returns the index of the pattern that decides about `path`, if it is matched.
    #[must_use]
    pub fn deciding(&self, path: &TreePath) -> Option<usize> {
        let mut state = self.at_root();
        let mut at = TreePath::root();
        let mut deciding = None;
        for name in path.names() {
            at = at.join(name);
            let mut last = None;
            let matched = self.judge(&at, &state, |number| last = Some(number));
            deciding = last.filter(|_| matched);
            state = self.enter(&at, &state).1;
        }
        deciding
    }

    /// Returns whether a `!` pattern may match something below the matched directory `dir`.
    #[must_use]
    pub fn may_hold_exceptions_below(&self, dir: &TreePath) -> bool {
        self.list.iter().any(|pattern| pattern.negated && pattern.reaches_below(dir))
    }
}

impl Pattern {
    /// Returns whether a path below `dir` may match.
    fn reaches_below(&self, dir: &TreePath) -> bool {
        let mut names = self.names.iter();
        for name in dir.names() {
            match names.next() {
                None => return false,
                Some(None) => return true,
                Some(Some(glob)) if !glob.matches(name) => return false,
                Some(Some(_)) => {}
            }
        }
        names.next().is_some()
    }
}

/// Shortens a pattern for a message.
fn shortened(pattern: &str) -> String {
    const MAX_CHARS: usize = 200;
    match pattern.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", pattern.get(..end).unwrap_or_default()),
        None => pattern.to_owned(),
    }
}

/// Cleans a pattern like Go's `filepath.Clean` (<https://pkg.go.dev/path/filepath#Clean>), and
/// drops a leading slash.
fn clean(pattern: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in pattern.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn exceptions_are_searched_only_where_they_can_match() {
        let patterns = Patterns::new(["*", "!src/*/keep", "!docs/**/x", "!top"]).unwrap();
        for (dir, want) in [
            ("src", true),
            ("src/a", true),
            ("src/a/keep", false),
            ("src/a/other", false),
            ("docs/a/b/c", true),
            ("top", false),
            ("node_modules", false),
        ] {
            assert_eq!(patterns.may_hold_exceptions_below(&path(dir)), want, "{dir}");
        }
    }

    #[test]
    fn last_matching_pattern_decides() {
        let patterns = Patterns::new(["*", "!src", "src/*.log", "docs"]).unwrap();
        for (name, want) in
            [("readme", Some(0)), ("src/main.c", None), ("src/a.log", Some(2)), ("docs/a", Some(0))]
        {
            assert_eq!(patterns.deciding(&path(name)), want, "{name}");
            assert_eq!(patterns.matches_from_root(&path(name)), want.is_some(), "{name}");
        }
    }

    #[test]
    fn directories_share_the_state_of_their_parents() {
        let texts: Vec<String> = (0..20_000).map(|at| format!("dir{at}/file")).collect();
        let texts = texts.iter().map(String::as_str).chain(["tmp", "last"]);
        let patterns = Patterns::new(texts).unwrap();
        let root = patterns.at_root();
        let (matched, other) = patterns.enter(&path("other"), &root);
        assert!(!matched && Arc::ptr_eq(&other.0, &root.0));
        let (matched, tmp) = patterns.enter(&path("tmp"), &root);
        assert!(matched && tmp.0.len() == 20_000 / 64 + 1);
        let (matched, below) = patterns.enter(&path("tmp/x"), &tmp);
        assert!(matched && Arc::ptr_eq(&below.0, &tmp.0));
        assert_eq!(patterns.deciding(&path("tmp/x")), Some(20_000));
    }

    #[test]
    fn too_many_or_too_long_patterns_are_refused() {
        let many = vec!["a"; MAX_PATTERNS + 1];
        assert_eq!(Patterns::new(many), Err(PatternError::TooMany));
        let long = vec!["b".repeat(4000); 600];
        let error = Patterns::new(long.iter().map(String::as_str)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there are more than 50000 patterns or 2048 KiB of them; write fewer, with wildcards"
        );
        let long = "c".repeat(4097);
        let reason = GlobError::TooLong;
        let pattern = format!("{}…", "c".repeat(200));
        assert_eq!(Patterns::new([&*long]), Err(PatternError::Bad { pattern, reason }));
    }

    #[test]
    fn bad_patterns_are_named() {
        let message = |text| Patterns::new([text]).unwrap_err().to_string();
        assert_eq!(message(" ! "), "`!` needs a pattern after it");
        assert_eq!(
            message("a/[b"),
            "`a/[b` is not a pattern: `[` needs characters and a closing `]`"
        );
    }
}
