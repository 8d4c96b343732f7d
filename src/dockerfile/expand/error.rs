//! What can be wrong with a word.

use std::ops::Range;

use crate::diag::{Diagnostic, Span, codes};

/// A word that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ExpandError {
    /// The bytes of the word that are wrong.
    pub at: Range<usize>,
    /// What is wrong.
    pub kind: ExpandErrorKind,
    /// Length of the word, to tell whether offsets in it are offsets in the source.
    pub(super) text_bytes: usize,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandErrorKind {
    /// `'…` or `"…`
    #[error("a {} quote is not closed", if *.0 == '"' { "double" } else { "single" })]
    UnclosedQuote(char),
    /// `${…` without `}`
    #[error("missing `}}` after `{0}`")]
    UnclosedBrace(String),
    /// `${}`, `${{x}}`, `${:…}`
    #[error("bad substitution `{0}`")]
    BadSubstitution(String),
    /// `${x/pattern` without the second `/`
    #[error("missing `/` between pattern and replacement in `{0}`")]
    MissingSlash(String),
    /// An operator that does not exist, such as `:=`
    #[error("unsupported modifier `{modifier}` in `${{{name}{modifier}…}}`")]
    BadModifier {
        /// The variable.
        name: String,
        /// The operator as written.
        modifier: String,
    },
    /// `${x:?message}` of an unset or empty variable
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message given, or why there is an error.
        message: String,
    },
    /// A pattern that escapes an ordinary character
    #[error("bad pattern `{pattern}`: `{escape}` escapes nothing that is special")]
    BadPattern {
        /// The pattern, variables replaced.
        pattern: String,
        /// The escape character with what follows it.
        escape: String,
    },
    /// A pattern beyond any use
    #[error("a pattern has more than {0} characters")]
    LongPattern(usize),
    /// Expressions in expressions beyond any sense
    #[error("`${{…}}` is nested more than {0} deep")]
    TooDeep(usize),
    /// Variables in variables that grow with every line
    #[error("the value is more than {0} bytes longer than what is written")]
    TooLong(usize),
}

impl ExpandError {
    /// The error as a diagnostic that points into `word`, the place the text was written at.
    ///
    /// When the word spans continued lines its bytes are not those of the source, and the whole
    /// word is pointed at.
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
            ExpandErrorKind::BadModifier { .. } => Some("no such operator"),
            ExpandErrorKind::Required { .. } => Some("required here"),
            ExpandErrorKind::TooLong(_) => Some("too long from here on"),
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
                "known operators are `:-`, `-`, `:+`, `+`, `:?`, `?`, `#`, `##`, `%`, `%%`, `/` \
                 and `//`"
                    .to_owned(),
            ),
            ExpandErrorKind::Required { name, .. } => {
                Some(format!("set it with ARG or ENV before this line, or `--build-arg {name}=…`"))
            }
            ExpandErrorKind::BadPattern { .. } => {
                Some("in patterns `*`, `?` and `\\` can be escaped".to_owned())
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
