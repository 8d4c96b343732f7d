//! Patterns for paths: one name as Go's `filepath.Match` reads it, and whole paths with `**` as
//! ignore files and `--exclude` have them.
//!
//! A pattern is a list of tokens; matching tries each (token, position) at most once, so no
//! pattern takes more than pattern times path steps.

use crate::limits::MAX_ONE_PATTERN_BYTES;

/// A byte or a set of strings that a pattern asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This byte.
    Byte(u8),
    /// `?`: any character but `/`.
    AnyChar,
    /// `[a-z]`, `[^…]`: a character in, or not in, one of these ranges.
    Class(Box<Class>),
    /// `*`: any number of characters, none of them `/`.
    Star,
    /// `**` at the end: anything.
    Anything,
    /// `**/` and `**` elsewhere: nothing, or anything that ends with `/`.
    Folders,
}

/// Why a pattern makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// `[` without its `]`, or with nothing between them.
    #[error("`[` needs characters and a closing `]`")]
    OpenClass,
    /// A range such as `[-a]` or `[a-]`.
    #[error("a range between `[` and `]` needs a character on both sides of `-`")]
    BadRange,
    /// Longer than any path.
    #[error("it is longer than {MAX_ONE_PATTERN_BYTES} bytes, and so than any path")]
    TooLong,
    /// `\` as the last character.
    #[error("`\\` at the end escapes nothing")]
    TrailingBackslash,
}

/// What `[` and `]` enclose. Apart from the token, of which there is one for each byte of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

/// Whether `*` twice in a row means any number of folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubleStar {
    /// It does: ignore files, `--exclude`, `--parents`.
    Folders,
    /// It is the same as a single one: sources of COPY, which are matched name by name.
    AsSingle,
}

/// A pattern, ready to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    /// The longest run of plain bytes: a path that lacks it cannot match.
    needle: Box<[u8]>,
}

/// Whether `text` has a character that makes it a pattern; one after `\` does not count.
#[must_use]
pub fn has_wildcard(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// `text` with `\x` turned into `x`.
#[must_use]
pub fn unescape(text: &str) -> String {
    let mut chars = text.chars();
    let mut plain = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`GlobError`] where Go's `filepath.Match` says `ErrBadPattern`.
    pub fn new(pattern: &str, double_star: DoubleStar) -> Result<Self, GlobError> {
        if pattern.len() > MAX_ONE_PATTERN_BYTES {
            return Err(GlobError::TooLong);
        }
        let mut parser = Parser { rest: pattern, double_star, tokens: Vec::new() };
        parser.parse()?;
        let mut tokens = parser.tokens;
        relax_leading_double_star(pattern, &mut tokens);
        tokens.shrink_to_fit();
        let needle = longest_run(&tokens);
        Ok(Self { tokens, needle })
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        if !self.may_match(text) {
            return false;
        }
        let width = text.len() + 1;
        let mut seen = vec![false; (self.tokens.len() + 1) * width];
        let mut todo = vec![(0, 0)];
        while let Some((token, at)) = todo.pop() {
            let Some(seen) = seen.get_mut(token * width + at) else { continue };
            if std::mem::replace(seen, true) {
                continue;
            }
            let Some(wanted) = self.tokens.get(token) else {
                if at == text.len() {
                    return true;
                }
                continue;
            };
            step(wanted, token, text, at, &mut todo);
        }
        false
    }

    /// Looks at the plain bytes only, which settles nearly all paths.
    fn may_match(&self, text: &[u8]) -> bool {
        let agree = |(token, byte): (&Token, &u8)| token.byte().map(|wanted| wanted == *byte);
        let first_differs = |found: Option<bool>| found == Some(false);
        let front = self.tokens.iter().zip(text).map(agree).take_while(Option::is_some);
        let back = self.tokens.iter().rev().zip(text.iter().rev()).map(agree);
        if front.into_iter().any(first_differs)
            || back.take_while(Option::is_some).any(first_differs)
        {
            return false;
        }
        self.needle.is_empty() || text.windows(self.needle.len()).any(|part| part == &*self.needle)
    }
}

/// Pushes where matching may go on after `wanted` was met at `at`.
fn step(wanted: &Token, token: usize, text: &[u8], at: usize, todo: &mut Vec<(usize, usize)>) {
    let rest = text.get(at..).unwrap_or_default();
    match wanted {
        Token::Byte(byte) => {
            if rest.first() == Some(byte) {
                todo.push((token + 1, at + 1));
            }
        }
        Token::AnyChar | Token::Class(_) => {
            if let Some((c, length)) = first_char(rest)
                && wanted.takes(c)
            {
                todo.push((token + 1, at + length));
            }
        }
        Token::Star => {
            if rest.first().is_some_and(|byte| *byte != b'/') {
                todo.push((token, at + 1));
            }
            todo.push((token + 1, at));
        }
        Token::Anything => {
            if !rest.is_empty() {
                todo.push((token, at + 1));
            }
            todo.push((token + 1, at));
        }
        Token::Folders => {
            let slashes = rest.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            todo.extend(slashes.map(|(offset, _)| (token + 1, at + offset + 1)));
            todo.push((token + 1, at));
        }
    }
}

impl Token {
    /// The byte, if it stands for one only.
    const fn byte(&self) -> Option<u8> {
        if let Self::Byte(byte) = self { Some(*byte) } else { None }
    }

    /// Whether this character stands for `c`; only for tokens of one character.
    fn takes(&self, c: char) -> bool {
        match self {
            Self::AnyChar => c != '/',
            Self::Class(class) => {
                let is_in = |(low, high): &(char, char)| (*low..=*high).contains(&c);
                class.ranges.iter().any(is_in) != class.negated
            }
            Self::Byte(_) | Self::Star | Self::Anything | Self::Folders => false,
        }
    }
}

/// The first character and its length; a byte that is no UTF-8 counts as one.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let chunk = bytes.get(..bytes.len().min(4))?.utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => Some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

/// `**name` at the front, with nothing special after it, matches any path that ends with `name`,
/// also inside a name (moby/patternmatcher calls this a suffix match).
fn relax_leading_double_star(pattern: &str, tokens: &mut [Token]) {
    let Some(rest) = pattern.strip_prefix("**") else { return };
    if rest.starts_with('/') || rest.contains(['*', '?', '[', ']', '\\']) {
        return;
    }
    if let Some(first @ Token::Folders) = tokens.first_mut() {
        *first = Token::Anything;
    }
}

fn longest_run(tokens: &[Token]) -> Box<[u8]> {
    tokens
        .split(|token| token.byte().is_none())
        .max_by_key(|run| run.len())
        .map(|run| run.iter().filter_map(Token::byte).collect())
        .unwrap_or_default()
}

struct Parser<'a> {
    rest: &'a str,
    double_star: DoubleStar,
    tokens: Vec<Token>,
}

impl Parser<'_> {
    fn parse(&mut self) -> Result<(), GlobError> {
        while let Some(c) = self.next() {
            match c {
                '*' => self.star(),
                '?' => self.tokens.push(Token::AnyChar),
                '[' => self.class()?,
                '\\' => {
                    let escaped = self.next().ok_or(GlobError::TrailingBackslash)?;
                    self.literal(escaped);
                }
                c => self.literal(c),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    fn next_if(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn literal(&mut self, c: char) {
        let mut buffer = [0; 4];
        self.tokens.extend(c.encode_utf8(&mut buffer).bytes().map(Token::Byte));
    }

    fn star(&mut self) {
        if self.double_star == DoubleStar::AsSingle {
            while self.next_if('*') {}
            return self.tokens.push(Token::Star);
        }
        if !self.next_if('*') {
            return self.tokens.push(Token::Star);
        }
        self.next_if('/');
        let last = self.rest.is_empty();
        self.tokens.push(if last { Token::Anything } else { Token::Folders });
    }

    fn class(&mut self) -> Result<(), GlobError> {
        let negated = self.next_if('^');
        let mut ranges = Vec::new();
        while ranges.is_empty() || !self.next_if(']') {
            let low = self.class_char()?;
            let high = if self.next_if('-') { self.class_char()? } else { low };
            ranges.push((low, high));
        }
        self.tokens.push(Token::Class(Box::new(Class { negated, ranges })));
        Ok(())
    }

    fn class_char(&mut self) -> Result<char, GlobError> {
        match self.next() {
            None | Some(']') => Err(GlobError::OpenClass),
            Some('-') => Err(GlobError::BadRange),
            Some('\\') => self.next().ok_or(GlobError::TrailingBackslash),
            Some(c) => Ok(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str, text: &str) -> bool {
        Glob::new(pattern, DoubleStar::AsSingle).unwrap().matches(text.as_bytes())
    }

    fn paths(pattern: &str, text: &str) -> bool {
        Glob::new(pattern, DoubleStar::Folders).unwrap().matches(text.as_bytes())
    }

    #[test]
    fn one_name_matches_as_in_go() {
        let matching = [
            ("abc", "abc"),
            ("*", "abc"),
            ("*c", "abc"),
            ("a*", "a"),
            ("a*b*c*d*e*x", "axbxcxdxexxx"),
            ("ab[c]", "abc"),
            ("ab[b-d]", "abc"),
            ("ab[^e-g]", "abc"),
            ("a?b", "a☺b"),
            ("a[^a]b", "a☺b"),
            ("[a-ζ]*", "α"),
            ("[\\]a]", "]"),
            ("[\\-x]", "-"),
            ("[x\\-]", "x"),
            ("[[]x", "[x"),
            ("a\\*b", "a*b"),
            ("a**b", "axyb"),
            ("", ""),
        ];
        for (pattern, text) in matching {
            assert!(names(pattern, text), "{pattern} should match {text}");
        }
        let differing = [
            ("*", "a/b"),
            ("ab[e-g]", "abc"),
            ("[!a]", "b"),
            ("a???b", "a☺b"),
            ("{a,b}", "a"),
            ("a", ""),
        ];
        for (pattern, text) in differing {
            assert!(!names(pattern, text), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn bad_patterns_say_what_is_wrong() {
        for (pattern, want) in [
            ("[]a]", GlobError::OpenClass),
            ("[", GlobError::OpenClass),
            ("[^", GlobError::OpenClass),
            ("[a-", GlobError::OpenClass),
            ("a[", GlobError::OpenClass),
            ("[^bc", GlobError::OpenClass),
            ("[-]", GlobError::BadRange),
            ("[x-]", GlobError::OpenClass),
            ("[-x]", GlobError::BadRange),
            ("a\\", GlobError::TrailingBackslash),
            ("[a\\", GlobError::TrailingBackslash),
        ] {
            let error = Glob::new(pattern, DoubleStar::AsSingle).unwrap_err();
            assert_eq!(error, want, "{pattern}");
        }
    }

    #[test]
    fn two_stars_cross_folders() {
        for (pattern, text) in [
            ("**", "a/b"),
            ("**/foo", "foo"),
            ("**/foo", "x/y/foo"),
            ("**foo", "x/yfoo"),
            ("a**b", "ab"),
            ("a**b", "ax/b"),
            ("a/**/b", "a/b"),
            ("a/**/b", "a/x/y/b"),
            ("a/**", "a/x/y"),
            ("**/*.log", "x/y.log"),
            ("**/deep/**", "deep/x"),
        ] {
            assert!(paths(pattern, text), "{pattern} should match {text}");
        }
        for (pattern, text) in
            [("**/foo", "xfoo"), ("a**b", "axb"), ("a/**", "a"), ("**f*", "x/yf"), ("*/x", "a/b/x")]
        {
            assert!(!paths(pattern, text), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!paths(&"a*".repeat(100), &format!("{}/a", "a".repeat(4000))));
        assert!(!paths(&"**/a".repeat(50), &"a/".repeat(2000)));
    }

    #[test]
    fn wildcards_are_seen_unless_escaped() {
        assert!(has_wildcard("a*") && has_wildcard("[x]") && has_wildcard("\\\\?"));
        assert!(!has_wildcard("a\\*b") && !has_wildcard("plain"));
        assert_eq!(unescape("a\\*b\\\\c"), "a*b\\c");
    }
}
