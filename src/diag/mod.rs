//! Diagnostics: errors and warnings about a Dockerfile, with code, message, labels, help and fix.
//!
//! Locations are byte spans; only rendering turns them into lines and columns. The module does not
//! know the language: the modules that read it make the diagnostics.

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
    //! All diagnostic codes, by name.
    pub use super::code::constants::*;
}

/// The severity of a diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The build continues.
    Warning,
    /// The build does not start.
    Error,
}

/// A remark about a span of the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Bytes that the remark is about.
    pub span: Span,
    /// Text to show beside them.
    pub text: String,
}

/// An error or a warning about a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Severity: an error or a warning.
    pub severity: Severity,
    /// Stable name, such as `E0101`.
    pub code: Code,
    /// Bytes of the Dockerfile that it is about; empty where something is missing.
    pub span: Span,
    /// Error in one sentence, lower case and without a full stop.
    pub message: String,
    /// Remarks under the excerpt; the first usually has the span of the diagnostic.
    pub labels: Vec<Label>,
    /// Advice, one entry a line.
    pub helps: Vec<String>,
    /// Edits that resolve it, if there is one safe way to do so.
    pub fix: Option<Fix>,
}

impl Diagnostic {
    /// Makes an error at `span`.
    pub fn error(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, span, message.into())
    }

    /// Makes a warning at `span`.
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

    /// Adds a line of advice.
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

    /// Adds the edits that resolve it, or none if one of them is `None`.
    #[must_use]
    pub fn maybe_fix(mut self, edits: impl IntoIterator<Item = Option<Edit>>) -> Self {
        let edits: Option<Vec<Edit>> = edits.into_iter().collect();
        self.fix = edits.filter(|edits| !edits.is_empty()).map(|edits| Fix { edits });
        self
    }

    /// Returns whether it stops the build.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
