//! Text for the reasons that a step is executed instead of found in the cache.

use crate::dockerfile::lint;
use crate::executor::Reason;
use crate::plan::{Difference, redacted};
use crate::tree::{Change, ChangeKind};

/// Maximum number of characters of a value that are shown.
const MAX_SHOWN: usize = 120;

/// Text for a step that no earlier one is similar to.
pub(crate) const NEW: &str = "first time this step has run here";

/// Returns one line, as in `src/main.c changed, and 2 more files`.
pub(crate) fn text(reason: &Reason) -> String {
    redacted(&unredacted(reason))
}

fn unredacted(reason: &Reason) -> String {
    match reason {
        Reason::NotAsked => "--no-cache was given".to_owned(),
        Reason::StageNotAsked => "--no-cache-filter names its stage".to_owned(),
        Reason::New => NEW.to_owned(),
        Reason::Gone => "its layer is no longer in the store".to_owned(),
        Reason::Below { step } => format!("an earlier step was rebuilt: {step}"),
        Reason::Base { old, new } => {
            let shown =
                |base: &Option<String>| base.clone().unwrap_or_else(|| "scratch".to_owned());
            format!("the base image changed: {} → {}", shown(old), shown(new))
        }
        Reason::Other => "it has never finished on the layers below it".to_owned(),
        Reason::Part(difference) => part(difference),
        Reason::Files { changes, n_more } => files(changes, *n_more),
    }
}

fn part(Difference { name, old, new }: &Difference) -> String {
    if name.starts_with("files at ") {
        return format!("{name} changed");
    }
    let what = match name.split_once(' ') {
        Some(("argument", _)) => "the command".to_owned(),
        Some(("source", _)) => "the source".to_owned(),
        Some(("environment", rest)) => rest.replacen("variable", "ENV or ARG", 1),
        _ => name.clone(),
    };
    let is_secret = name.strip_prefix("environment variable ").is_some_and(lint::is_secret);
    // The name of a secret variable may be shown.
    let hidden = |value: &Option<String>| value.as_ref().map(|_| "****".to_owned());
    let (old, new) =
        if is_secret { (hidden(old), hidden(new)) } else { (old.clone(), new.clone()) };
    match (&old, &new) {
        (Some(old), Some(new)) if old == new => format!("{what} changed"),
        (Some(old), Some(new)) => format!("{what} changed: {} → {}", value(old), value(new)),
        (None, Some(new)) => format!("{what} is new: {}", value(new)),
        (Some(old), None) => format!("{what} is gone: {}", value(old)),
        (None, None) => format!("{what} changed"),
    }
}

/// Returns a value in one line of bounded length.
fn value(text: &str) -> String {
    if text.is_empty() {
        return "nothing".to_owned();
    }
    let line = text.replace('\n', "\\n");
    match line.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("`{}…`", line.get(..end).unwrap_or_default()),
        None => format!("`{line}`"),
    }
}

fn files(changes: &[Change], n_more: usize) -> String {
    if changes.is_empty() {
        return "the copied files changed".to_owned();
    }
    let named: Vec<String> = changes.iter().map(change).collect();
    let more = match n_more {
        0 => String::new(),
        1 => ", and one more".to_owned(),
        _ => format!(", and {n_more} more"),
    };
    format!("{}{more}", named.join(", "))
}

fn change(Change { path, kind }: &Change) -> String {
    let how = match kind {
        ChangeKind::Added => "is new",
        ChangeKind::Removed => "is gone",
        ChangeKind::Type => "has another type",
        ChangeKind::Content => "changed",
        ChangeKind::Mode => "has another mode",
        ChangeKind::Owner => "has another owner",
        ChangeKind::Attributes => "has other attributes",
    };
    format!("{path} {how}")
}
