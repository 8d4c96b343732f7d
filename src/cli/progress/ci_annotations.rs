//! Log commands of CI systems: foldable groups, and annotations beside the code.

use std::fmt::Write as _;

use crate::cli::display::text::shown;
use crate::cli::environment::Environment;
use crate::cli::error::{CliError, Findings};
use crate::diag::{Diagnostic, Severity, SourceFile};
use crate::oci::Digest;

use super::out::Out;

/// The log commands of a CI system.
#[derive(Debug)]
pub(super) enum CiCommands {
    /// GitHub's workflow commands, each on a line of its own. Output of steps must not be taken for
    /// commands, so they are stopped in between, with a random token
    /// (<https://docs.github.com/en/actions/using-workflows/workflow-commands-for-github-actions>).
    GitHub {
        /// The token that resumes commands.
        token: String,
        /// Path of the Dockerfile in annotations, from the top of the repository.
        dockerfile: String,
    },
    /// GitLab's collapsible sections
    /// (<https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections>). Only these lines have a carriage return here.
    GitLab {
        /// Unix time of the start, and a clock that started then.
        now_s: i64,
        clock: std::time::Instant,
    },
}

impl CiCommands {
    /// Stops workflow commands. Called before anything else is printed.
    pub(super) fn begin(&self, out: &mut Out<'_>) {
        if let Self::GitHub { token, .. } = self {
            out.line(&format!("::stop-commands::{token}"));
        }
    }

    /// Resumes workflow commands. Called last.
    pub(super) fn end(&self, out: &mut Out<'_>) {
        if let Self::GitHub { token, .. } = self {
            out.line(&format!("::{token}::"));
        }
    }

    /// Writes a command between those that resume and stop commands.
    fn command(&self, command: &str, out: &mut Out<'_>) {
        self.end(out);
        out.line(command);
        self.begin(out);
    }

    /// Opens a group with this title.
    pub(super) fn open(&self, name: &str, title: &str, out: &mut Out<'_>) {
        let title = shown(title, false);
        match self {
            Self::GitHub { .. } => self.command(&format!("::group::{}", data(&title)), out),
            Self::GitLab { .. } => {
                let at = self.at_s();
                out.exact(&format!(
                    "\u{1b}[0Ksection_start:{at}:{name}[collapsed=true]\r\u{1b}[0K{title}"
                ));
            }
        }
    }

    /// Closes the group that is open.
    pub(super) fn close(&self, name: &str, out: &mut Out<'_>) {
        match self {
            Self::GitHub { .. } => self.command("::endgroup::", out),
            Self::GitLab { .. } => {
                let at = self.at_s();
                out.exact(&format!("\u{1b}[0Ksection_end:{at}:{name}\r\u{1b}[0K"));
            }
        }
    }

    /// Annotates a warning without location.
    pub(super) fn warning(&self, text: &str, out: &mut Out<'_>) {
        if let Self::GitHub { .. } = self {
            self.command(&format!("::warning title=rbuild::{}", data(text)), out);
        }
    }

    /// Annotates an error without location.
    pub(super) fn error(&self, text: &str, out: &mut Out<'_>) {
        if let Self::GitHub { .. } = self {
            self.command(&format!("::error title=rbuild::{}", data(text)), out);
        }
    }

    /// Annotates diagnostics at their locations.
    pub(super) fn diagnostics(&self, found: &[Diagnostic], source: &SourceFile, out: &mut Out<'_>) {
        if let Self::GitHub { dockerfile, .. } = self {
            for diagnostic in found {
                self.command(&annotation(diagnostic, source, dockerfile), out);
            }
        }
    }

    /// Annotates the error that ended the command.
    pub(super) fn failure(&self, error: &CliError, out: &mut Out<'_>) {
        match error.findings() {
            Some(Findings { diagnostics, source }) => self.diagnostics(diagnostics, source, out),
            None => self.error(&error.summary(), out),
        }
    }

    /// Sets the path of the Dockerfile in annotations.
    pub(super) fn set_dockerfile(&mut self, name: &str) {
        if let Self::GitHub { dockerfile, .. } = self {
            name.clone_into(dockerfile);
        }
    }

    /// Returns the Unix time in seconds.
    fn at_s(&self) -> i64 {
        match self {
            Self::GitHub { .. } => 0,
            Self::GitLab { now_s, clock } => {
                now_s.saturating_add(i64::try_from(clock.elapsed().as_secs()).unwrap_or(0))
            }
        }
    }
}

/// Returns `::error file=…,line=…::…` (GitHub, "Workflow commands", "Setting an error message").
fn annotation(diagnostic: &Diagnostic, source: &SourceFile, file: &str) -> String {
    let kind = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let from = source.line_column(diagnostic.span.start);
    let to = source.line_column(diagnostic.span.end.max(diagnostic.span.start));
    let mut text = format!(
        "::{kind} file={},title={},line={},endLine={}",
        property(file),
        property(diagnostic.code.as_str()),
        from.line,
        to.line
    );
    // GitHub ignores columns of an annotation over several lines.
    if from.line == to.line {
        write!(text, ",col={},endColumn={}", from.column, to.column).expect("a string takes all");
    }
    let helps = diagnostic.helps.iter().map(|help| format!("\nhelp: {help}"));
    let message: String = std::iter::once(diagnostic.message.clone()).chain(helps).collect();
    format!("{text}::{}", data(&message))
}

/// Returns the text of a command without control characters. Line ends, which would end the
/// command, are escaped as the runner expects it (actions/toolkit, `escapeData`).
fn data(text: &str) -> String {
    let encoded = text.replace('%', "%25");
    let line = |line: &str| {
        let parts: Vec<_> = line.split('\r').map(|part| shown(part, false)).collect();
        parts.join("%0D")
    };
    let lines: Vec<_> = encoded.split('\n').map(line).collect();
    lines.join("%0A")
}

/// Returns a property of a command. Commas and colons would end it.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Returns a token that output of steps cannot contain, since it is random.
pub(super) fn token(environment: &Environment) -> String {
    let mut bytes = [0; 20];
    // Without random numbers, the token still differs from run to run.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return format!("rbuild-{}", Digest::of(&environment.seed.to_le_bytes()).hex());
    }
    bytes.iter().fold("rbuild-".to_owned(), |token, byte| format!("{token}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{Span, codes};

    #[test]
    fn annotations_are_escaped_and_placed() {
        let source = SourceFile::new("Dockerfile", "FROM a\nRUN b \\\n c\n");
        let error = |span, message: &str| {
            annotation(&Diagnostic::error(codes::RUN_FAILED, span, message), &source, "a,b:c%/D")
        };
        assert_eq!(
            error(Span::new(5, 6), "50%\r\nof: it"),
            "::error file=a%2Cb%3Ac%25/D,title=E0404,line=1,endLine=1,col=6,endColumn=7::50%25%0D%0Aof: it"
        );
        assert_eq!(
            error(Span::new(7, 16), "x"),
            "::error file=a%2Cb%3Ac%25/D,title=E0404,line=2,endLine=3::x"
        );
        let helped = Diagnostic::warning(codes::RUN_FAILED, Span::at(0), "m").help("h");
        assert!(annotation(&helped, &source, "D").ends_with("::m%0Ahelp: h"));
        assert_eq!(
            error(Span::new(7, 16), "a\u{1b}[2J\u{9b}\u{7f}\u{202e}b\u{1b}]0;t\n\u{8}c"),
            "::error file=a%2Cb%3Ac%25/D,title=E0404,line=2,endLine=3::ab%0Ac"
        );
        assert_eq!(property("D\u{1b}[31m\u{2066},"), "D%2C");
    }
}
