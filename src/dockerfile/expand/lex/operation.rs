//! The operators of `${…}`: defaults, removal of a prefix or suffix, and replacement.

use crate::dockerfile::expand::pattern::{MatchLength, Pattern, PatternError};
use crate::dockerfile::expand::{ExpandError, ExpandErrorKind, MAX_GROWTH};
use crate::limits::MAX_PATTERN_CHARS;

use super::{EscapeHandling, Lexer};

impl Lexer<'_> {
    /// Reads an operand up to `stop`; `missing` makes the error if the text ends first.
    ///
    /// grammar: operand
    fn operand(
        &mut self,
        stop: char,
        escapes: EscapeHandling,
        missing: impl FnOnce(&Self) -> ExpandError,
    ) -> Result<String, ExpandError> {
        let outer = std::mem::replace(&mut self.escapes, escapes);
        let result = self.until(Some(stop));
        self.escapes = outer;
        match result {
            Ok(output) => Ok(output.into_text()),
            Err(error) if error.at.start == self.text.len() => Err(missing(self)),
            Err(error) => Err(error),
        }
    }

    /// grammar: operation
    fn operand_to_brace(
        &mut self,
        start: usize,
        escapes: EscapeHandling,
    ) -> Result<String, ExpandError> {
        self.operand('}', escapes, |lexer| {
            let written = lexer.text.get(start..).unwrap_or("").to_owned();
            ExpandError {
                at: start..lexer.text.len(),
                kind: ExpandErrorKind::UnclosedBrace(written),
                text_bytes: lexer.text.len(),
            }
        })
    }

    /// Applies `-`, `+` or `?`. With a colon (`or_empty`), an empty value counts as unset.
    pub(super) fn conditional(
        &mut self,
        start: usize,
        name: &str,
        operator: char,
        or_empty: bool,
    ) -> Result<String, ExpandError> {
        let word = self.operand_to_brace(start, EscapeHandling::Removed)?;
        let value = self.lookup(name);
        let unset = value.is_none();
        let usable = value.filter(|value| !(or_empty && value.is_empty()));
        match (operator, usable) {
            ('-', usable) => Ok(usable.unwrap_or(word)),
            ('+', usable) => Ok(usable.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let reason =
                    if unset { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { reason.to_owned() } else { word };
                let name = name.to_owned();
                self.error(start..self.at, ExpandErrorKind::Required { name, message })
            }
        }
    }

    /// Applies `#` or `%`, or with the longest match `##` or `%%`.
    pub(super) fn trimmed(
        &mut self,
        start: usize,
        name: &str,
        side: char,
    ) -> Result<String, ExpandError> {
        let word = self.operand_to_brace(start, EscapeHandling::Kept)?;
        let (text, length) = match word.strip_prefix(side) {
            Some(text) => (text, MatchLength::Longest),
            None => (word.as_str(), MatchLength::Shortest),
        };
        let pattern = self.pattern(text, start)?;
        let value = self.value_or_empty(name);
        Ok(match side {
            '#' => pattern.trim_prefix(&value, length),
            _ => pattern.trim_suffix(&value, length),
        }
        .to_owned())
    }

    /// Applies `/pattern/replacement` or `//pattern/replacement`.
    ///
    /// grammar: replaced
    pub(super) fn replaced(&mut self, start: usize, name: &str) -> Result<String, ExpandError> {
        let all = self.skip('/');
        let text = self.operand('/', EscapeHandling::Kept, |lexer| {
            let written = lexer.text.get(start..).unwrap_or("").to_owned();
            ExpandError {
                at: start..lexer.text.len(),
                kind: ExpandErrorKind::MissingSlash(written),
                text_bytes: lexer.text.len(),
            }
        })?;
        let with = self.operand_to_brace(start, EscapeHandling::Kept)?;
        let pattern = self.pattern(&text, start)?;
        let value = self.value_or_empty(name);
        match pattern.replace(&value, &with, all, self.max_bytes()) {
            Some(text) => Ok(text),
            None => self.error(start..self.at, ExpandErrorKind::TooLong(MAX_GROWTH)),
        }
    }

    fn pattern(&self, text: &str, start: usize) -> Result<Pattern, ExpandError> {
        Pattern::parse(text).or_else(|error| {
            let kind = match error {
                PatternError::Escape(escape) => {
                    ExpandErrorKind::BadPattern { pattern: text.to_owned(), escape }
                }
                PatternError::TooLong => ExpandErrorKind::LongPattern(MAX_PATTERN_CHARS),
            };
            self.error(start..self.at, kind)
        })
    }
}
