//! Parses one instruction: keyword, flags and arguments.

mod copy;
mod from;
mod healthcheck;
mod mount;
mod pairs;
mod run;
mod simple;

use nom::Parser as _;
use nom::sequence::pair;

use crate::diag::{Diagnostic, MAX_SHOWN, Span, Spanned, codes};
use crate::dockerfile::ir::{self, Escape, Instruction, Kind, Word};

use super::blank::{bare_word, blanks0, is_blank, trim};
use super::keyword::Keyword;
use super::lines::LogicalLine;
use super::patience;
use super::reader::InstructionReader;

/// The result of parsing a logical line.
#[derive(Debug)]
pub(super) enum ParsedLine {
    /// A FROM, its span and its text in one line.
    From(ir::From, Span, String),
    /// Any other instruction.
    Instruction(Instruction),
    /// A FROM with errors, which are reported.
    BadFrom,
    /// Another instruction with errors, which are reported; `arg` is true for ARG.
    Bad { arg: bool },
    /// An unknown keyword, which is reported.
    Unknown,
}

/// Parses the instruction in `line`.
///
/// grammar: instruction
pub(super) fn parse(
    source: &str,
    line: &LogicalLine,
    escape: Escape,
    diagnostics: &mut Vec<Diagnostic>,
) -> ParsedLine {
    let text = trim(line.folded.text());
    let Some((mut reader, rest)) = start(source, line, escape, text, diagnostics) else {
        return ParsedLine::Unknown;
    };
    let span = Span::new(reader.span(text).start, line.end);
    if reader.keyword == Keyword::From {
        return match from::from(&mut reader, rest) {
            Some(from) => ParsedLine::From(from, span, text.to_owned()),
            None => ParsedLine::BadFrom,
        };
    }
    let arg = reader.keyword == Keyword::Arg;
    let keyword = reader.word(reader.keyword_part);
    let name = reader.keyword.name();
    match kind(&mut reader, rest) {
        Some(mut kind) => {
            set_patience(&mut kind, line, name, diagnostics);
            ParsedLine::Instruction(Instruction {
                span,
                keyword,
                text: text.to_owned(),
                skip_checks: line.skip_checks.clone(),
                kind,
            })
        }
        None => ParsedLine::Bad { arg },
    }
}

/// Gives a RUN the settings of the comment above it.
fn set_patience(
    kind: &mut Kind,
    line: &LogicalLine,
    keyword: &str,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Some(found) = &line.patience else { return };
    if let Kind::Run(run) = kind {
        run.patience = Some(found.value);
    } else {
        diagnostics.push(patience::not_a_run(found, keyword));
    }
}

/// Parses the trigger in `text`, the part of `line` after ONBUILD.
///
/// grammar: trigger
pub(super) fn trigger(
    source: &str,
    line: &LogicalLine,
    escape: Escape,
    text: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Instruction> {
    let (mut reader, rest) = start(source, line, escape, text, diagnostics)?;
    let forbidden = [Keyword::Onbuild, Keyword::From, Keyword::Maintainer];
    if forbidden.contains(&reader.keyword) {
        let name = reader.keyword.name();
        let part = reader.keyword_part;
        let message = if reader.keyword == Keyword::Onbuild {
            "chaining ONBUILD via `ONBUILD ONBUILD` is not allowed".to_owned()
        } else {
            format!("{name} is not allowed as an ONBUILD trigger")
        };
        reader.error(codes::BAD_ONBUILD, part, message, "not allowed here");
        return None;
    }
    let keyword = reader.word(reader.keyword_part);
    let span = Span::new(reader.span(text).start, line.end);
    let kind = kind(&mut reader, rest)?;
    Some(Instruction { span, keyword, text: text.to_owned(), skip_checks: Vec::new(), kind })
}

fn start<'a>(
    source: &'a str,
    line: &'a LogicalLine,
    escape: Escape,
    text: &'a str,
    diagnostics: &'a mut Vec<Diagnostic>,
) -> Option<(InstructionReader<'a>, &'a str)> {
    let (rest, (word, _)) = pair(bare_word, blanks0).parse(text).ok()?;
    let Some(keyword) = Keyword::from_word(word) else {
        let span = line.folded.span_of(word);
        let message = format!("unknown instruction `{word}`");
        let error = Diagnostic::error(codes::UNKNOWN_INSTRUCTION, span, message)
            .label(span, "expected a keyword such as RUN or COPY");
        if diagnostics.len() >= MAX_SHOWN {
            diagnostics.push(error);
            return None;
        }
        let near = Keyword::suggestion(word);
        diagnostics.push(match unfinished(source, span.start, near.is_none()) {
            Some(end) => {
                let help = "if this belongs to the line above, end that line with";
                error.label(end, "not continued").help(format!("{help} ` {}`", escape.char()))
            }
            None => error.maybe_help(near.map(|near| format!("did you mean `{near}`?"))),
        });
        return None;
    };
    let reader =
        InstructionReader { source, line, escape, keyword, keyword_part: word, diagnostics };
    Some((reader, rest))
}

/// Returns the end of the line above if the line at `at` looks like its continuation.
///
/// That is so if the line above ends in the middle of a command, or if this line is indented and
/// `indent_counts`.
fn unfinished(source: &str, at: usize, indent_counts: bool) -> Option<Span> {
    let (above, indent) = source.get(..at)?.rsplit_once('\n')?;
    let above = above.trim_end();
    let last = above.rsplit('\n').next().unwrap_or(above).trim_start();
    if last.is_empty() || last.starts_with('#') {
        return None;
    }
    let goes_on = ["&&", "||", "|", ";", ",", "("].iter().any(|end| last.ends_with(end));
    let is_indented = !indent.is_empty() && indent.trim().is_empty();
    let width = last.chars().next_back().map_or(0, char::len_utf8);
    let end = Span::new(above.len() - width, above.len());
    (goes_on || (indent_counts && is_indented)).then_some(end)
}

fn kind<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    match reader.keyword {
        Keyword::From => None,
        Keyword::Arg => pairs::arg(reader, rest),
        Keyword::Env => pairs::env(reader, rest),
        Keyword::Label => pairs::label(reader, rest),
        Keyword::Run => run::run(reader, rest),
        Keyword::Copy => copy::copy(reader, rest),
        Keyword::Add => copy::add(reader, rest),
        Keyword::Workdir => simple::workdir(reader, rest),
        Keyword::User => simple::user(reader, rest),
        Keyword::Stopsignal => simple::stopsignal(reader, rest),
        Keyword::Maintainer => simple::maintainer(reader, rest),
        Keyword::Expose => simple::expose(reader, rest),
        Keyword::Volume => simple::volume(reader, rest),
        Keyword::Shell => simple::shell(reader, rest),
        Keyword::Cmd => run::cmd(reader, rest),
        Keyword::Entrypoint => run::entrypoint(reader, rest),
        Keyword::Healthcheck => healthcheck::healthcheck(reader, rest),
        Keyword::Onbuild => onbuild(reader, rest),
    }
}

/// grammar: onbuild
fn onbuild<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = reader.no_flags(rest);
    if arguments.is_empty() {
        return simple::needs(reader, "an instruction");
    }
    let line = reader.line;
    let inner = trigger(reader.source, line, reader.escape, arguments, reader.diagnostics)?;
    // The trigger is stored in the image, where a later build parses it: bodies follow with their
    // tabs. Trailing blanks are kept, as BuildKit keeps them.
    let line_text = line.folded.text();
    let end = line_text.trim_end_matches(is_blank).len();
    let mut text = arguments.to_owned();
    text.push_str(line_text.get(end..).unwrap_or_default().trim_end_matches('\r'));
    for opened in &line.heredocs {
        let body = &opened.heredoc.body;
        let raw = reader.source.get(body.span.start..body.span.end).unwrap_or(&body.value);
        text.push('\n');
        text.push_str(raw);
        text.push_str(&opened.heredoc.name.value);
    }
    let span = Span::new(reader.span(arguments).start, line.end);
    let text: Word = Spanned::new(text, span);
    Some(Kind::Onbuild(ir::Onbuild { text, instruction: Box::new(inner) }))
}
