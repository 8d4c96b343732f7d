//! Complaints about a Dockerfile: where (byte spans), what (code and message), why (labels) and
//! what to do (help); rendered to text only here.
//!
//! The module knows nothing of instructions: modules above it make the diagnostics.

mod code;
mod fix;
mod render;
mod size;
mod span;
mod suggest;

pub use code::{Code, all as all_codes};
pub use fix::{Edit, Fix, apply as apply_fixes};
pub use render::{MAX_SHOWN, Style, render};
pub use size::{parse_size, size};
pub use span::{LineColumn, SourceFile, Span, Spanned};
pub use suggest::nearest;

pub mod codes {
    //! Every diagnostic code by name.
    pub use super::code::constants::*;
}

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The build goes on.
    Warning,
    /// Nothing is built.
    Error,
}

/// A remark at a place of the Dockerfile, beside the main one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The bytes that it is about.
    pub span: Span,
    /// What is to be said about them.
    pub text: String,
}

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Its stable name.
    pub code: Code,
    /// The bytes of the Dockerfile that it is about; empty at the end of the file when something
    /// is missing.
    pub span: Span,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// Text under the excerpt; the first label usually has the diagnostic's own span.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub helps: Vec<String>,
    /// The one safe way to do it, if there is one.
    pub fix: Option<Fix>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, span, message.into())
    }

    /// A warning at `span`.
    pub fn warning(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, span, message.into())
    }

    fn new(severity: Severity, code: Code, span: Span, message: String) -> Self {
        Self { severity, code, span, message, labels: Vec::new(), helps: Vec::new(), fix: None }
    }

    /// Adds a remark at `span`.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.helps.push(text.into());
        self
    }

    /// Adds advice if there is any.
    #[must_use]
    pub fn maybe_help(self, text: Option<impl Into<String>>) -> Self {
        match text {
            Some(text) => self.help(text),
            None => self,
        }
    }

    /// Adds the edits that mend it, unless one of them cannot be made.
    #[must_use]
    pub fn maybe_fix(mut self, edits: impl IntoIterator<Item = Option<Edit>>) -> Self {
        let edits: Option<Vec<Edit>> = edits.into_iter().collect();
        self.fix = edits.filter(|edits| !edits.is_empty()).map(|edits| Fix { edits });
        self
    }

    /// Whether it stops the build.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
