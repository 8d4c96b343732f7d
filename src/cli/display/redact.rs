//! Events and warnings without the credentials of URLs.

use std::borrow::Cow;

use serde_json::Value;

use crate::diag::{Diagnostic, SourceFile};
use crate::executor::{Event, StageOutline, StepPlace};
use crate::plan::{masked, redacted, redacted_text};

/// The event as it may be shown and kept. What a command prints is its own business.
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
        // Its text is made later, and redacted there.
        Event::Explained { .. }
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

/// The Dockerfile as it may be shown: every place in it is where it was.
pub(crate) fn source(source: &SourceFile) -> SourceFile {
    SourceFile::new(source.name(), masked(source.text()))
}

/// Diagnostics as they may be shown.
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

/// Redacts every text in a document.
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
