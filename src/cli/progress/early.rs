//! `--progress=json` where a command ends before it has a view: then, too, a program reads JSON.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::cli::environment::Environment;
use crate::cli::error::CliError;

use super::json::Json;
use super::{Out, with_stderr};

/// True once the first event was written.
static IS_STARTED: AtomicBool = AtomicBool::new(false);

/// Writes the first event, once in a process.
pub(super) fn started(json: &Json, now_s: i64, out: &mut Out<'_>) {
    if !IS_STARTED.swap(true, Ordering::Relaxed) {
        json.started(now_s, out);
    }
}

/// Returns whether the command line, right or wrong, asks for JSON. The last `--progress` counts, and
/// nothing after `--`.
pub(crate) fn asks_for_json(typed: &[OsString]) -> bool {
    let mut words = typed.iter().skip(1).map(|word| word.to_string_lossy());
    let mut is_json = false;
    while let Some(word) = words.next().filter(|word| word != "--") {
        if word == "--progress" {
            is_json = words.next().is_some_and(|value| value == "json");
        } else if let Some(value) = word.strip_prefix("--progress=") {
            is_json = value == "json";
        }
    }
    is_json
}

/// Writes as JSON why a command failed that has not said so.
pub(crate) fn failed_early(complaint: &CliError, environment: &Environment) {
    let started_at = Instant::now();
    let json = Json::new(started_at);
    with_stderr(|out| {
        started(&json, environment.now_s, out);
        json.failed(complaint, started_at.elapsed(), out);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_asked_for_by_the_last_word() {
        for (line, want) in [
            ("rbuild --progress=json .", true),
            ("rbuild build . --progress json --bad", true),
            ("rbuild --progress=json --progress=plain .", false),
            ("rbuild --progress", false),
            ("rbuild enter x -- y --progress=json", false),
            ("rbuild .", false),
        ] {
            let typed: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(asks_for_json(&typed), want, "{line}");
        }
    }
}
