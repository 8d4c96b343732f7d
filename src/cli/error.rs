//! The error of a command: text for people, and an exit code.

use std::error::Error;
use std::fmt;

use crate::cli::display::redact;
use crate::cli::exit::Exit;
use crate::diag::{self, Diagnostic, SourceFile, Style};
use crate::executor::LAST_LINES;
use crate::plan::redacted;

/// The error that ends a command.
#[derive(Debug)]
pub(super) struct CliError {
    text: String,
    exit: Exit,
    findings: Option<Box<Findings>>,
    last_lines: Vec<String>,
    is_consequence: bool,
}

/// Diagnostics of a Dockerfile.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) source: SourceFile,
}

impl CliError {
    /// Returns an error with this text. Credentials in URLs are hidden.
    pub(super) fn new(text: impl Into<String>, exit: Exit) -> Self {
        let text: String = text.into();
        let text = redacted(&text);
        Self { text, exit, findings: None, last_lines: Vec::new(), is_consequence: false }
    }

    /// Returns the exit code.
    pub(super) const fn exit(&self) -> Exit {
        self.exit
    }

    /// Appends the text of another error.
    pub(super) fn and(self, other: Self) -> Self {
        Self::new(format!("{}\n{}", self.text.trim_end(), other.text), self.exit)
    }

    /// Returns an error with its chain of sources.
    pub(super) fn from_error(error: &dyn Error, exit: Exit) -> Self {
        Self::new(format!("error: {}", crate::executor::chain(error)), exit)
    }

    /// Returns diagnostics with excerpts of the source.
    pub(super) fn of_diagnostics(
        diagnostics: Vec<Diagnostic>,
        source: &SourceFile,
        style: Style,
        exit: Exit,
    ) -> Self {
        let (diagnostics, source) = (redact::diagnostics(&diagnostics), redact::source(source));
        let text = diag::render(&diagnostics, &source, style);
        let findings = Some(Box::new(Findings { diagnostics, source }));
        Self { findings, ..Self::new(text, exit) }
    }

    /// Puts the last output of the failed step above the text.
    pub(super) fn with_last_lines(mut self, lines: &[String]) -> Self {
        if !lines.is_empty() {
            let all = lines.len() >= LAST_LINES;
            let all = if all { " (`rbuild history logs` has all)" } else { "" };
            let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
            let head = format!("------\nlast lines of the failed step{all}:\n");
            self.text = format!("{head}{lines}------\n{}", self.text);
        }
        self.last_lines = lines.to_vec();
        self
    }

    /// Marks the error of a build that ended because another one failed.
    pub(super) fn into_consequence(self) -> Self {
        Self { is_consequence: true, ..self }
    }

    /// Names the target of a bake above the text.
    pub(super) fn of_target(mut self, name: &str) -> Self {
        if !self.is_reported() {
            self.text = format!("target {name} failed:\n{}", self.text);
        }
        self
    }

    /// Returns whether it ended because another build failed.
    pub(super) const fn is_consequence(&self) -> bool {
        self.is_consequence
    }

    /// Returns an error whose text was shown already.
    pub(super) fn reported(exit: Exit) -> Self {
        Self::new(String::new(), exit)
    }

    /// Returns whether the text was shown already.
    pub(super) const fn is_reported(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns the diagnostics, if the error has some.
    pub(super) fn findings(&self) -> Option<&Findings> {
        self.findings.as_deref()
    }

    /// Returns the last output of the failed step.
    pub(super) fn last_lines(&self) -> &[String] {
        &self.last_lines
    }

    /// Returns the message of the first error, without excerpts.
    pub(super) fn summary(&self) -> String {
        let first = self.findings.as_ref().and_then(|found| {
            let errors = found.diagnostics.iter();
            errors.clone().find(|found| found.is_error()).or_else(|| found.diagnostics.first())
        });
        let text = first.map_or(self.text.as_str(), |found| found.message.as_str());
        text.trim_end().trim_start_matches("error: ").to_owned()
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
