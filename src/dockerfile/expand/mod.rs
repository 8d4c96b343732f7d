//! Quotes and variables: what a word of an instruction says once the environment is known.
//!
//! The module knows the shell-like language inside words, and nothing of instructions, stages or
//! where the environment comes from: it is asked for through a [`Lookup`].

mod error;
mod lex;
mod output;
mod pattern;

pub use error::{ExpandError, ExpandErrorKind};

use crate::dockerfile::ir::Escape;

use lex::{Lexer, Quotes};

/// How many bytes an expansion may be longer than its text. Variables of variables double with each
/// line and nested `${x//…}` multiply, while Linux gives no program a variable of more than this.
pub const MAX_GROWTH: usize = 128 * 1024;

/// Looks a variable up; `None` if it is unset.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What came out of an expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded<T> {
    /// The text, quotes removed and variables replaced.
    pub value: T,
    /// Names that were used although unset, without an operator that provides for that; in order,
    /// each once.
    pub undefined: Vec<String>,
}

/// Expands `text` as one word: blanks stay.
///
/// # Errors
/// Any [`ExpandErrorKind`]; `at` is the place in `text`.
pub fn word(text: &str, escape: Escape, env: &Lookup<'_>) -> Result<Expanded<String>, ExpandError> {
    let (output, undefined) = Lexer::new(text, escape, Quotes::Special, env).run()?;
    Ok(Expanded { value: output.into_text(), undefined })
}

/// Expands `text` and splits the result at blanks outside of quotes, so that one variable may
/// give several words; empty words are dropped.
///
/// # Errors
/// Any [`ExpandErrorKind`]; `at` is the place in `text`.
pub fn words(
    text: &str,
    escape: Escape,
    env: &Lookup<'_>,
) -> Result<Expanded<Vec<String>>, ExpandError> {
    let (output, undefined) = Lexer::new(text, escape, Quotes::Special, env).run()?;
    Ok(Expanded { value: output.into_words(), undefined })
}

/// Expands the body of a heredoc: quotes are ordinary characters and the escape character is
/// always `\`.
///
/// # Errors
/// Any [`ExpandErrorKind`] but `UnclosedQuote`; `at` is the place in `body`.
///
/// grammar: heredoc_text
pub fn heredoc(body: &str, env: &Lookup<'_>) -> Result<Expanded<String>, ExpandError> {
    let (output, undefined) = Lexer::new(body, Escape::Backslash, Quotes::Plain, env).run()?;
    Ok(Expanded { value: output.into_text(), undefined })
}
