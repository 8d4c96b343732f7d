//! The differences for people: plain text, every one of them, whatever the output is.

use crate::cli::args::inspect::DiffArgs;
use crate::cli::display::table::{self, row};
use crate::cli::images::config_text::one_line;
use crate::cli::images::image_view::ImageView;
use crate::diag::size;
use crate::tree::ChangeKind;

use super::compare::{Counts, Difference, FileChange, Origin, Side};

/// The lines of the page.
pub(super) fn lines(difference: &Difference<'_>, args: &DiffArgs) -> Vec<String> {
    let id = |view: &ImageView| view.image.config_digest();
    let rows = [
        row([&"---", &one_line(&args.old), &id(difference.old)]),
        row([&"+++", &one_line(&args.new), &id(difference.new)]),
    ];
    let mut parts = vec![table::lines(&rows)];
    if difference.is_none() {
        let same = id(difference.old) == id(difference.new);
        let text = if same { "The same image." } else { "Config and files are the same." };
        parts.push(vec![text.to_owned()]);
    }
    parts.extend([config(difference), layers(difference), files(difference, args)]);
    parts.retain(|part| !part.is_empty());
    parts.join(&String::new())
}

fn config(difference: &Difference<'_>) -> Vec<String> {
    let mut rows = Vec::new();
    for member in &difference.config {
        let mut name = format!("  {}", member.name);
        let values = member.removed.iter().map(|value| ('-', value));
        for (sign, value) in values.chain(member.added.iter().map(|value| ('+', value))) {
            rows.push(row([&std::mem::take(&mut name), &format!("{sign} {value}")]));
        }
    }
    titled("Config", &rows)
}

fn layers(difference: &Difference<'_>) -> Vec<String> {
    let shared = difference.shared_layers();
    let mut rows = Vec::new();
    let mut add = |sign: &str, number: usize, view: &ImageView| {
        if let Some(layer) = view.layers.get(number - 1) {
            let bytes = layer.tar_bytes.map_or("-".to_owned(), size);
            rows.push(row([&format!("  {sign}"), &number, &bytes, &layer.instruction()]));
        }
    };
    (1..=difference.n_shared).for_each(|number| add("=", number, difference.new));
    for (sign, view) in [("-", difference.old), ("+", difference.new)] {
        for (number, layer) in (1..).zip(&view.layers).skip(difference.n_shared) {
            let moved = shared.contains(&layer.diff_id);
            add(if moved { "~" } else { sign }, number, view);
        }
    }
    let is_moved = difference.old.layers.iter().skip(difference.n_shared);
    let is_moved = is_moved.into_iter().any(|layer| shared.contains(&layer.diff_id));
    let title = if is_moved { "Layers (~ is in both, at another place)" } else { "Layers" };
    titled(title, &rows)
}

fn files(difference: &Difference<'_>, args: &DiffArgs) -> Vec<String> {
    if difference.files.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("Files: {}", counted(difference.counts()))];
    for (origin, changes) in &difference.files {
        lines.push(String::new());
        lines.push(format!("  {}", origin_text(difference, *origin, args)));
        let rows: Vec<Vec<String>> = changes.iter().map(change).collect();
        lines.extend(table::lines(&rows));
    }
    lines
}

fn counted(counts: Counts) -> String {
    let Counts { n_added, n_changed, n_removed, old_bytes, new_bytes } = counts;
    format!(
        "{n_added} added, {n_changed} changed, {n_removed} removed; {} in all",
        delta(old_bytes, new_bytes)
    )
}

fn origin_text(difference: &Difference<'_>, origin: Origin, args: &DiffArgs) -> String {
    let (number, name, view) = match origin {
        Origin::Old(number) => (number, &args.old, difference.old),
        Origin::New(number) => (number, &args.new, difference.new),
    };
    let layer = view.layers.get(number.saturating_sub(1));
    let instruction = layer.map(|layer| layer.instruction()).filter(|text| !text.is_empty());
    let instruction = instruction.map_or(String::new(), |text| format!(": {text}"));
    format!("layer {number} of {}{instruction}", one_line(name))
}

fn change(change: &FileChange) -> Vec<String> {
    let path = one_line(&change.path.to_string());
    match (&change.old, &change.new) {
        (None, Some(new)) => row([&"    +", &path, &alone(new)]),
        (Some(old), None) => row([&"    -", &path, &alone(old)]),
        (Some(old), Some(new)) => {
            let ways: Vec<String> =
                change.ways.iter().map(|way| way_text(*way, old, new)).collect();
            row([&"    ~", &path, &ways.join(", ")])
        }
        (None, None) => row([&"", &path]),
    }
}

/// What there is where the other has nothing.
fn alone(side: &Side) -> String {
    match (side.n_bytes, &side.target) {
        (Some(n_bytes), _) => size(n_bytes),
        (None, Some(target)) => format!("-> {}", one_line(target)),
        (None, None) => side.kind.to_owned(),
    }
}

fn way_text(way: ChangeKind, old: &Side, new: &Side) -> String {
    match way {
        ChangeKind::Content => match (old.n_bytes, new.n_bytes, &old.target, &new.target) {
            (Some(old), Some(new), ..) => format!("content, {}", delta(old, new)),
            (_, _, Some(old), Some(new)) => format!("-> {} to {}", one_line(old), one_line(new)),
            _ => "content".to_owned(),
        },
        ChangeKind::Mode => format!("mode {:04o} to {:04o}", old.meta.mode, new.meta.mode),
        ChangeKind::Owner => {
            let owner = |side: &Side| format!("{}:{}", side.meta.uid, side.meta.gid);
            format!("owner {} to {}", owner(old), owner(new))
        }
        ChangeKind::Attributes => "extended attributes".to_owned(),
        ChangeKind::Type => format!("{} to {}", old.kind, new.kind),
        ChangeKind::Added => "added".to_owned(),
        ChangeKind::Removed => "removed".to_owned(),
    }
}

/// As in `+1.2MB`.
fn delta(old: u64, new: u64) -> String {
    if new >= old { format!("+{}", size(new - old)) } else { format!("-{}", size(old - new)) }
}

fn titled(title: &str, rows: &[Vec<String>]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    [vec![title.to_owned()], table::lines(rows)].concat()
}
