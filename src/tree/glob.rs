//! Glob patterns: single names as in Go's `filepath.Match`
//! (<https://pkg.go.dev/path/filepath#Match>), and whole paths with `**` as in ignore files and
//! `--exclude`.
//!
//! A pattern is a list of tokens. Matching takes time in proportion to pattern length times path
//! length.

use crate::limits::MAX_ONE_PATTERN_BYTES;

/// An element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Matches exactly this byte.
    Byte(u8),
    /// `?`: matches any character but `/`.
    AnyChar,
    /// `[a-z]`, `[^…]`: matches a character in, or not in, one of these ranges.
    Class(Box<CharClass>),
    /// `*`: matches any number of characters but `/`.
    Star,
    /// `**` at the end: matches anything.
    Anything,
    /// `**/` and `**` elsewhere: match nothing, or anything that ends with `/`.
    Directories,
}

/// The reason why a pattern is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// A `[` without its `]`, or with nothing in between.
    #[error("`[` needs characters and a closing `]`")]
    OpenClass,
    /// An incomplete range such as `[-a]` or `[a-]`.
    #[error("a range between `[` and `]` needs a character on both sides of `-`")]
    BadRange,
    /// A pattern that is longer than any path (`PATH_MAX`).
    #[error("it is longer than {MAX_ONE_PATTERN_BYTES} bytes, and so than any path")]
    TooLong,
    /// A `\` as the last character.
    #[error("`\\` at the end escapes nothing")]
    TrailingBackslash,
}

/// A character class, between `[` and `]`. Boxed in its token, because a pattern has a token for
/// each byte.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CharClass {
    negated: bool,
    ranges: Vec<(char, char)>,
}

/// The meaning of `**`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubleStar {
    /// Any number of directories: ignore files, `--exclude`, `--parents`.
    Directories,
    /// The same as `*`: sources of COPY, which are matched name by name.
    AsSingle,
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    /// The longest run of literal bytes: a path that lacks it cannot match.
    needle: Box<[u8]>,
}

/// Returns whether `text` contains a wildcard character that is not escaped by `\`.
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

/// Returns `text` with each `\x` replaced by `x`.
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
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`GlobError`] where Go's `filepath.Match` returns `ErrBadPattern`, and for a pattern that is
    /// too long.
    pub fn new(pattern: &str, double_star: DoubleStar) -> Result<Self, GlobError> {
        if pattern.len() > MAX_ONE_PATTERN_BYTES {
            return Err(GlobError::TooLong);
        }
        let mut parser = GlobParser { rest: pattern, double_star, tokens: Vec::new() };
        parser.parse()?;
        let mut tokens = parser.tokens;
        relax_leading_double_star(pattern, &mut tokens);
        tokens.shrink_to_fit();
        let needle = longest_run(&tokens);
        Ok(Self { tokens, needle })
    }

    /// Returns whether the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        self.may_match(text) && self.follow(text)
    }

    /// Simulates all possible matches at once, byte by byte: time is in proportion to tokens times
    /// bytes, memory to tokens.
    fn follow(&self, text: &[u8]) -> bool {
        let mut states = MatchStates::new(self.tokens.len());
        for at in 0..=text.len() {
            let after_slash = at > 0 && text.get(at - 1) == Some(&b'/');
            states.skip_empty(&self.tokens, after_slash);
            let rest = text.get(at..).unwrap_or_default();
            let (Some(byte), Some((c, length))) = (rest.first(), first_char(rest)) else { break };
            for (token, wanted) in self.tokens.iter().enumerate() {
                if !states.is_reached(token) {
                    continue;
                }
                match wanted {
                    Token::Byte(wanted) if wanted == byte => states.reach(1, token + 1),
                    Token::Star if *byte != b'/' => states.reach(1, token),
                    Token::Anything => states.reach(1, token),
                    Token::AnyChar | Token::Class(_) if wanted.takes(c) => {
                        states.reach(length, token + 1);
                    }
                    Token::Byte(_) | Token::Star | Token::AnyChar | Token::Class(_) => {}
                    // `skip_empty` leaves it after a slash.
                    Token::Directories => {}
                }
            }
            if !states.advance() {
                return false;
            }
        }
        states.is_reached(self.tokens.len())
    }

    /// Compares the literal bytes only, which decides nearly all paths.
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

/// The tokens that may match next, at this byte and at the next four.
struct MatchStates {
    /// The first element is for the current byte. A character has up to four bytes.
    at: [Vec<bool>; 5],
    /// The `**/` tokens that were entered: each may end after any slash from here on.
    entered: Vec<bool>,
}

impl MatchStates {
    fn new(n_tokens: usize) -> Self {
        let none = vec![false; n_tokens + 1];
        let mut states = Self { at: std::array::from_fn(|_| none.clone()), entered: none };
        states.reach(0, 0);
        states
    }

    fn is_reached(&self, token: usize) -> bool {
        let [now, ..] = &self.at;
        now.get(token).copied().unwrap_or(false)
    }

    /// Records that `token` may match next, `n_bytes` from here.
    fn reach(&mut self, n_bytes: usize, token: usize) {
        if let Some(state) = self.at.get_mut(n_bytes).and_then(|at| at.get_mut(token)) {
            *state = true;
        }
    }

    /// Skips tokens that match nothing here, and ends `**/` after a slash.
    fn skip_empty(&mut self, tokens: &[Token], after_slash: bool) {
        for (at, token) in tokens.iter().enumerate() {
            let is_reached = self.is_reached(at);
            let is_open = matches!(token, Token::Star | Token::Anything | Token::Directories);
            let Some(entered) = self.entered.get_mut(at) else { continue };
            let ends_here = *entered && after_slash;
            *entered |= is_reached && *token == Token::Directories;
            if ends_here || is_reached && is_open {
                self.reach(0, at + 1);
            }
        }
    }

    /// Advances to the next byte; returns false if no match is possible any more.
    fn advance(&mut self) -> bool {
        let [now, ..] = &mut self.at;
        now.fill(false);
        self.at.rotate_left(1);
        self.at.iter().chain([&self.entered]).any(|states| states.contains(&true))
    }
}

impl Token {
    /// Returns the byte, if the token matches only one.
    const fn byte(&self) -> Option<u8> {
        if let Self::Byte(byte) = self { Some(*byte) } else { None }
    }

    /// Returns whether this single-character token matches `c`.
    fn takes(&self, c: char) -> bool {
        match self {
            Self::AnyChar => c != '/',
            Self::Class(class) => {
                let is_in = |(low, high): &(char, char)| (*low..=*high).contains(&c);
                class.ranges.iter().any(is_in) != class.negated
            }
            Self::Byte(_) | Self::Star | Self::Anything | Self::Directories => false,
        }
    }
}

/// Returns the first character and its length; an invalid UTF-8 byte counts as one.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let chunk = bytes.get(..bytes.len().min(4))?.utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => Some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

/// Makes a leading `**name`, without other wildcards, match any path that ends with `name`, also
/// inside a name: the "suffix match" of moby/patternmatcher
/// (<https://github.com/moby/patternmatcher>).
fn relax_leading_double_star(pattern: &str, tokens: &mut [Token]) {
    let Some(rest) = pattern.strip_prefix("**") else { return };
    if rest.starts_with('/') || rest.contains(['*', '?', '[', ']', '\\']) {
        return;
    }
    if let Some(first @ Token::Directories) = tokens.first_mut() {
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

struct GlobParser<'a> {
    rest: &'a str,
    double_star: DoubleStar,
    tokens: Vec<Token>,
}

impl GlobParser<'_> {
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
        self.tokens.push(if last { Token::Anything } else { Token::Directories });
    }

    fn class(&mut self) -> Result<(), GlobError> {
        let negated = self.next_if('^');
        let mut ranges = Vec::new();
        while ranges.is_empty() || !self.next_if(']') {
            let low = self.class_char()?;
            let high = if self.next_if('-') { self.class_char()? } else { low };
            ranges.push((low, high));
        }
        self.tokens.push(Token::Class(Box::new(CharClass { negated, ranges })));
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
    use proptest::prelude::*;

    use super::*;

    /// The meaning of a pattern, written as simply as it can be.
    fn fits(tokens: &[Token], text: &[u8]) -> bool {
        let Some((wanted, more)) = tokens.split_first() else { return text.is_empty() };
        let after = |n_bytes: usize| fits(more, &text[n_bytes..]);
        let ends = 0..=text.len();
        match wanted {
            Token::Byte(byte) => text.first() == Some(byte) && after(1),
            Token::AnyChar | Token::Class(_) => {
                first_char(text).is_some_and(|(c, n_bytes)| wanted.takes(c) && after(n_bytes))
            }
            Token::Star => ends.take_while(|n| !text[..*n].contains(&b'/')).any(after),
            Token::Anything => ends.into_iter().any(after),
            Token::Directories => ends.filter(|n| *n == 0 || text[n - 1] == b'/').any(after),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_plain_definition(
            pattern in "([ab/?é*]|\\*\\*|\\*\\*/|\\[a-é\\]|\\[\\^b\\]){0,7}",
            text in "[ab/é]{0,9}",
        ) {
            for double_star in [DoubleStar::Directories, DoubleStar::AsSingle] {
                let glob = Glob::new(&pattern, double_star).unwrap();
                let want = fits(&glob.tokens, text.as_bytes());
                prop_assert_eq!(glob.matches(text.as_bytes()), want, "{} {}", pattern, text);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_count_as_characters() {
        for (pattern, text, want) in [
            ("a?b", &b"a\xffb"[..], true),
            ("a?b", b"a\xff\xffb", false),
            ("a??b", b"a\xc3(b", true),
            ("*b", b"\xf0\x90b", true),
        ] {
            let glob = Glob::new(pattern, DoubleStar::AsSingle).unwrap();
            assert_eq!(glob.matches(text), want, "{pattern} {text:?}");
            assert_eq!(fits(&glob.tokens, text), want, "{pattern} {text:?}");
        }
    }

    fn names(pattern: &str, text: &str) -> bool {
        Glob::new(pattern, DoubleStar::AsSingle).unwrap().matches(text.as_bytes())
    }

    fn paths(pattern: &str, text: &str) -> bool {
        Glob::new(pattern, DoubleStar::Directories).unwrap().matches(text.as_bytes())
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
    fn two_stars_cross_directories() {
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
    fn many_stars_match_in_polynomial_time() {
        assert!(!paths(&"a*".repeat(100), &format!("{}/a", "a".repeat(4000))));
        assert!(!paths(&"**/a".repeat(50), &"a/".repeat(2000)));
        assert!(!paths(&"**/a*".repeat(MAX_ONE_PATTERN_BYTES / 5), &"a/".repeat(2000)));
        let error = Glob::new(&"a".repeat(MAX_ONE_PATTERN_BYTES + 1), DoubleStar::AsSingle);
        assert_eq!(error, Err(GlobError::TooLong));
    }

    #[test]
    fn wildcards_are_recognised_unless_escaped() {
        assert!(has_wildcard("a*") && has_wildcard("[x]") && has_wildcard("\\\\?"));
        assert!(!has_wildcard("a\\*b") && !has_wildcard("plain"));
        assert_eq!(unescape("a\\*b\\\\c"), "a*b\\c");
    }
}
