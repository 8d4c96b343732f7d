//! Renders diagnostics as text, in the style of rustc.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Severity, SourceFile, Span};

/// The use of colour in rendered text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Plain text without escape sequences.
    Plain,
    /// ANSI escape sequences for colours.
    Colour,
}

/// Maximum number of diagnostics that are shown. A Dockerfile of a few hundred kilobytes can have
/// 100,000 errors, of which only the first are of use to a reader.
pub const MAX_SHOWN: usize = 50;

/// Renders `diagnostics` in source order, each with an excerpt of `source`.
///
/// If there are more than [`MAX_SHOWN`], errors come first and the rest is counted.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], source: &SourceFile, style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Colour => Renderer::styled(),
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut ordered: Vec<&Diagnostic> = diagnostics.iter().collect();
    ordered.sort_by_key(|diagnostic| (diagnostic.span, diagnostic.code));
    let n_more = ordered.len().saturating_sub(MAX_SHOWN);
    if n_more > 0 {
        // Errors stop the build, so warnings must not crowd them out.
        ordered.sort_by_key(|diagnostic| !diagnostic.is_error());
        ordered.truncate(MAX_SHOWN);
    }
    let mut text = String::new();
    for diagnostic in ordered {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&renderer.render(&[group(diagnostic, source)]));
        text.push('\n');
    }
    if n_more > 0 {
        let what = if n_more == 1 { "error or warning" } else { "errors and warnings" };
        text.push_str(&format!("\n... and {n_more} more {what}\n"));
    }
    text
}

fn group<'a>(diagnostic: &'a Diagnostic, source: &'a SourceFile) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let (first_line, excerpt) = excerpt(diagnostic, source);
    let text = source.text().get(excerpt.clone()).unwrap_or("");
    let shown = |span| {
        let range = shown(span, source.text());
        range.start.saturating_sub(excerpt.start)..range.end.saturating_sub(excerpt.start)
    };
    let mut snippet = Snippet::source(text).line_start(first_line).path(source.name());
    let primary = shown(diagnostic.span);
    let primary_label = diagnostic.labels.iter().find(|label| label.span == diagnostic.span);
    let annotation = AnnotationKind::Primary.span(primary);
    snippet = snippet.annotation(match primary_label {
        Some(label) => annotation.label(label.text.as_str()),
        None => annotation,
    });
    for label in diagnostic.labels.iter().filter(|label| label.span != diagnostic.span) {
        let range = shown(label.span);
        snippet =
            snippet.annotation(AnnotationKind::Context.span(range).label(label.text.as_str()));
    }
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.as_str());
    let group = title.element(snippet);
    diagnostic
        .helps
        .iter()
        .fold(group, |group, help| group.element(Level::HELP.message(help.as_str())))
}

/// Returns the number of the first line that a diagnostic points to, and the range of the lines up to
/// the last one.
///
/// The renderer scans its whole input for each diagnostic, so it gets no more than these lines.
fn excerpt(diagnostic: &Diagnostic, source: &SourceFile) -> (usize, std::ops::Range<usize>) {
    let labels = diagnostic.labels.iter().map(|label| label.span);
    let span = labels.fold(diagnostic.span, Span::to);
    let range = shown(span, source.text());
    let mut before = source.text().get(..range.start).unwrap_or("");
    if range.start == source.text().len() {
        // The end of the file is shown at the end of its last line.
        before = before.strip_suffix('\n').unwrap_or(before);
    }
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let after = source.text().get(range.end..).unwrap_or("");
    let end = after.find('\n').map_or(source.text().len(), |end| range.end + end + 1);
    (source.line_column(start).line, start..end)
}

/// Returns the range to underline: it ends on character boundaries and excludes a trailing line ending.
fn shown(span: Span, text: &str) -> std::ops::Range<usize> {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    let trimmed = text.get(start..end).unwrap_or("").trim_end_matches(['\n', '\r']);
    start..start + trimmed.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::codes;

    #[test]
    fn errors_come_first_when_there_are_too_many() {
        let text = "RUN a\n".repeat(20_000);
        let said = |n: usize, kind: fn(crate::diag::Code, Span, String) -> Diagnostic| {
            kind(codes::RUN_FAILED, Span::new(n * 6, n * 6 + 3), format!("m{n}"))
        };
        let mut found: Vec<Diagnostic> =
            (0..19_999).map(|n| said(n, Diagnostic::warning)).collect();
        found.push(said(19_999, Diagnostic::error));
        let shown = render(&found, &SourceFile::new("D", text), Style::Plain);
        assert!(shown.contains("m19999\n     --> D:20000:1\n      |\n20000 | RUN a"), "{shown}");
        assert!(shown.contains("m48\n") && !shown.contains("m49\n"), "{shown}");
        assert!(shown.ends_with("\n... and 19950 more errors and warnings\n"), "{shown}");
    }
}
