//! One instruction: keyword, flags, arguments.

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
use super::context::Context;
use super::keyword::Keyword;
use super::lines::Logical;

/// What a line turned out to be.
#[derive(Debug)]
pub(super) enum Parsed {
    /// A FROM, and its one-line text.
    From(ir::From, Span, String),
    /// Anything else.
    Instruction(Instruction),
    /// A FROM with errors, which have been reported.
    BadFrom,
    /// Another instruction with errors, which have been reported; `true` for ARG.
    Bad { arg: bool },
    /// No instruction, which has been reported.
    Unknown,
}

/// Reads the instruction of `line`.
///
/// grammar: instruction
pub(super) fn parse(
    source: &str,
    line: &Logical,
    escape: Escape,
    diagnostics: &mut Vec<Diagnostic>,
) -> Parsed {
    let text = trim(line.folded.text());
    let Some((mut context, rest)) = start(source, line, escape, text, diagnostics) else {
        return Parsed::Unknown;
    };
    let span = Span::new(context.span(text).start, line.end);
    if context.keyword == Keyword::From {
        return match from::from(&mut context, rest) {
            Some(from) => Parsed::From(from, span, text.to_owned()),
            None => Parsed::BadFrom,
        };
    }
    let arg = context.keyword == Keyword::Arg;
    let keyword = context.word(context.keyword_part);
    match kind(&mut context, rest) {
        Some(kind) => Parsed::Instruction(Instruction {
            span,
            keyword,
            text: text.to_owned(),
            skip_checks: line.skip_checks.clone(),
            kind,
        }),
        None => Parsed::Bad { arg },
    }
}

/// Reads the trigger in `text`, a part of `line`: what stands behind ONBUILD.
///
/// grammar: trigger
pub(super) fn trigger(
    source: &str,
    line: &Logical,
    escape: Escape,
    text: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Instruction> {
    let (mut context, rest) = start(source, line, escape, text, diagnostics)?;
    let forbidden = [Keyword::Onbuild, Keyword::From, Keyword::Maintainer];
    if forbidden.contains(&context.keyword) {
        let name = context.keyword.name();
        let part = context.keyword_part;
        let message = if context.keyword == Keyword::Onbuild {
            "chaining ONBUILD via `ONBUILD ONBUILD` is not allowed".to_owned()
        } else {
            format!("{name} is not allowed as an ONBUILD trigger")
        };
        context.error(codes::BAD_ONBUILD, part, message, "not allowed here");
        return None;
    }
    let keyword = context.word(context.keyword_part);
    let span = Span::new(context.span(text).start, line.end);
    let kind = kind(&mut context, rest)?;
    Some(Instruction { span, keyword, text: text.to_owned(), skip_checks: Vec::new(), kind })
}

fn start<'a>(
    source: &'a str,
    line: &'a Logical,
    escape: Escape,
    text: &'a str,
    diagnostics: &'a mut Vec<Diagnostic>,
) -> Option<(Context<'a>, &'a str)> {
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
    let context = Context { source, line, escape, keyword, keyword_part: word, diagnostics };
    Some((context, rest))
}

/// The end of the line above, if what stands at `at` looks like its continuation: that line ends as
/// no command does, or (where `indent_counts`) this one is indented.
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

fn kind<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    match context.keyword {
        Keyword::From => None,
        Keyword::Arg => pairs::arg(context, rest),
        Keyword::Env => pairs::env(context, rest),
        Keyword::Label => pairs::label(context, rest),
        Keyword::Run => run::run(context, rest),
        Keyword::Copy => copy::copy(context, rest),
        Keyword::Add => copy::add(context, rest),
        Keyword::Workdir => simple::workdir(context, rest),
        Keyword::User => simple::user(context, rest),
        Keyword::Stopsignal => simple::stopsignal(context, rest),
        Keyword::Maintainer => simple::maintainer(context, rest),
        Keyword::Expose => simple::expose(context, rest),
        Keyword::Volume => simple::volume(context, rest),
        Keyword::Shell => simple::shell(context, rest),
        Keyword::Cmd => run::cmd(context, rest),
        Keyword::Entrypoint => run::entrypoint(context, rest),
        Keyword::Healthcheck => healthcheck::healthcheck(context, rest),
        Keyword::Onbuild => onbuild(context, rest),
    }
}

/// grammar: onbuild
fn onbuild<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = context.no_flags(rest);
    if arguments.is_empty() {
        return simple::needs(context, "an instruction");
    }
    let line = context.line;
    let inner = trigger(context.source, line, context.escape, arguments, context.diagnostics)?;
    // As it is stored in the image: bodies follow with their tabs, as a later build reads them.
    // The blanks at its end are kept, as BuildKit keeps them.
    let line_text = line.folded.text();
    let end = line_text.trim_end_matches(is_blank).len();
    let mut text = arguments.to_owned();
    text.push_str(line_text.get(end..).unwrap_or_default().trim_end_matches('\r'));
    for opened in &line.heredocs {
        let body = &opened.heredoc.body;
        let raw = context.source.get(body.span.start..body.span.end).unwrap_or(&body.value);
        text.push('\n');
        text.push_str(raw);
        text.push_str(&opened.heredoc.name.value);
    }
    let span = Span::new(context.span(arguments).start, line.end);
    let text: Word = Spanned::new(text, span);
    Some(Kind::Onbuild(ir::Onbuild { text, instruction: Box::new(inner) }))
}
