//! The text of `rbuild diff`: plain, and complete whether or not the output is a terminal.

use crate::cli::args::inspect::DiffArgs;
use crate::cli::display::table::{self, row};
use crate::cli::images::config_text::one_line;
use crate::cli::images::image_view::ImageView;
use crate::diag::size;
use crate::tree::ChangeKind;

use super::compare::{ChangeCounts, ChangeOrigin, ImageDiff, PathChange, PathState};

/// Returns the lines of the page: both images, then the config, the layers and the files that differ.
pub(super) fn lines(diff: &ImageDiff<'_>, args: &DiffArgs) -> Vec<String> {
    let id = |view: &ImageView| view.image.config_digest();
    let rows = [
        row([&"---", &one_line(&args.old), &id(diff.old)]),
        row([&"+++", &one_line(&args.new), &id(diff.new)]),
    ];
    let mut parts = vec![table::lines(&rows)];
    if diff.is_empty() {
        let same = id(diff.old) == id(diff.new);
        let text =
            if same { "The images are identical." } else { "Config and files are identical." };
        parts.push(vec![text.to_owned()]);
    }
    parts.extend([config(diff), layers(diff), files(diff, args)]);
    parts.retain(|part| !part.is_empty());
    parts.join(&String::new())
}

fn config(diff: &ImageDiff<'_>) -> Vec<String> {
    let mut rows = Vec::new();
    for member in &diff.config {
        let mut name = format!("  {}", member.name);
        let values = member.removed.iter().map(|value| ('-', value));
        for (sign, value) in values.chain(member.added.iter().map(|value| ('+', value))) {
            rows.push(row([&std::mem::take(&mut name), &format!("{sign} {value}")]));
        }
    }
    titled("Config", &rows)
}

fn layers(diff: &ImageDiff<'_>) -> Vec<String> {
    let shared = diff.shared_layers();
    let mut rows = Vec::new();
    let mut add = |sign: &str, number: usize, view: &ImageView| {
        if let Some(layer) = view.layers.get(number - 1) {
            let bytes = layer.tar_bytes.map_or("-".to_owned(), size);
            rows.push(row([&format!("  {sign}"), &number, &bytes, &layer.instruction()]));
        }
    };
    (1..=diff.n_shared).for_each(|number| add("=", number, diff.new));
    for (sign, view) in [("-", diff.old), ("+", diff.new)] {
        for (number, layer) in (1..).zip(&view.layers).skip(diff.n_shared) {
            let moved = shared.contains(&layer.diff_id);
            add(if moved { "~" } else { sign }, number, view);
        }
    }
    let is_moved = diff.old.layers.iter().skip(diff.n_shared);
    let is_moved = is_moved.into_iter().any(|layer| shared.contains(&layer.diff_id));
    let title =
        if is_moved { "Layers (~: in both images, at different positions)" } else { "Layers" };
    titled(title, &rows)
}

fn files(diff: &ImageDiff<'_>, args: &DiffArgs) -> Vec<String> {
    if diff.files.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("Files: {}", counted(diff.counts()))];
    for (origin, changes) in &diff.files {
        lines.push(String::new());
        lines.push(format!("  {}", origin_text(diff, *origin, args)));
        let rows: Vec<Vec<String>> = changes.iter().map(change).collect();
        lines.extend(table::lines(&rows));
    }
    lines
}

fn counted(counts: ChangeCounts) -> String {
    let ChangeCounts { n_added, n_changed, n_removed, old_bytes, new_bytes } = counts;
    format!(
        "{n_added} added, {n_changed} changed, {n_removed} removed; {} in total",
        delta(old_bytes, new_bytes)
    )
}

fn origin_text(diff: &ImageDiff<'_>, origin: ChangeOrigin, args: &DiffArgs) -> String {
    let (number, name, view) = match origin {
        ChangeOrigin::Old(number) => (number, &args.old, diff.old),
        ChangeOrigin::New(number) => (number, &args.new, diff.new),
    };
    let layer = view.layers.get(number.saturating_sub(1));
    let instruction = layer.map(|layer| layer.instruction()).filter(|text| !text.is_empty());
    let instruction = instruction.map_or(String::new(), |text| format!(": {text}"));
    format!("layer {number} of {}{instruction}", one_line(name))
}

fn change(change: &PathChange) -> Vec<String> {
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

/// Describes a path that only one image has.
fn alone(state: &PathState) -> String {
    match (state.n_bytes, &state.target) {
        (Some(n_bytes), _) => size(n_bytes),
        (None, Some(target)) => format!("-> {}", one_line(target)),
        (None, None) => state.kind.to_owned(),
    }
}

fn way_text(way: ChangeKind, old: &PathState, new: &PathState) -> String {
    match way {
        ChangeKind::Content => match (old.n_bytes, new.n_bytes, &old.target, &new.target) {
            (Some(old), Some(new), ..) => format!("content, {}", delta(old, new)),
            (_, _, Some(old), Some(new)) => {
                format!("link target {} to {}", one_line(old), one_line(new))
            }
            _ => "content".to_owned(),
        },
        ChangeKind::Mode => format!("mode {:04o} to {:04o}", old.meta.mode, new.meta.mode),
        ChangeKind::Owner => {
            let owner = |state: &PathState| format!("{}:{}", state.meta.uid, state.meta.gid);
            format!("owner {} to {}", owner(old), owner(new))
        }
        ChangeKind::Attributes => "extended attributes".to_owned(),
        ChangeKind::Type => format!("{} to {}", old.kind, new.kind),
        ChangeKind::Added => "added".to_owned(),
        ChangeKind::Removed => "removed".to_owned(),
    }
}

/// Returns the difference of two sizes with its sign, such as `+1.2MB`.
fn delta(old: u64, new: u64) -> String {
    if new >= old { format!("+{}", size(new - old)) } else { format!("-{}", size(old - new)) }
}

fn titled(title: &str, rows: &[Vec<String>]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    [vec![title.to_owned()], table::lines(rows)].concat()
}
