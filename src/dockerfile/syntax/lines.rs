//! Makes logical lines from source lines: comments, continuations and heredoc bodies.

use std::collections::HashMap;

use nom::bytes::complete::take_till;
use nom::character::complete::char;
use nom::combinator::{consumed, opt};
use nom::sequence::terminated;
use nom::{IResult, Parser as _};

use crate::diag::{Diagnostic, Span, Spanned, codes};
use crate::dockerfile::ir::{Escape, Heredoc, Patience};
use crate::limits::MAX_DOCKERFILE_LINE_BYTES;

use super::blank::is_blank;
use super::directive;
use super::folded::FoldedText;
use super::heredoc::{self, HeredocOpening};
use super::patience;

/// One line of the source text.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceLine<'a> {
    /// Offset of the first byte.
    pub(super) start: usize,
    /// The line without its ending.
    pub(super) text: &'a str,
    /// The line with its ending.
    pub(super) whole: &'a str,
}

impl SourceLine<'_> {
    fn span(&self) -> Span {
        Span::new(self.start, self.start + self.text.len())
    }
}

/// A heredoc and the offset of its opening in the folded line.
#[derive(Debug, Clone)]
pub(super) struct OpenedHeredoc {
    pub(super) at: usize,
    pub(super) heredoc: Heredoc,
}

/// The text of one instruction.
#[derive(Debug, Clone)]
pub(super) struct LogicalLine {
    /// Continued lines, joined, without comments.
    pub(super) folded: FoldedText,
    /// Heredocs that the line opens, in order.
    pub(super) heredocs: Vec<OpenedHeredoc>,
    /// Offset after the last terminator, or after the last byte that is not blank.
    pub(super) end: usize,
    /// Rules that comments directly above disable.
    pub(super) skip_checks: Vec<String>,
    /// Settings of a `# rbuild:` comment directly above.
    pub(super) patience: Option<Spanned<Patience>>,
}

/// An iterator over the logical lines of a file.
#[derive(Debug)]
pub(super) struct LineReader<'a> {
    source: &'a str,
    at: usize,
    escape: Escape,
    /// Comments on the lines directly above.
    comments: Vec<&'a str>,
    /// Offset of the last line with each text, built on first use. Without it, each `<< WORD` would
    /// scan the rest of the file.
    last_lines: Option<HashMap<&'a str, usize>>,
}

impl<'a> LineReader<'a> {
    /// Begins to read at byte `at` of `source`.
    pub(super) fn new(source: &'a str, at: usize, escape: Escape) -> Self {
        Self { source, at, escape, comments: Vec::new(), last_lines: None }
    }

    /// grammar: gap
    pub(super) fn next(&mut self, diagnostics: &mut Vec<Diagnostic>) -> Option<LogicalLine> {
        loop {
            let Some(line) = self.advance(diagnostics) else {
                self.leave_comments(diagnostics);
                return None;
            };
            let text = line.text.trim_start_matches(is_blank);
            if text.is_empty() {
                self.leave_comments(diagnostics);
            } else if text.starts_with('#') {
                self.comments.push(text);
            } else {
                let start = line.start + (line.text.len() - text.len());
                let logical = self.logical(start, text, diagnostics);
                if !logical.folded.text().trim_matches(is_blank).is_empty() {
                    return Some(logical);
                }
            }
        }
    }

    /// Forgets comments that no instruction follows directly.
    fn leave_comments(&mut self, diagnostics: &mut Vec<Diagnostic>) {
        patience::refuse_loose(self.source, &self.comments, diagnostics);
        self.comments.clear();
    }

    fn advance(&mut self, diagnostics: &mut Vec<Diagnostic>) -> Option<SourceLine<'a>> {
        let rest = self.source.get(self.at..).filter(|rest| !rest.is_empty())?;
        let (_, (whole, text)) = physical(rest).ok()?;
        let line = SourceLine { start: self.at, text: text.trim_end_matches('\r'), whole };
        self.at += whole.len();
        if text.len() > MAX_DOCKERFILE_LINE_BYTES {
            diagnostics.push(
                Diagnostic::error(
                    codes::LINE_TOO_LONG,
                    line.span(),
                    format!("line is longer than {MAX_DOCKERFILE_LINE_BYTES} bytes"),
                )
                .help("split it with line continuations, or COPY a file"),
            );
        }
        Some(line)
    }

    /// grammar: line_end
    fn logical(
        &mut self,
        start: usize,
        text: &'a str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> LogicalLine {
        let skip_checks = directive::skipped_checks(&self.comments);
        let patience = patience::patience(self.source, &self.comments, diagnostics);
        self.comments.clear();
        let folded = self.fold(start, text, diagnostics);
        let trimmed = folded.text().trim_matches(is_blank);
        let mut end = folded.span_of(trimmed).end;
        let mut heredocs = Vec::new();
        for opening in heredoc::openings(folded.text(), self.escape) {
            let span = folded.span_of(opening.part);
            if let Some((heredoc, past)) = self.body(&opening, span, diagnostics) {
                end = past;
                heredocs.push(OpenedHeredoc { at: opening.at, heredoc });
            }
        }
        LogicalLine { folded, heredocs, end, skip_checks, patience }
    }

    /// Joins a line with the lines that continue it.
    fn fold(
        &mut self,
        start: usize,
        text: &'a str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> FoldedText {
        let mut folded = FoldedText::default();
        let (mut at, mut part) = (start, text);
        let mut first_blank = None;
        while let Some(kept) = continued(part, self.escape) {
            folded.push(at, kept);
            let Some(line) = self.continuation(&mut first_blank, diagnostics) else {
                part = "";
                break;
            };
            (at, part) = (line.start, line.text);
        }
        folded.push(at, part);
        if let Some(span) = first_blank {
            let last = Span::new(at, at + part.trim_end_matches(is_blank).len());
            diagnostics.push(
                Diagnostic::warning(
                    codes::EMPTY_CONTINUATION,
                    span,
                    "empty line inside a continued instruction",
                )
                .label(span, "the instruction continues below")
                .label(last, "and ends here")
                .help("remove the line, or put a `#` on it"),
            );
        }
        folded
    }

    /// Returns the next line that is neither a comment nor blank.
    fn continuation(
        &mut self,
        first_blank: &mut Option<Span>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<SourceLine<'a>> {
        loop {
            let line = self.advance(diagnostics)?;
            let text = line.text.trim_start_matches(is_blank);
            if text.is_empty() {
                first_blank.get_or_insert(line.span());
            } else if text.starts_with('#') {
                patience::refuse_loose(self.source, &[text], diagnostics);
            } else {
                return Some(line);
            }
        }
    }

    /// Returns whether one of the remaining lines consists of `name`.
    fn has_line_below(&mut self, name: &str) -> bool {
        let source = self.source;
        let last_lines = self.last_lines.get_or_insert_with(|| {
            let starts = source.split_inclusive('\n').scan(0, |at, whole| {
                let start = *at;
                *at += whole.len();
                Some((whole.trim_end_matches('\n').trim_end_matches('\r'), start))
            });
            starts.collect()
        });
        last_lines.get(name).is_some_and(|last| *last >= self.at)
    }

    /// Reads the lines up to the terminator, and returns the offset after it. Returns `None` if the
    /// opening turns out to be a shift.
    ///
    /// grammar: heredoc_bodies
    fn body(
        &mut self,
        opening: &HeredocOpening<'_>,
        span: Span,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<(Heredoc, usize)> {
        if opening.spaced && !self.has_line_below(&opening.name) {
            return None;
        }
        let start = self.at;
        let mut text = String::new();
        let strip = |line: &'a str| {
            if opening.strip_tabs { line.trim_start_matches('\t') } else { line }
        };
        let mut end = None;
        while let Some(line) = self.advance(diagnostics) {
            if strip(line.text) == opening.name {
                end = Some((line.start, line.start + line.text.len()));
                break;
            }
            text.push_str(strip(line.whole));
        }
        let (body_end, past) = end.unwrap_or_else(|| {
            diagnostics.push(unterminated(opening, span));
            (self.at, self.at)
        });
        let heredoc = Heredoc {
            name: Spanned::new(opening.name.clone(), span),
            opening: Spanned::new(opening.part.to_owned(), span),
            expand: opening.expand,
            strip_tabs: opening.strip_tabs,
            body: Spanned::new(text, Span::new(start, body_end)),
        };
        Some((heredoc, past))
    }
}

/// grammar: newline
fn physical(input: &str) -> IResult<&str, (&str, &str)> {
    consumed(terminated(take_till(|char| char == '\n'), opt(char('\n')))).parse(input)
}

/// Returns the text of a line that continues on the next one: it ends with an escape character that
/// is not itself escaped, and perhaps blanks.
///
/// grammar: continuation
fn continued(line: &str, escape: Escape) -> Option<&str> {
    let kept = line.trim_end_matches([' ', '\t']).strip_suffix(escape.char())?;
    (!kept.ends_with(escape.char())).then_some(kept)
}

fn unterminated(opening: &HeredocOpening<'_>, span: Span) -> Diagnostic {
    let name = &opening.name;
    Diagnostic::error(
        codes::UNTERMINATED_HEREDOC,
        span,
        format!("unterminated heredoc: no line consists of `{name}`"),
    )
    .label(span, "opened here")
    .help(if opening.strip_tabs {
        format!("end it with a line that holds only `{name}`; leading tabs are allowed")
    } else {
        format!("end it with a line that holds only `{name}`, without leading or trailing blanks")
    })
}
