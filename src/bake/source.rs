//! Definition files, positions in them, and errors about them.

use std::fmt;

use crate::diag::{Code, Diagnostic, SourceFile, Span, codes};

/// A definition file as bytes; the caller has read it.
#[derive(Debug, Clone)]
pub struct DefinitionFile {
    /// Path as the user gave it; `-` for standard input.
    pub name: String,
    /// Content.
    pub data: Vec<u8>,
}

/// A position in one of the definition files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index in the list of files.
    pub file: usize,
    /// Bytes of that file.
    pub span: Span,
}

impl Place {
    /// Makes a position.
    #[must_use]
    pub const fn new(file: usize, span: Span) -> Self {
        Self { file, span }
    }
}

/// An error of a definition: at a position, or about the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakeError {
    /// Error in one sentence.
    pub message: String,
    /// Position that the error is about.
    pub at: Option<Place>,
    /// Remark under the excerpt.
    pub label: Option<String>,
    /// Advice.
    pub help: Option<String>,
    /// Code of the kind of error.
    pub code: Code,
    /// If set, `try` and `can` do not catch it: a cycle, or a definition that is wrong elsewhere.
    pub fatal: bool,
}

impl BakeError {
    /// Makes an error about the command line or all files.
    pub fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        let code = codes::BAKE_DEFINITION;
        Self { message, at: None, label: None, help: None, code, fatal: false }
    }

    /// Makes an error at a position.
    pub fn at(place: Place, message: impl Into<String>) -> Self {
        Self { at: Some(place), ..Self::new(message) }
    }

    /// Makes an error of the syntax at a position.
    pub fn syntax(place: Place, message: impl Into<String>) -> Self {
        Self { code: codes::BAKE_SYNTAX, ..Self::at(place, message) }
    }

    /// Adds the position if the error has none.
    #[must_use]
    pub fn or_at(self, place: Place) -> Self {
        Self { at: self.at.or(Some(place)), ..self }
    }

    /// Adds a remark under the excerpt.
    #[must_use]
    pub fn label(self, text: impl Into<String>) -> Self {
        Self { label: Some(text.into()), ..self }
    }

    /// Adds advice.
    #[must_use]
    pub fn help(self, text: impl Into<String>) -> Self {
        Self { help: Some(text.into()), ..self }
    }

    /// Makes the error uncatchable.
    #[must_use]
    pub fn fatal(self) -> Self {
        Self { fatal: true, ..self }
    }

    /// Returns the error as a diagnostic and the file that it points into.
    #[must_use]
    pub fn diagnostic(&self, files: &[DefinitionFile]) -> Option<(Diagnostic, SourceFile)> {
        let place = self.at?;
        let file = files.get(place.file)?;
        let text = String::from_utf8_lossy(&file.data);
        // The parsers do not see a byte order mark.
        let source = SourceFile::new(&file.name, text.trim_start_matches('\u{feff}'));
        let mut diagnostic = Diagnostic::error(self.code, place.span, &self.message);
        if let Some(label) = &self.label {
            diagnostic = diagnostic.label(place.span, label);
        }
        Some((diagnostic.maybe_help(self.help.as_ref()), source))
    }
}

impl fmt::Display for BakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BakeError {}
