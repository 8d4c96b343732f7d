//! Reads a word character by character and produces its expansion.

mod operation;

use std::collections::BTreeSet;
use std::ops::Range;

use crate::dockerfile::ir::Escape;

use super::output::ExpandedText;
use super::{ExpandError, ExpandErrorKind, Lookup, MAX_GROWTH};

/// Maximum nesting of `${a:-${b:-…}}`; without a limit, deep nesting overflows the stack.
const MAX_DEPTH: usize = 100;

/// The role of `'` and `"`: they quote, or they are ordinary characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuoteHandling {
    Special,
    Plain,
}

/// The treatment of escape characters: removed, or kept for the parser of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EscapeHandling {
    Removed,
    Kept,
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    escape: char,
    quotes: QuoteHandling,
    escapes: EscapeHandling,
    env: &'a Lookup<'a>,
    undefined: Vec<String>,
    known_undefined: BTreeSet<String>,
    depth: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(
        text: &'a str,
        escape: Escape,
        quotes: QuoteHandling,
        env: &'a Lookup<'_>,
    ) -> Self {
        Self {
            text,
            at: 0,
            escape: escape.char(),
            quotes,
            escapes: EscapeHandling::Removed,
            env,
            undefined: Vec::new(),
            known_undefined: BTreeSet::new(),
            depth: 0,
        }
    }

    /// Expands the whole text, and returns the undefined names that it used.
    ///
    /// grammar: word
    pub(super) fn run(mut self) -> Result<(ExpandedText, Vec<String>), ExpandError> {
        let output = self.until(None)?;
        Ok((output, self.undefined))
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at..).and_then(|rest| rest.chars().next())
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += char.len_utf8();
        Some(char)
    }

    fn skip(&mut self, char: char) -> bool {
        let found = self.peek() == Some(char);
        if found {
            self.at += char.len_utf8();
        }
        found
    }

    fn error<T>(&self, at: Range<usize>, kind: ExpandErrorKind) -> Result<T, ExpandError> {
        Err(ExpandError { at, kind, text_bytes: self.text.len() })
    }

    /// Returns the maximum length of the output.
    const fn max_bytes(&self) -> usize {
        self.text.len().saturating_add(MAX_GROWTH)
    }

    /// Fails if the text read since `start` makes the output too long.
    fn check_length(&self, n_bytes: usize, start: usize) -> Result<(), ExpandError> {
        if n_bytes > self.max_bytes() {
            return self.error(start..self.at, ExpandErrorKind::TooLong(MAX_GROWTH));
        }
        Ok(())
    }

    fn written_since(&self, start: usize) -> String {
        self.text.get(start..self.at).unwrap_or("").to_owned()
    }

    /// Reads up to `stop`, which is consumed, or to the end of the text.
    ///
    /// grammar: value
    /// grammar: word_part
    fn until(&mut self, stop: Option<char>) -> Result<ExpandedText, ExpandError> {
        let mut output = ExpandedText::default();
        while let Some(char) = self.peek() {
            if Some(char) == stop {
                self.next();
                return Ok(output);
            }
            match char {
                '$' => {
                    let start = self.at;
                    let value = self.dollar()?;
                    self.check_length(output.n_bytes() + value.len(), start)?;
                    output.push_split(&value);
                }
                '\'' if self.quotes == QuoteHandling::Special => {
                    let value = self.single_quoted()?;
                    output.push_whole(&value);
                }
                '"' if self.quotes == QuoteHandling::Special => {
                    let start = self.at;
                    let value = self.double_quoted()?;
                    self.check_length(output.n_bytes() + value.len(), start)?;
                    output.push_whole(&value);
                }
                other => {
                    self.next();
                    self.plain(other, &mut output);
                }
            }
        }
        match stop {
            None => Ok(output),
            // The caller knows where the expression starts and replaces this error.
            Some(_) => {
                self.error(self.at..self.at, ExpandErrorKind::UnclosedBrace(self.written_since(0)))
            }
        }
    }

    fn plain(&mut self, char: char, output: &mut ExpandedText) {
        let mut buffer = [0; 4];
        if char != self.escape {
            output.push_split(char.encode_utf8(&mut buffer));
            return;
        }
        if self.escapes == EscapeHandling::Kept {
            output.push_whole(char.encode_utf8(&mut buffer));
        }
        // An escape character at the end of the text is dropped.
        if let Some(escaped) = self.next() {
            output.push_whole(escaped.encode_utf8(&mut buffer));
        }
    }

    /// grammar: single_quoted
    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        let rest = self.text.get(self.at..).unwrap_or("");
        let Some(end) = rest.find('\'') else {
            return self.error(start..self.text.len(), ExpandErrorKind::UnclosedQuote('\''));
        };
        self.at += end + 1;
        Ok(rest.get(..end).unwrap_or("").to_owned())
    }

    /// grammar: double_quoted
    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        let mut value = String::new();
        while let Some(char) = self.peek() {
            match char {
                '"' => {
                    self.next();
                    return Ok(value);
                }
                '$' => {
                    let part = self.dollar()?;
                    self.check_length(value.len() + part.len(), start)?;
                    value.push_str(&part);
                }
                _ => {
                    self.next();
                    self.quoted_char(char, &mut value);
                }
            }
        }
        self.error(start..self.text.len(), ExpandErrorKind::UnclosedQuote('"'))
    }

    fn quoted_char(&mut self, char: char, value: &mut String) {
        if char != self.escape {
            value.push(char);
            return;
        }
        if self.escapes == EscapeHandling::Kept {
            value.push(char);
        }
        match self.peek() {
            None => {}
            Some(escaped) if escaped == '"' || escaped == '$' || escaped == self.escape => {
                self.next();
                value.push(escaped);
            }
            Some(_) => value.push(char),
        }
    }

    /// grammar: variable
    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(self.value_or_empty(&name));
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(start..self.at, ExpandErrorKind::TooDeep(MAX_DEPTH));
        }
        let value = self.braced(start)?;
        self.depth -= 1;
        Ok(value)
    }

    /// grammar: braced
    /// grammar: nameless_operation
    fn braced(&mut self, start: usize) -> Result<String, ExpandError> {
        self.next();
        match self.peek() {
            None => return self.unclosed(start),
            Some('{' | '}' | ':') => {
                let line = self.text.get(self.at..).unwrap_or("");
                self.at += line.find('}').map_or(line.len(), |end| end + 1);
                let written = self.written_since(start);
                return self.error(start..self.at, ExpandErrorKind::BadSubstitution(written));
            }
            Some(_) => {}
        }
        let name = self.name();
        let operator_at = self.at;
        match self.next() {
            None => self.unclosed(start),
            Some('}') => Ok(self.value_or_empty(&name)),
            Some('/') => self.replaced(start, &name),
            Some('#') => self.trimmed(start, &name, '#'),
            Some('%') => self.trimmed(start, &name, '%'),
            Some(operator @ ('-' | '+' | '?')) => self.conditional(start, &name, operator, false),
            Some(':') => match self.peek() {
                Some(operator @ ('-' | '+' | '?')) => {
                    self.next();
                    self.conditional(start, &name, operator, true)
                }
                None => self.unclosed(start),
                Some(_) => {
                    self.next();
                    self.bad_modifier(name, operator_at)
                }
            },
            Some(_) => self.bad_modifier(name, operator_at),
        }
    }

    fn bad_modifier<T>(&self, name: String, operator_at: usize) -> Result<T, ExpandError> {
        let modifier = self.written_since(operator_at);
        self.error(operator_at..self.at, ExpandErrorKind::BadModifier { name, modifier })
    }

    fn unclosed<T>(&self, start: usize) -> Result<T, ExpandError> {
        let written = self.text.get(start..).unwrap_or("").to_owned();
        self.error(start..self.text.len(), ExpandErrorKind::UnclosedBrace(written))
    }

    /// Reads the longest name at the current offset. Positional and special parameters count as names
    /// (POSIX Shell Command Language, 2.5.1 and 2.5.2).
    ///
    /// grammar: variable_name
    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some('0'..='9') => {
                while self.peek().is_some_and(|char| char.is_ascii_digit()) {
                    self.next();
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.next();
            }
            _ => {
                while self.peek().is_some_and(|char| char.is_ascii_alphanumeric() || char == '_') {
                    self.next();
                }
            }
        }
        self.written_since(start)
    }

    /// Looks up a variable. Special and positional parameters are never set.
    fn lookup(&self, name: &str) -> Option<String> {
        is_variable(name).then(|| (self.env)(name)).flatten()
    }

    fn value_or_empty(&mut self, name: &str) -> String {
        let value = self.lookup(name);
        if value.is_none() && is_variable(name) && self.known_undefined.insert(name.to_owned()) {
            self.undefined.push(name.to_owned());
        }
        value.unwrap_or_default()
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_')
}
