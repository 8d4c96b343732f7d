//! Templates: text with `${value}`, `%{if}` and `%{for}`, and the markers that strip blanks.

use hcl_edit::template::{Directive, Element, ForDirective, IfDirective, Strip, Template};

use super::Part;
use super::native::{Source, expression};
use crate::bake::source::BakeError;

/// The kind of text that a template stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    /// A quoted string or a JSON string.
    Text,
    /// A heredoc. HCL scans it line by line, so a marker strips blanks of one line only.
    Heredoc {
        /// Number of blanks that `<<-` removes from each line. `hcl-edit` has done so, but not
        /// inside of directives.
        indent: usize,
    },
}

/// Converts a template.
pub(super) fn parts(
    template: &Template,
    flavour: Flavour,
    source: &Source<'_>,
) -> Result<Vec<Part>, BakeError> {
    let mut builder = Builder { flavour, source, strip_next: false, depth: 0 };
    builder.parts(template)
}

struct Builder<'a, 's> {
    flavour: Flavour,
    source: &'a Source<'s>,
    /// If set, the next text loses its leading blanks.
    strip_next: bool,
    /// Number of directives around the text.
    depth: usize,
}

impl Builder<'_, '_> {
    fn parts(&mut self, template: &Template) -> Result<Vec<Part>, BakeError> {
        let mut parts = Vec::new();
        for element in template {
            match element {
                Element::Literal(text) => {
                    let text = self.dedented(text);
                    let mut text = text.as_str();
                    if std::mem::take(&mut self.strip_next) {
                        text = self.strip_start(text);
                    }
                    parts.push(Part::Literal(text.to_owned()));
                }
                Element::Interpolation(parsed) => {
                    self.open(parsed.strip, &mut parts);
                    parts.push(Part::Value(expression(&parsed.expr, self.source)?));
                    self.close(parsed.strip);
                }
                Element::Directive(directive) => match directive.as_ref() {
                    Directive::If(parsed) => self.conditional(parsed, &mut parts)?,
                    Directive::For(parsed) => self.repeated(parsed, &mut parts)?,
                },
            }
        }
        parts.retain(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
        Ok(parts)
    }

    fn conditional(
        &mut self,
        parsed: &IfDirective,
        parts: &mut Vec<Part>,
    ) -> Result<(), BakeError> {
        self.open(parsed.if_expr.strip, parts);
        let condition = expression(&parsed.if_expr.cond_expr, self.source)?;
        self.close(parsed.if_expr.strip);
        self.depth += 1;
        let mut yes = self.parts(&parsed.if_expr.template)?;
        let mut no = Vec::new();
        if let Some(parsed) = &parsed.else_expr {
            self.open(parsed.strip, &mut yes);
            self.close(parsed.strip);
            no = self.parts(&parsed.template)?;
        }
        self.depth -= 1;
        let last = if parsed.else_expr.is_some() { &mut no } else { &mut yes };
        self.open(parsed.endif_expr.strip, last);
        self.close(parsed.endif_expr.strip);
        parts.push(Part::If(condition, yes, no));
        Ok(())
    }

    fn repeated(&mut self, parsed: &ForDirective, parts: &mut Vec<Part>) -> Result<(), BakeError> {
        let (head, end) = (&parsed.for_expr, &parsed.endfor_expr);
        self.open(head.strip, parts);
        self.close(head.strip);
        self.depth += 1;
        let mut body = self.parts(&head.template)?;
        self.depth -= 1;
        self.open(end.strip, &mut body);
        self.close(end.strip);
        parts.push(Part::For {
            key_name: head.key_var.as_ref().map(|name| name.as_str().to_owned()),
            value_name: head.value_var.as_str().to_owned(),
            collection: expression(&head.collection_expr, self.source)?,
            body,
        });
        Ok(())
    }

    /// Removes the common indentation of a heredoc from lines inside of a directive.
    fn dedented(&self, text: &str) -> String {
        let Flavour::Heredoc { indent } = self.flavour else { return text.to_owned() };
        if indent == 0 || self.depth == 0 {
            return text.to_owned();
        }
        let mut lines = text.split('\n');
        let first = lines.next().unwrap_or_default().to_owned();
        lines.fold(first, |all, line| {
            let n_blanks = line.len() - line.trim_start_matches([' ', '\t']).len();
            format!("{all}\n{}", line.get(n_blanks.min(indent)..).unwrap_or_default())
        })
    }

    /// Strips blanks before a `${~` or `%{~`.
    fn open(&mut self, strip: Strip, parts: &mut [Part]) {
        self.strip_next = false;
        if let (true, Some(Part::Literal(text))) = (strip.strip_start(), parts.last_mut()) {
            let kept = match (self.flavour, text.rfind('\n')) {
                (Flavour::Heredoc { .. }, Some(end)) if end + 1 < text.len() => {
                    let (lines, last) = text.split_at(end + 1);
                    format!("{lines}{}", last.trim_end())
                }
                (Flavour::Heredoc { .. }, Some(end)) => {
                    // The text ends with a line ending: its last line is the one before.
                    let start = text.get(..end).and_then(|text| text.rfind('\n'));
                    let (lines, last) = text.split_at(start.map_or(0, |at| at + 1));
                    format!("{lines}{}", last.trim_end())
                }
                _ => text.trim_end().to_owned(),
            };
            *text = kept;
        }
    }

    /// Remembers a `~}`.
    fn close(&mut self, strip: Strip) {
        self.strip_next = strip.strip_end();
    }

    fn strip_start<'t>(&self, text: &'t str) -> &'t str {
        match (self.flavour, text.split_once('\n')) {
            // The blanks of the line and its ending go; the next line keeps its own.
            (Flavour::Heredoc { .. }, Some((line, rest))) if line.trim().is_empty() => rest,
            _ => text.trim_start(),
        }
    }
}
