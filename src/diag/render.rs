//! Diagnostics as text, in the manner of rustc.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Severity, SourceFile, Span};

/// How text is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// No escape sequences.
    Plain,
    /// ANSI colours.
    Colour,
}

/// Renders `diagnostics` in the order of their places, each with an excerpt of `source`.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], source: &SourceFile, style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Colour => Renderer::styled(),
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut ordered: Vec<&Diagnostic> = diagnostics.iter().collect();
    ordered.sort_by_key(|diagnostic| (diagnostic.span, diagnostic.code));
    let mut text = String::new();
    for diagnostic in ordered {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&renderer.render(&[group(diagnostic, source)]));
        text.push('\n');
    }
    text
}

fn group<'a>(diagnostic: &'a Diagnostic, source: &'a SourceFile) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut snippet = Snippet::source(source.text()).path(source.name());
    let primary = shown(diagnostic.span, source.text());
    let primary_label = diagnostic.labels.iter().find(|label| label.span == diagnostic.span);
    let annotation = AnnotationKind::Primary.span(primary);
    snippet = snippet.annotation(match primary_label {
        Some(label) => annotation.label(label.text.as_str()),
        None => annotation,
    });
    for label in diagnostic.labels.iter().filter(|label| label.span != diagnostic.span) {
        let range = shown(label.span, source.text());
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

/// The range to underline: on character bounds, at least one character wide where there is one,
/// and without the line ending that ends an instruction.
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
