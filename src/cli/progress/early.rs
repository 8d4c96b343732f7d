//! `--progress=json` for a command that ends before its display starts: programs read JSON then, too.

use std::ffi::OsString;
use std::time::Instant;

use crate::cli::environment::Environment;
use crate::cli::error::CliError;

use super::json::JsonSink;
use super::out::with_stderr;
use super::sink::{Failure, Sink as _};

/// Returns whether the command line, valid or not, asks for JSON. The last `--progress` counts;
/// arguments after `--` do not.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    let mut words = arguments.iter().skip(1).map(|word| word.to_string_lossy());
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

/// Writes an error as JSON that no display has shown.
pub(crate) fn failed_early(error: &CliError, environment: &Environment) {
    let started = Instant::now();
    let mut json = JsonSink::new(started, environment.now_s);
    with_stderr(|out| {
        json.begin(out);
        json.failed(&Failure { error, text: String::new(), took: started.elapsed() }, out);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_progress_option_counts() {
        for (line, want) in [
            ("rbuild --progress=json .", true),
            ("rbuild build . --progress json --bad", true),
            ("rbuild --progress=json --progress=plain .", false),
            ("rbuild --progress", false),
            ("rbuild enter x -- y --progress=json", false),
            ("rbuild .", false),
        ] {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(asks_for_json(&arguments), want, "{line}");
        }
    }
}
