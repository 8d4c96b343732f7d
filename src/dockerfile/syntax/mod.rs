//! Bytes of a Dockerfile → IR and diagnostics.
//!
//! The module knows lines, directives, flags, heredocs and the forms of each instruction; it never
//! expands a variable and never looks at a file. Reading goes in two steps: `lines` folds
//! continued lines into logical ones that remember where each byte stood, and `instruction` reads
//! those. Both report what is wrong and go on.

mod blank;
mod context;
mod directive;
mod exec_form;
mod flag;
mod folded;
mod heredoc;
mod instruction;
mod keyword;
mod lines;
mod value;

pub use directive::{check_options, is_own_frontend};

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::ir::{Dockerfile, Escape, Instruction, Kind, Stage};

use instruction::Parsed;
use lines::Reader;

/// Parses a whole Dockerfile: the IR of what could be read, and everything there is to say.
///
/// Parsing never stops at an error; when one is reported, what it is about is missing from the
/// IR.
///
/// grammar: dockerfile
#[must_use]
pub fn parse(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let head = directive::head(text, &mut diagnostics);
    let escape = head.directives.escape.map_or(Escape::default(), |escape| escape.value);
    let mut assembly = Assembly {
        file: Dockerfile { directives: head.directives, ..Dockerfile::default() },
        ..Assembly::default()
    };
    let mut reader = Reader::new(text, head.end, escape);
    while let Some(line) = reader.next(&mut diagnostics) {
        let parsed = instruction::parse(text, &line, escape, &mut diagnostics);
        assembly.take(parsed, &line, &mut diagnostics);
    }
    assembly.finish(text, &mut diagnostics);
    (assembly.file, diagnostics)
}

/// Parses one instruction, such as an ONBUILD trigger in a base image's config: the escape
/// character is `\`, and heredoc bodies may follow. Spans are relative to `text`.
///
/// grammar: trigger_text
#[must_use]
pub fn parse_trigger(text: &str) -> (Option<Instruction>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let escape = Escape::Backslash;
    let mut reader = Reader::new(text, 0, escape);
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

/// Instructions put into their stages.
#[derive(Debug, Default)]
struct Assembly {
    file: Dockerfile,
    /// Whether there was an instruction at all, good or bad.
    any: bool,
    /// Whether there was a FROM, good or bad.
    any_from: bool,
    /// Whether it was said that an instruction stands before the first FROM.
    before_from: bool,
}

impl Assembly {
    /// grammar: stage
    fn take(&mut self, parsed: Parsed, line: &lines::Logical, diagnostics: &mut Vec<Diagnostic>) {
        self.any = true;
        match parsed {
            Parsed::From(from, span, text) => {
                self.any_from = true;
                let (skip_checks, instructions) = (line.skip_checks.clone(), Vec::new());
                self.file.stages.push(Stage { from, span, text, skip_checks, instructions });
            }
            Parsed::BadFrom => self.any_from = true,
            Parsed::Instruction(instruction) => match self.file.stages.last_mut() {
                Some(stage) => stage.instructions.push(instruction),
                None if self.any_from => {}
                None if matches!(instruction.kind, Kind::Arg(_)) => {
                    self.file.meta_args.push(instruction);
                }
                None => self.too_early(line, diagnostics),
            },
            Parsed::Bad { arg: true } => {}
            Parsed::Bad { arg: false } => {
                if !self.any_from {
                    self.too_early(line, diagnostics);
                }
            }
            // It may have been meant to be FROM: what follows is not to blame.
            Parsed::Unknown => self.any_from |= !self.before_from,
        }
    }

    fn too_early(&mut self, line: &lines::Logical, diagnostics: &mut Vec<Diagnostic>) {
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
