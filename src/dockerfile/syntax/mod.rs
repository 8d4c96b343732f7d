//! Parses the text of a Dockerfile into IR and diagnostics.
//!
//! Parsing takes two steps: `lines` folds continued lines into logical ones, which keep the source
//! offset of each byte, and `instruction` parses those. Both report errors and continue. Variables are
//! not expanded, and files are not read.

mod blank;
mod directive;
mod exec_form;
mod flag;
mod folded;
mod heredoc;
mod instruction;
mod keyword;
mod lines;
mod patience;
mod reader;
mod value;

pub use directive::{check_options, is_own_frontend};
pub use patience::parse_timeout;

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::ir::{Dockerfile, Escape, Instruction, Kind, Stage};

use instruction::ParsedLine;
use lines::LineReader;

/// Parses a Dockerfile and returns its IR and all diagnostics.
///
/// Parsing does not stop at an error. The part with the error is missing from the IR.
///
/// grammar: dockerfile
#[must_use]
pub fn parse(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let head = directive::head(text, &mut diagnostics);
    let escape = head.directives.escape.map_or(Escape::default(), |escape| escape.value);
    let mut builder = FileBuilder {
        file: Dockerfile { directives: head.directives, ..Dockerfile::default() },
        ..FileBuilder::default()
    };
    let mut reader = LineReader::new(text, head.end, escape);
    while let Some(line) = reader.next(&mut diagnostics) {
        let parsed = instruction::parse(text, &line, escape, &mut diagnostics);
        builder.take(parsed, &line, &mut diagnostics);
    }
    builder.finish(text, &mut diagnostics);
    (builder.file, diagnostics)
}

/// Parses one instruction, such as an ONBUILD trigger in the config of a base image.
///
/// The escape character is `\`, and heredoc bodies may follow. Spans are relative to `text`.
///
/// grammar: trigger_text
#[must_use]
pub fn parse_trigger(text: &str) -> (Option<Instruction>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let escape = Escape::Backslash;
    let mut reader = LineReader::new(text, 0, escape);
    let Some(line) = reader.next(&mut diagnostics) else {
        let message = "the trigger has no instruction";
        diagnostics.push(Diagnostic::error(codes::EMPTY_FILE, Span::at(0), message));
        return (None, diagnostics);
    };
    let trigger = blank::trim(line.folded.text());
    let parsed = instruction::trigger(text, &line, escape, trigger, &mut diagnostics);
    if let Some(next) = reader.next(&mut diagnostics) {
        let span = next.folded.span_of(blank::trim(next.folded.text()));
        diagnostics.push(
            Diagnostic::error(codes::BAD_ONBUILD, span, "a trigger must be one instruction")
                .label(span, "another instruction"),
        );
    }
    (parsed, diagnostics)
}

/// A Dockerfile under construction: sorts instructions into stages.
#[derive(Debug, Default)]
struct FileBuilder {
    file: Dockerfile,
    /// True after any instruction, valid or not.
    any: bool,
    /// True after any FROM, valid or not.
    any_from: bool,
    /// True once an instruction before the first FROM was reported.
    before_from: bool,
}

impl FileBuilder {
    /// grammar: stage
    fn take(
        &mut self,
        parsed: ParsedLine,
        line: &lines::LogicalLine,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        self.any = true;
        match parsed {
            ParsedLine::From(from, span, text) => {
                self.any_from = true;
                let loose = line.patience.as_ref().map(|found| patience::not_a_run(found, "FROM"));
                diagnostics.extend(loose);
                let (skip_checks, instructions) = (line.skip_checks.clone(), Vec::new());
                self.file.stages.push(Stage { from, span, text, skip_checks, instructions });
            }
            ParsedLine::BadFrom => self.any_from = true,
            ParsedLine::Instruction(instruction) => match self.file.stages.last_mut() {
                Some(stage) => stage.instructions.push(instruction),
                None if self.any_from => {}
                None if matches!(instruction.kind, Kind::Arg(_)) => {
                    self.file.meta_args.push(instruction);
                }
                None => self.too_early(line, diagnostics),
            },
            ParsedLine::Bad { arg: true } => {}
            ParsedLine::Bad { arg: false } => {
                if !self.any_from {
                    self.too_early(line, diagnostics);
                }
            }
            // It may be a misspelt FROM, so what follows is not reported as misplaced.
            ParsedLine::Unknown => self.any_from |= !self.before_from,
        }
    }

    fn too_early(&mut self, line: &lines::LogicalLine, diagnostics: &mut Vec<Diagnostic>) {
        if std::mem::replace(&mut self.before_from, true) {
            return;
        }
        let span = line.folded.span_of(blank::trim(line.folded.text()));
        diagnostics.push(
            Diagnostic::error(
                codes::NO_STAGE,
                span,
                "no build stage yet: only ARG is allowed before the first FROM",
            )
            .label(span, "expected FROM")
            .help("begin with `FROM image`, or with `FROM scratch` for an empty root file system"),
        );
    }

    fn finish(&self, text: &str, diagnostics: &mut Vec<Diagnostic>) {
        let end = Span::at(text.len());
        if !self.any {
            let empty = text.trim_start_matches('\u{feff}').trim().is_empty();
            let message = if empty {
                "the Dockerfile is empty"
            } else {
                "the Dockerfile has comments but no instructions"
            };
            diagnostics.push(Diagnostic::error(codes::EMPTY_FILE, end, message).help(
                "begin with `FROM image`, or with `FROM scratch` for an empty root file system",
            ));
        } else if !self.any_from && !self.before_from {
            diagnostics.push(
                Diagnostic::error(
                    codes::NO_STAGE,
                    end,
                    "the Dockerfile has no build stage: it has ARG but no FROM",
                )
                .help("add `FROM image` after the ARGs"),
            );
        }
    }
}
