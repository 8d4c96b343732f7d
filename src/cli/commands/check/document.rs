//! The documents for programs, in the form of docker's subrequests.

use serde_json::{Value, json};

use super::{Look, rule_page};
use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::lint::{Outline, OutlineMount, StageSummary};

impl Look<'_> {
    fn place(&self, span: Span) -> Value {
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

    /// In the form of docker's `lint` subrequest, with columns and help added.
    pub(super) fn check_json(&self, found: &[Diagnostic]) -> Value {
        let one = |said: &Diagnostic| {
            json!({
                "ruleName": said.code.as_str(),
                "description": said.code.summary(),
                "url": rule_page(said.code),
                "detail": said.message,
                "help": said.helps,
                "location": self.place(place_in_json(said)),
            })
        };
        let warnings = found.iter().filter(|said| !said.is_error()).map(one);
        let error = found.iter().find(|said| said.is_error());
        let mut shown =
            json!({ "warnings": warnings.collect::<Vec<_>>(), "sources": self.sources() });
        self.add_build_error(&mut shown, error);
        shown
    }

    fn add_build_error(&self, shown: &mut Value, error: Option<&Diagnostic>) {
        if let (Some(error), Some(object)) = (error, shown.as_object_mut()) {
            let error = json!({ "message": error.message, "location": self.place(error.span) });
            object.insert("buildError".to_owned(), error);
        }
    }

    pub(super) fn targets_json(&self, stages: &[StageSummary]) -> Value {
        let one = |stage: &StageSummary| {
            json!({
                "name": stage.name,
                "description": stage.description,
                "default": stage.is_default,
                "base": stage.base,
                "platform": stage.platform,
                "location": self.place(stage.span),
            })
        };
        let targets: Vec<Value> = stages.iter().map(one).collect();
        json!({ "targets": targets, "sources": self.sources() })
    }

    /// In the form of docker's `outline` subrequest. Of a file that cannot be parsed, only the error
    /// is known.
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
                "location": self.place(argument.span),
            })
        });
        let lent = |lent: &[OutlineMount]| {
            let one = |one: &OutlineMount| {
                let location = self.place(one.span);
                json!({ "name": one.id, "required": one.required, "location": location })
            };
            lent.iter().map(one).collect::<Vec<_>>()
        };
        json!({
            "name": outline.target.name,
            "description": outline.target.description,
            "args": args.collect::<Vec<_>>(),
            "secrets": lent(&outline.secrets),
            "ssh": lent(&outline.ssh),
            "sources": self.sources(),
        })
    }
}

/// The place of a warning in docker's form. BuildKit points at the last line of an instruction that
/// has an empty line in it (`parser.Parse`).
fn place_in_json(said: &Diagnostic) -> Span {
    let last = said.labels.last().filter(|_| said.code == codes::NO_EMPTY_CONTINUATION);
    last.map_or(said.span, |label| label.span)
}
