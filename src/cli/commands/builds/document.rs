//! The JSON of `history ls --json` (one object a line) and of `explain --json`.

use serde_json::{Value, json};

use crate::cli::records::{BuildEnd, BuiltSummary, FailureSummary, StepOutcome};

use super::RecordedBuild;

/// The format version of both documents. New members do not change it.
const VERSION: u32 = 1;

/// Returns the object of one build, as in `docs/schemas/builds.schema.json`.
pub(super) fn to_json(build: &RecordedBuild) -> Value {
    let (n_steps, n_cached) = build.recorded.counts();
    let requested = &build.recorded.requested;
    let (image, message) = match &build.recorded.end {
        Some(BuildEnd::Built(BuiltSummary { id, .. })) => (Some(id), None),
        Some(BuildEnd::Failed(FailureSummary { message, .. })) => (None, Some(message)),
        None => (None, None),
    };
    json!({
        "version": VERSION,
        "id": build.id,
        "started_unix_s": build.recorded.started_s,
        "status": build.status(),
        "took_seconds": build.took_s(),
        "steps": n_steps,
        "cached": n_cached,
        "context": build.recorded.requested.location(),
        "dockerfile": requested.dockerfile,
        "target": requested.target,
        "platforms": requested.platforms,
        "names": requested.names,
        "isolation": build.recorded.isolation,
        "image": image,
        "message": message,
    })
}

/// Returns the object of one build with the reasons why its steps, or `only` one of them, were not
/// found in the cache, as in `docs/schemas/explain.schema.json`.
pub(super) fn explained(build: &RecordedBuild, only: Option<u32>) -> Value {
    let rebuilt = build.rebuilt().filter(|(id, _)| only.is_none_or(|only| only == *id));
    let rebuilt = rebuilt.map(|(id, step)| {
        json!({
            "step": id,
            "name": step.name,
            "outcome": step.end.map(|(outcome, _)| word(outcome)),
            "reason": step.reason,
        })
    });
    let rebuilt: Vec<Value> = rebuilt.collect();
    let mut explained = to_json(build);
    if let Some(members) = explained.as_object_mut() {
        members.insert("not_cached".to_owned(), json!(rebuilt));
    }
    explained
}

const fn word(outcome: StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Done => "done",
        StepOutcome::Cached => "cached",
        StepOutcome::Failed => "failed",
        StepOutcome::Cancelled => "cancelled",
    }
}
