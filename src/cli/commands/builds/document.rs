//! Builds for programs: the lines of `history ls --json`, and `explain --json`.

use serde_json::{Value, json};

use crate::cli::records::{End, Outcome};

use super::Build;

/// The version of the forms; members may be added without a new one.
const VERSION: u32 = 1;

/// A build in the list.
pub(super) fn of(build: &Build) -> Value {
    let (n_steps, n_cached) = build.recorded.counts();
    let requested = &build.recorded.requested;
    let (image, message) = match &build.recorded.end {
        Some(End::Built { id, .. }) => (Some(id), None),
        Some(End::Failed { message, .. }) => (None, Some(message)),
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
        "context": build.recorded.requested.place(),
        "dockerfile": requested.dockerfile,
        "target": requested.target,
        "platforms": requested.platforms,
        "names": requested.names,
        "image": image,
        "message": message,
    })
}

/// The build, and why its steps, or `only` one of them, were not found in the cache.
pub(super) fn explained(build: &Build, only: Option<u32>) -> Value {
    let made = build.made().filter(|(id, _)| only.is_none_or(|only| only == *id));
    let made = made.map(|(id, step)| {
        json!({
            "step": id,
            "name": step.name,
            "outcome": step.end.map(|(outcome, _)| word(outcome)),
            "reason": step.reason,
        })
    });
    let made: Vec<Value> = made.collect();
    let mut explained = of(build);
    if let Some(members) = explained.as_object_mut() {
        members.insert("not_cached".to_owned(), json!(made));
    }
    explained
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Cached => "cached",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "cancelled",
    }
}
