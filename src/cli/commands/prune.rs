//! `rbuild prune`: removes cached steps, images and caches from the store.

use std::io::{self, IsTerminal as _};
use std::time::UNIX_EPOCH;

use super::{CliError, Environment, Exit, Global, login, open_store_to_free, wait_alone};
use crate::cli::args::store::PruneArgs;
use crate::cli::display::stderr;
use crate::cli::display::stdout::say;
use crate::diag::size;
use crate::oci::Reference;
use crate::plan;
use crate::store::{GcRoot, PruneOptions, Pruned};

/// Maximum number of names in the confirmation prompt.
const MAX_PROMPT_NAMES: usize = 20;

/// Removes what the options select, after a confirmation for `--all` on a terminal.
pub(crate) fn run(
    args: &PruneArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
    let options = options(args, environment.now_s).map_err(usage)?;
    let store = open_store_to_free(global, environment)?;
    let prune = |options: &PruneOptions| {
        store.prune(options).map_err(|error| CliError::from_error(&error, Exit::Environment))
    };
    if args.all && !args.force && !args.dry_run && has_terminal() {
        confirm(&prune(&PruneOptions { dry_run: true, ..options })?)?;
    }
    if !args.dry_run {
        wait_alone(&store)?;
    }
    let pruned = prune(&options)?;
    lost(&pruned, args.dry_run).iter().for_each(|line| say!("{line}"));
    say!("{}", summary(&pruned, args.dry_run));
    Ok(())
}

fn has_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on the terminal for confirmation.
///
/// # Errors
/// [`Exit::Build`] unless the answer is yes.
fn confirm(pruned: &Pruned) -> Result<(), CliError> {
    let mut lost = lost(pruned, true);
    let n_more = lost.len().saturating_sub(MAX_PROMPT_NAMES);
    lost.truncate(MAX_PROMPT_NAMES);
    lost.extend((n_more > 0).then(|| format!("… and {n_more} more")));
    lost.push(summary(pruned, true));
    stderr::remark(&lost.join("\n"));
    let answer = login::ask("Remove all of this? [y/N] ", true)?;
    if ["y", "yes"].contains(&&*answer.trim().to_ascii_lowercase()) {
        return Ok(());
    }
    Err(CliError::new("error: nothing was removed", Exit::Build))
}

/// Returns a line for each image name and cache mount to remove, which no build recreates.
fn lost(pruned: &Pruned, dry_run: bool) -> Vec<String> {
    let (untag, remove) =
        if dry_run { ("Would untag", "Would remove") } else { ("Untagged", "Removed") };
    let lines = pruned.forgotten.iter().filter_map(|holder| match holder {
        GcRoot::Image { name, .. } => {
            let name = name.parse::<Reference>().map_or(name.clone(), |name| name.familiar());
            Some(format!("{untag}: {name}"))
        }
        GcRoot::CacheMount { key, id } => {
            Some(format!("{remove} cache mount: {}", id.as_deref().unwrap_or(key)))
        }
        GcRoot::Step { .. }
        | GcRoot::Base { .. }
        | GcRoot::Download { .. }
        | GcRoot::HashCache { .. } => None,
    });
    lines.collect()
}

fn summary(pruned: &Pruned, dry_run: bool) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    let steps = pruned.forgotten.iter().filter(|holder| matches!(holder, GcRoot::Step { .. }));
    let steps = steps.count();
    let mut counts = vec![
        count(steps, "cached step"),
        count(pruned.n_layers, "layer"),
        count(pruned.n_blobs, "blob"),
    ];
    if pruned.n_caches > 0 {
        counts.push(count(pruned.n_caches, "cache mount"));
    }
    let uses = if dry_run { "would then use" } else { "now uses" };
    let (freed, left) = (size(pruned.n_bytes), size(pruned.left_bytes));
    format!("{verb} {}: {freed}; the store {uses} {left}", counts.join(", "))
}

/// Formats a number with its noun: `1 layer`, `2 layers`.
fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

fn options(args: &PruneArgs, now_s: i64) -> Result<PruneOptions, String> {
    let filtered = args.filter.as_deref().map(|text| filter(text, now_s)).transpose()?;
    let older = args.older_than.as_deref().map(|text| {
        age(text)
            .map(|age_s| now_s.saturating_sub(age_s))
            .ok_or_else(|| format!("--older-than {text}: expected a duration such as 24h or 7d"))
    });
    let max_bytes = args.keep_storage.as_deref().map(|text| {
        let bytes = plan::parse_binary_size(text);
        bytes.ok_or_else(|| format!("--keep-storage {text}: expected a size such as 10GB"))
    });
    Ok(PruneOptions {
        all: args.all,
        cache_mounts: args.cache_mounts,
        unused_since_s: filtered.or(older.transpose()?),
        max_bytes: max_bytes.transpose()?,
        dry_run: args.dry_run,
    })
}

/// Parses `--filter`. Returns the time before which unused content is removed, in seconds since 1970.
fn filter(text: &str, now_s: i64) -> Result<i64, String> {
    match text.split_once('=') {
        Some(("until" | "unused-for", value)) => {
            time(value, now_s).ok_or_else(|| {
                format!("--filter {text}: expected a duration such as 24h, or a time such as 2026-01-31T12:00:00")
            })
        }
        _ => Err(format!("--filter {text}: unknown filter; use until=TIME or unused-for=DURATION")),
    }
}

/// Parses a duration before now, seconds since 1970, a date, or a time as in RFC 3339.
fn time(text: &str, now_s: i64) -> Option<i64> {
    if let Some(age_s) = age(text) {
        return Some(now_s.saturating_sub(age_s));
    }
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let whole =
        if text.contains(['T', ' ']) { text.to_owned() } else { format!("{text}T00:00:00") };
    let time = humantime::parse_rfc3339_weak(&whole).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Parses a duration such as `1h30m`. Returns seconds.
fn age(text: &str) -> Option<i64> {
    i64::try_from(humantime::parse_duration(text).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::{filter, time};

    #[test]
    fn times_are_durations_dates_or_seconds() {
        for (text, want) in [
            ("24h", Some(1_000_000 - 86_400)),
            ("1h30m", Some(1_000_000 - 5_400)),
            ("7d", Some(1_000_000 - 604_800)),
            ("1970-01-02", Some(86_400)),
            ("1970-01-02T00:00:10", Some(86_410)),
            ("1970-01-02T00:00:10Z", Some(86_410)),
            ("42", Some(42)),
            ("soon", None),
        ] {
            assert_eq!(time(text, 1_000_000), want, "{text}");
        }
    }

    #[test]
    fn unknown_filters_are_rejected() {
        assert_eq!(filter("unused-for=10s", 100), Ok(90));
        let error = filter("type=exec.cachemount", 0).unwrap_err();
        assert!(error.ends_with("use until=TIME or unused-for=DURATION"), "{error}");
    }
}
