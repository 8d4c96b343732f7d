//! `rbuild prune`

use std::time::UNIX_EPOCH;

use super::{Complaint, Environment, Exit, Global, open_store_to_free};
use crate::cli::progress::size;
use crate::cli::stdout::say;
use crate::cli::store_args::PruneArgs;
use crate::oci::Reference;
use crate::plan;
use crate::store::{Holder, PruneOptions, Pruned};

pub(in crate::cli) fn run(
    args: &PruneArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Complaint> {
    let usage = |text: String| Complaint::new(format!("error: {text}"), Exit::Usage);
    let options = options(args, environment.now_s).map_err(usage)?;
    let store = open_store_to_free(global, environment)?;
    let pruned =
        store.prune(&options).map_err(|error| Complaint::from_error(&error, Exit::Environment))?;
    let names = pruned.forgotten.iter().filter_map(|holder| match holder {
        Holder::Image { name, .. } => Some(name),
        Holder::Step { .. }
        | Holder::Base { .. }
        | Holder::Download { .. }
        | Holder::CacheMount { .. }
        | Holder::Memo { .. } => None,
    });
    let verb = if args.dry_run { "Would untag" } else { "Untagged" };
    for name in names {
        let name = name.parse::<Reference>().map_or(name.clone(), |name| name.familiar());
        say!("{verb}: {name}");
    }
    say!("{}", summary(&pruned, args.dry_run));
    Ok(())
}

fn summary(pruned: &Pruned, dry_run: bool) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    let steps = pruned.forgotten.iter().filter(|holder| matches!(holder, Holder::Step { .. }));
    let steps = steps.count();
    let (layers, blobs) = (pruned.n_layers, pruned.n_blobs);
    let caches = match pruned.n_caches {
        0 => String::new(),
        caches => format!(", {caches} caches of RUN --mount"),
    };
    let (freed, left) = (size(pruned.n_bytes), size(pruned.left_bytes));
    format!(
        "{verb} {steps} cached steps, {layers} layers, {blobs} blobs{caches}: {freed}; {left} are left"
    )
}

fn options(args: &PruneArgs, now_s: i64) -> Result<PruneOptions, String> {
    let filtered = args.filter.as_deref().map(|text| filter(text, now_s)).transpose()?;
    let older = args.older_than.as_deref().map(|text| {
        age(text)
            .map(|age_s| now_s.saturating_sub(age_s))
            .ok_or_else(|| format!("--older-than {text}: expected a duration such as 24h or 7d"))
    });
    let max_bytes = args.keep_storage.as_deref().map(|text| {
        let bytes = plan::bytes(text);
        bytes.ok_or_else(|| format!("--keep-storage {text}: expected a size such as 10GB"))
    });
    Ok(PruneOptions {
        all: args.all,
        unused_since_s: filtered.or(older.transpose()?),
        max_bytes: max_bytes.transpose()?,
        dry_run: args.dry_run,
    })
}

/// What a filter says: seconds since 1970.
fn filter(text: &str, now_s: i64) -> Result<i64, String> {
    match text.split_once('=') {
        Some(("until" | "unused-for", value)) => {
            time(value, now_s).ok_or_else(|| {
                format!("--filter {text}: expected a duration such as 24h, or a time such as 2026-01-31T12:00:00")
            })
        }
        _ => Err(format!("--filter {text} is not known: use until=TIME or unused-for=DURATION")),
    }
}

/// A duration back from now, or a time.
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

/// A duration in seconds.
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
    fn filters_are_known_or_refused() {
        assert_eq!(filter("unused-for=10s", 100), Ok(90));
        let error = filter("type=exec.cachemount", 0).unwrap_err();
        assert!(error.ends_with("use until=TIME or unused-for=DURATION"), "{error}");
    }
}
