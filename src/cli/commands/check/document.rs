//! The JSON of `--check`, `--call=outline` and `--call=targets`, with the members of BuildKit's
//! subrequests: <https://github.com/moby/buildkit/tree/master/frontend/subrequests>.

use serde_json::{Value, json};

use super::Inspector;
use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::lint::{Outline, OutlineMount, StageSummary, rule_page};

impl Inspector<'_> {
    fn location(&self, span: Span) -> Value {
        let start = self.source().line_column(span.start);
        let end = self.source().line_column(span.end.saturating_sub(1).max(span.start));
        json!({
            "sourceIndex": 0,
            "ranges": [{
                "start": { "line": start.line, "character": start.column },
                "end": { "line": end.line, "character": end.column },
            }],
        })
    }

    fn sources(&self) -> Value {
        json!([{ "filename": self.source().name(), "language": "Dockerfile" }])
    }

    /// Returns the document of BuildKit's `lint` subrequest, with columns and help added.
    pub(super) fn check_json(&self, found: &[Diagnostic]) -> Value {
        let one = |diagnostic: &Diagnostic| {
            json!({
                "ruleName": diagnostic.code.as_str(),
                "description": diagnostic.code.summary(),
                "url": rule_page(diagnostic.code),
                "detail": diagnostic.message,
                "help": diagnostic.helps,
                "location": self.location(reported_span(diagnostic)),
            })
        };
        let warnings = found.iter().filter(|diagnostic| !diagnostic.is_error()).map(one);
        let error = found.iter().find(|diagnostic| diagnostic.is_error());
        let mut shown =
            json!({ "warnings": warnings.collect::<Vec<_>>(), "sources": self.sources() });
        self.add_build_error(&mut shown, error);
        shown
    }

    fn add_build_error(&self, shown: &mut Value, error: Option<&Diagnostic>) {
        if let (Some(error), Some(object)) = (error, shown.as_object_mut()) {
            let error = json!({ "message": error.message, "location": self.location(error.span) });
            object.insert("buildError".to_owned(), error);
        }
    }

    /// Returns the document of BuildKit's `targets` subrequest, with columns added.
    pub(super) fn targets_json(&self, stages: &[StageSummary]) -> Value {
        let one = |stage: &StageSummary| {
            json!({
                "name": stage.name,
                "description": stage.description,
                "default": stage.is_default,
                "base": stage.base,
                "platform": stage.platform,
                "location": self.location(stage.span),
            })
        };
        let targets: Vec<Value> = stages.iter().map(one).collect();
        json!({ "targets": targets, "sources": self.sources() })
    }

    /// Returns the document of BuildKit's `outline` subrequest; only the error if the file cannot be
    /// parsed.
    pub(super) fn outline_json(
        &self,
        outline: Option<&Outline>,
        error: Option<&Diagnostic>,
    ) -> Value {
        let mut shown = match outline {
            Some(outline) => self.outline_members(outline),
            None => json!({ "sources": self.sources() }),
        };
        self.add_build_error(&mut shown, error);
        shown
    }

    fn outline_members(&self, outline: &Outline) -> Value {
        let args = outline.arguments.iter().map(|argument| {
            json!({
                "name": argument.name,
                "description": argument.description,
                "value": argument.value,
                "location": self.location(argument.span),
            })
        });
        let mounts = |mounts: &[OutlineMount]| {
            let one = |one: &OutlineMount| {
                let location = self.location(one.span);
                json!({ "name": one.id, "required": one.required, "location": location })
            };
            mounts.iter().map(one).collect::<Vec<_>>()
        };
        json!({
            "name": outline.target.name,
            "description": outline.target.description,
            "args": args.collect::<Vec<_>>(),
            "secrets": mounts(&outline.secrets),
            "ssh": mounts(&outline.ssh),
            "sources": self.sources(),
        })
    }
}

/// Returns the span that BuildKit reports for a warning. For an empty line in an instruction, that is
/// the last line of the instruction (`parser.Parse`).
fn reported_span(diagnostic: &Diagnostic) -> Span {
    let last = diagnostic.labels.last().filter(|_| diagnostic.code == codes::NO_EMPTY_CONTINUATION);
    last.map_or(diagnostic.span, |label| label.span)
}
