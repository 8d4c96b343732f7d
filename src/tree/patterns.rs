//! Lists of path patterns in which the last match counts: ignore files, `--exclude`, and what
//! `--parents` selects.
//!
//! The rules are those of moby/patternmatcher as BuildKit walks with it: a pattern that matches a
//! directory holds for all below it, `!` takes back, and each directory's result is handed down to what
//! it holds.

use std::sync::Arc;

use crate::limits::{MAX_PATTERN_BYTES, MAX_PATTERNS};

use super::TreePath;
use super::glob::{DoubleStar, Glob, GlobError};

/// A list of patterns, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    list: Vec<Pattern>,
    /// Bytes of all of them.
    n_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// Begins with `!`.
    negated: bool,
    whole: Glob,
    /// The names between slashes, up to one that holds `**`; `None` in its place.
    names: Vec<Option<Glob>>,
}

/// The patterns that matched a directory or one of its parents: a bit for each, those after the last
/// match left out. A walk keeps one for each directory, so that it must be small: directories in
/// which nothing else matches share it with their parents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryMatch(Arc<[u64]>);

impl DirectoryMatch {
    const BITS: usize = 64;

    fn has(&self, at: usize) -> bool {
        let word = self.0.get(at / Self::BITS).copied().unwrap_or(0);
        word >> (at % Self::BITS) & 1 == 1
    }
}

/// The same while it is put together.
#[derive(Default)]
struct Matching(Vec<u64>);

impl Matching {
    fn add(&mut self, at: usize) {
        let word = at / DirectoryMatch::BITS;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (at % DirectoryMatch::BITS);
        }
    }

    /// Shares what the parent has, where it is the same.
    fn finish(self, parent: &DirectoryMatch) -> DirectoryMatch {
        if *self.0 == *parent.0 { parent.clone() } else { DirectoryMatch(self.0.into()) }
    }
}

/// Why a pattern of a list was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `!` and nothing after it.
    #[error("`!` needs a pattern after it")]
    LoneNegation,
    /// Too many, or too long together.
    #[error("there are more than {MAX_PATTERNS} patterns or {} KiB of them; write fewer, with wildcards", MAX_PATTERN_BYTES >> 10)]
    TooMany,
    /// Not a pattern.
    #[error("`{pattern}` is not a pattern: {reason}")]
    Bad {
        /// As written.
        pattern: String,
        /// What is wrong.
        reason: GlobError,
    },
}

impl Patterns {
    /// Reads patterns; white space around one is cut, a slash in front dropped, `.` and `..`
    /// resolved, an empty one ignored.
    ///
    /// # Errors
    /// [`PatternError`] for the first one that makes no sense.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let mut patterns = Self::default();
        texts.into_iter().try_for_each(|text| patterns.push(text))?;
        Ok(patterns)
    }

    /// Appends one pattern, as [`Patterns::new`] does.
    ///
    /// # Errors
    /// [`PatternError`] when it makes no sense.
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
            // A class may hold a slash; then the parts are no patterns, and no name is ruled out.
            names.push(Glob::new(name, DoubleStar::Directories).ok());
        }
        self.list.push(Pattern { negated, whole, names });
        Ok(())
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What holds at the root, where no pattern has matched.
    #[must_use]
    pub fn at_root(&self) -> DirectoryMatch {
        DirectoryMatch::default()
    }

    /// Whether `path` is matched, given what matched the directory that holds it.
    #[must_use]
    pub fn matches(&self, path: &TreePath, parent: &DirectoryMatch) -> bool {
        self.judge(path, parent, |_| {})
    }

    /// The same for a directory, and what to hand down to what it holds.
    #[must_use]
    pub fn enter(&self, path: &TreePath, parent: &DirectoryMatch) -> (bool, DirectoryMatch) {
        let mut own = Matching::default();
        let matched = self.judge(path, parent, |at| own.add(at));
        (matched, own.finish(parent))
    }

    fn judge(&self, path: &TreePath, parent: &DirectoryMatch, mut note: impl FnMut(usize)) -> bool {
        let mut matched = false;
        for (at, pattern) in self.list.iter().enumerate() {
            let inherited = parent.has(at);
            // A pattern that could change nothing is not tried, and so not handed down: BuildKit's
            // walk does the same, and it shows in lists such as `**/*.md`, `!docs`.
            if !inherited && (pattern.negated != matched || !pattern.whole.matches(path.as_bytes()))
            {
                continue;
            }
            note(at);
            matched = !pattern.negated;
        }
        matched
    }

    /// Whether `path` is matched, its parents looked at from the root down.
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

    /// The number of the pattern that has the last word about `path`, if that is matched.
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

    /// Whether something below the matched directory `dir` could be taken back by a `!` pattern.
    #[must_use]
    pub fn may_hold_exceptions_below(&self, dir: &TreePath) -> bool {
        self.list.iter().any(|pattern| pattern.negated && pattern.reaches_below(dir))
    }
}

impl Pattern {
    /// Whether a path below `dir` could match.
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

/// A pattern as a message shows it.
fn shortened(pattern: &str) -> String {
    const MAX_CHARS: usize = 200;
    match pattern.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", pattern.get(..end).unwrap_or_default()),
        None => pattern.to_owned(),
    }
}

/// Go's `filepath.Clean`, and the slash in front dropped.
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
    fn exceptions_are_looked_for_only_where_they_can_be() {
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
    fn last_pattern_that_matches_decides() {
        let patterns = Patterns::new(["*", "!src", "src/*.log", "docs"]).unwrap();
        for (name, want) in
            [("readme", Some(0)), ("src/main.c", None), ("src/a.log", Some(2)), ("docs/a", Some(0))]
        {
            assert_eq!(patterns.deciding(&path(name)), want, "{name}");
            assert_eq!(patterns.matches_from_root(&path(name)), want.is_some(), "{name}");
        }
    }

    #[test]
    fn directories_share_what_matched_their_parents() {
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
    fn too_many_and_too_long_patterns_are_refused() {
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
