//! Errors of expansion, and their diagnostics.

use std::ops::Range;

use crate::diag::{Diagnostic, Span, codes};

/// A word that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ExpandError {
    /// Range of the word that caused the error.
    pub at: Range<usize>,
    /// The kind of error, which is also its message.
    pub kind: ExpandErrorKind,
    /// Length of the word in bytes. Offsets in the word are offsets in the source if it has the same
    /// length there.
    pub(super) text_bytes: usize,
}

/// The reason why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandErrorKind {
    /// A quote without its end: `'…` or `"…`
    #[error("a {} quote is not closed", if *.0 == '"' { "double" } else { "single" })]
    UnclosedQuote(char),
    /// A `${…` without its `}`
    #[error("missing `}}` after `{0}`")]
    UnclosedBrace(String),
    /// An expression without a name: `${}`, `${{x}}`, `${:…}`
    #[error("bad substitution `{0}`")]
    BadSubstitution(String),
    /// `${x/pattern` without the second `/`
    #[error("missing `/` between pattern and replacement in `{0}`")]
    MissingSlash(String),
    /// An operator that does not exist, such as `:=`
    #[error("unsupported modifier `{modifier}` in `${{{name}{modifier}…}}`")]
    BadModifier {
        /// Name of the variable.
        name: String,
        /// Operator as written.
        modifier: String,
    },
    /// `${x:?message}` of an unset or empty variable
    #[error("{name}: {message}")]
    Required {
        /// Name of the variable.
        name: String,
        /// Message after `:?`, or a default one.
        message: String,
    },
    /// A pattern with an escape that it does not support
    #[error("bad pattern `{pattern}`: `{escape}` is not a valid escape")]
    BadPattern {
        /// Pattern after its variables were replaced.
        pattern: String,
        /// Escape character and the character after it.
        escape: String,
    },
    /// A pattern longer than the limit, given in characters
    #[error("the pattern is longer than {0} characters")]
    LongPattern(usize),
    /// Expressions nested deeper than the limit
    #[error("`${{…}}` is nested more than {0} deep")]
    TooDeep(usize),
    /// A result longer than the limit, given in bytes beyond the text
    #[error("expansion makes the text longer by more than {0} bytes")]
    TooLong(usize),
}

impl ExpandError {
    /// Makes a diagnostic that points into `word`, the span of the text in the source.
    ///
    /// The bytes of a word across continued lines differ from the source; the diagnostic points to
    /// the whole word then.
    #[must_use]
    pub fn diagnostic(&self, word: Span) -> Diagnostic {
        let exact = word.end - word.start == self.text_bytes;
        let span = if exact {
            Span::new(word.start + self.at.start, word.start + self.at.end)
        } else {
            word
        };
        let code = match self.kind {
            ExpandErrorKind::UnclosedQuote(_) => codes::UNCLOSED_QUOTE,
            ExpandErrorKind::Required { .. } => codes::REQUIRED_VARIABLE,
            ExpandErrorKind::UnclosedBrace(_)
            | ExpandErrorKind::BadSubstitution(_)
            | ExpandErrorKind::MissingSlash(_)
            | ExpandErrorKind::BadModifier { .. }
            | ExpandErrorKind::BadPattern { .. }
            | ExpandErrorKind::LongPattern(_)
            | ExpandErrorKind::TooDeep(_)
            | ExpandErrorKind::TooLong(_) => codes::BAD_SUBSTITUTION,
        };
        let diagnostic = Diagnostic::error(code, span, self.kind.to_string());
        match self.label() {
            Some(label) => diagnostic.label(span, label),
            None => diagnostic,
        }
        .maybe_help(self.help())
    }

    fn label(&self) -> Option<&'static str> {
        match self.kind {
            ExpandErrorKind::UnclosedQuote(_) => Some("the quote opens here"),
            ExpandErrorKind::UnclosedBrace(_) => Some("the brace opens here"),
            ExpandErrorKind::BadSubstitution(_) => Some("expected the name of a variable"),
            ExpandErrorKind::MissingSlash(_) => Some("expected `${name/pattern/replacement}`"),
            ExpandErrorKind::BadModifier { .. } => Some("unknown operator"),
            ExpandErrorKind::Required { .. } => Some("required here"),
            ExpandErrorKind::TooLong(_) => Some("this exceeds the limit"),
            ExpandErrorKind::BadPattern { .. }
            | ExpandErrorKind::LongPattern(_)
            | ExpandErrorKind::TooDeep(_) => None,
        }
    }

    fn help(&self) -> Option<String> {
        match &self.kind {
            ExpandErrorKind::UnclosedQuote(quote) => {
                Some(format!("add the closing quote, or write `\\{quote}` for a literal one"))
            }
            ExpandErrorKind::BadModifier { .. } => Some(
                "supported operators are `:-`, `-`, `:+`, `+`, `:?`, `?`, `#`, `##`, `%`, `%%`, `/` \
                 and `//`"
                    .to_owned(),
            ),
            ExpandErrorKind::Required { name, .. } => {
                Some(format!("set it with ARG or ENV before this line, or `--build-arg {name}=…`"))
            }
            ExpandErrorKind::BadPattern { .. } => {
                Some("only `*`, `?` and `\\` can be escaped in a pattern".to_owned())
            }
            ExpandErrorKind::UnclosedBrace(_)
            | ExpandErrorKind::BadSubstitution(_)
            | ExpandErrorKind::MissingSlash(_)
            | ExpandErrorKind::LongPattern(_)
            | ExpandErrorKind::TooDeep(_)
            | ExpandErrorKind::TooLong(_) => None,
        }
    }
}
