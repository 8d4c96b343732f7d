//! Hides credentials of URLs in events and diagnostics.

use std::borrow::Cow;

use serde_json::Value;

use crate::diag::{Diagnostic, SourceFile};
use crate::executor::{Event, StageOutline, StepPlace};
use crate::plan::{masked, redacted, redacted_text};

/// Returns the event without credentials. Output of commands is not changed.
pub(crate) fn event(event: &Event) -> Cow<'_, Event> {
    Cow::Owned(match event {
        Event::Planned { stages } => Event::Planned { stages: stages.iter().map(stage).collect() },
        Event::Started { step, name, place } => {
            let place = place.as_ref().map(|place| StepPlace {
                instruction: redacted(&place.instruction),
                ..place.clone()
            });
            Event::Started { step: *step, name: redacted(name), place }
        }
        Event::Warning { text } => Event::Warning { text: redacted(text) },
        Event::Note { text } => Event::Note { text: redacted(text) },
        // The text of a reason is made, and redacted, later.
        Event::Explained { .. }
        | Event::Isolated { .. }
        | Event::Executing { .. }
        | Event::Output { .. }
        | Event::Progress { .. }
        | Event::Made { .. }
        | Event::Finished { .. }
        | Event::Wrote { .. }
        | Event::Pushed { .. } => return Cow::Borrowed(event),
    })
}

fn stage(stage: &StageOutline) -> StageOutline {
    let instructions = stage.instructions.iter().map(|text| redacted(text)).collect();
    StageOutline { instructions, ..stage.clone() }
}

/// Returns the Dockerfile with masked credentials. Spans remain valid.
pub(crate) fn source(source: &SourceFile) -> SourceFile {
    SourceFile::new(source.name(), masked(source.text()))
}

/// Returns diagnostics without credentials.
pub(crate) fn diagnostics(found: &[Diagnostic]) -> Vec<Diagnostic> {
    let mut found = found.to_vec();
    for said in &mut found {
        let labels = said.labels.iter_mut().map(|label| &mut label.text);
        for text in std::iter::once(&mut said.message).chain(labels).chain(&mut said.helps) {
            *text = redacted(text);
        }
    }
    found
}

/// Hides credentials in every string of a JSON document.
pub(crate) fn value(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(shown) = redacted_text(text) {
                *text = shown;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(self::value),
        Value::Object(members) => members.values_mut().for_each(self::value),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
