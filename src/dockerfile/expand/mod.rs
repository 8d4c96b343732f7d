//! Expands the words of instructions: quotes, escapes and variables.
//!
//! The language is a subset of POSIX "Parameter Expansion"
//! (<https://pubs.opengroup.org/onlinepubs/9699919799/utilities/V3_chap02.html#tag_18_06_02>) with the
//! patterns of the Dockerfile reference
//! (<https://docs.docker.com/reference/dockerfile/#environment-replacement>). The module knows neither
//! instructions nor stages; variables come from a [`Lookup`].

mod error;
mod lex;
mod output;
mod pattern;

pub use error::{ExpandError, ExpandErrorKind};

use crate::dockerfile::ir::Escape;

use lex::{Lexer, QuoteHandling};

/// Maximum number of bytes by which an expansion may be longer than its text.
///
/// Variables made of variables double with each line, and nested `${x//…}` multiply. Linux limits one
/// string of an environment to 128 KiB, `MAX_ARG_STRLEN` (execve(2)).
pub const MAX_GROWTH: usize = 128 * 1024;

/// A lookup of variables; it returns `None` for an unset one.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The result of an expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded<T> {
    /// Text or words, with quotes removed and variables replaced.
    pub value: T,
    /// Unset names that were used without an operator for that case, such as `:-`; in order, each
    /// once.
    pub undefined: Vec<String>,
}

/// Expands `text` as one word; blanks are kept.
///
/// # Errors
/// Any [`ExpandErrorKind`]; `at` is a range of `text`.
pub fn word(text: &str, escape: Escape, env: &Lookup<'_>) -> Result<Expanded<String>, ExpandError> {
    let (output, undefined) = Lexer::new(text, escape, QuoteHandling::Special, env).run()?;
    Ok(Expanded { value: output.into_text(), undefined })
}

/// Expands `text` and splits the result at blanks outside of quotes.
///
/// One variable may give several words. Empty words are dropped.
///
/// # Errors
/// Any [`ExpandErrorKind`]; `at` is a range of `text`.
pub fn words(
    text: &str,
    escape: Escape,
    env: &Lookup<'_>,
) -> Result<Expanded<Vec<String>>, ExpandError> {
    let (output, undefined) = Lexer::new(text, escape, QuoteHandling::Special, env).run()?;
    Ok(Expanded { value: output.into_words(), undefined })
}

/// Expands the body of a heredoc, in which quotes are ordinary characters and `\` always escapes
/// (POSIX Shell Command Language, 2.7.4 "Here-Document").
///
/// # Errors
/// Any [`ExpandErrorKind`] but `UnclosedQuote`; `at` is a range of `body`.
///
/// grammar: heredoc_text
pub fn heredoc(body: &str, env: &Lookup<'_>) -> Result<Expanded<String>, ExpandError> {
    let (output, undefined) =
        Lexer::new(body, Escape::Backslash, QuoteHandling::Plain, env).run()?;
    Ok(Expanded { value: output.into_text(), undefined })
}
