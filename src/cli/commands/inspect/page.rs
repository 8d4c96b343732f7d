//! The page for people: plain text, nothing shortened, whatever the output is.

use crate::cli::args::inspect::InspectArgs;
use crate::cli::commands::images::{ago, known};
use crate::cli::display::table::{self, row};
use crate::cli::images::config_text::{members, one_line};
use crate::cli::images::image_view::{ImageView, LayerView, time_s};
use crate::diag::size;
use crate::tree::{File, FileOrigin, LayerEntries as _};

use super::Subject;

/// How many of the biggest files, and of the worst paths, are named.
const N_NAMED: usize = 10;

/// The page's lines: of an index, a list of the images, or the one that was chosen of it.
pub(super) fn lines(
    subject: &Subject,
    views: &[ImageView],
    args: &InspectArgs,
    now_s: i64,
) -> Vec<String> {
    let asked = &args.image;
    let names: Vec<String> = subject.names.iter().map(|name| name.familiar()).collect();
    let title = if names.is_empty() { asked.to_owned() } else { names.join(", ") };
    let mut lines = vec![one_line(&title), String::new()];
    let remote = if args.remote { " --remote" } else { "" };
    match views {
        [only] => lines.extend(image(subject, only, args, now_s)),
        several => {
            let head = vec![row([&"  Index", &subject.top])];
            lines.extend(table::lines(&head));
            lines.extend(images(several));
            if subject.n_others > 0 {
                let n = subject.n_others;
                lines.push(format!("  Entries that are not images, such as attestations: {n}"));
            }
            lines.extend([
                String::new(),
                format!("`rbuild inspect{remote} --platform OS/ARCH {asked}` shows one of them."),
            ]);
        }
    }
    lines
}

/// The images of an index.
fn images(views: &[ImageView]) -> Vec<String> {
    let mut rows = vec![row([&"  PLATFORM", &"ID", &"SIZE", &"PACKED", &"LAYERS"])];
    for view in views {
        let platform = format!("  {}", one_line(&view.image.platform().to_string()));
        let (tar, packed) = (known(view.tar_bytes()), known(view.packed_bytes()));
        let id = view.image.config_digest();
        rows.push(row([&platform, &id, &tar, &packed, &view.layers.len()]));
    }
    [vec![String::new(), "Images".to_owned()], table::lines(&rows)].concat()
}

fn image(subject: &Subject, view: &ImageView, args: &InspectArgs, now_s: i64) -> Vec<String> {
    let mut parts = vec![facts(subject, view, now_s), config(view), layers(view, args)];
    if view.n_missing() < view.layers.len() {
        parts.extend([biggest(view), wasted(view)]);
    }
    parts.retain(|part| !part.is_empty());
    parts.join(&String::new())
}

fn facts(subject: &Subject, view: &ImageView, now_s: i64) -> Vec<String> {
    let image = &view.image;
    let created = image.created().map_or("unknown".to_owned(), |text| {
        let age = time_s(text).map(|time_s| format!(" ({})", ago(now_s.saturating_sub(time_s))));
        format!("{}{}", one_line(text), age.unwrap_or_default())
    });
    let kind = if subject.is_index { "  Index" } else { "  Manifest" };
    let rows = [
        row([&"  Id", &image.config_digest()]),
        row([&kind, &subject.top]),
        row([&"  Platform", &one_line(&image.platform().to_string())]),
        row([&"  Created", &created]),
        row([&"  Size", &total(view)]),
    ];
    table::lines(&rows)
}

fn total(view: &ImageView) -> String {
    let n_layers = view.layers.len();
    let layers = format!("{n_layers} layer{}", if n_layers == 1 { "" } else { "s" });
    match (view.tar_bytes(), view.packed_bytes()) {
        (Some(tar), Some(packed)) => format!("{} in {layers}, {} packed", size(tar), size(packed)),
        (Some(tar), None) => format!("{} in {layers}", size(tar)),
        (None, Some(packed)) => format!("{} packed, in {layers}", size(packed)),
        (None, None) => layers,
    }
}

fn config(view: &ImageView) -> Vec<String> {
    let mut rows = Vec::new();
    for member in members(view.image.config()) {
        let mut name = format!("  {}", member.name);
        for value in member.values {
            rows.push(row([&std::mem::take(&mut name), &value]));
        }
    }
    titled("Config", rows)
}

fn layers(view: &ImageView, args: &InspectArgs) -> Vec<String> {
    let mut rows = vec![row([&"  #", &"SIZE", &"PACKED", &"FILES", &"INSTRUCTION"])];
    for (number, layer) in (1..).zip(&view.layers) {
        let number = format!("  {number}");
        let (tar, packed) = (known(layer.tar_bytes), known(layer.packed_bytes));
        rows.push(row([&number, &tar, &packed, &files(layer), &layer.instruction()]));
    }
    if view.layers.is_empty() {
        return vec!["Layers: none".to_owned()];
    }
    let mut lines = titled("Layers, base first (files added, changed, removed)", rows);
    if args.remote {
        let pull = format!("`rbuild pull {}`", args.image);
        lines.push(format!("  The layers are in the registry; {pull} fetches them."));
    } else if view.n_missing() > 0 {
        lines.push(format!(
            "  Layers that are not fetched stay in their registry until something needs them;\n  \
             `rbuild inspect --pull {}` fetches them.",
            args.image
        ));
    }
    lines
}

fn files(layer: &LayerView) -> String {
    let Some(files) = &layer.files else { return "not fetched".to_owned() };
    if !files.is_exact {
        return format!("{} in all", files.listing.n_entries());
    }
    let effect = files.effect;
    let counts = [('+', effect.n_added), ('~', effect.n_changed), ('-', effect.n_removed)];
    let counts = counts.iter().filter(|(_, n)| *n > 0).map(|(sign, n)| format!("{sign}{n}"));
    let counts = counts.collect::<Vec<_>>().join(" ");
    if counts.is_empty() { "none".to_owned() } else { counts }
}

fn biggest(view: &ImageView) -> Vec<String> {
    let mut rows = vec![row([&"  SIZE", &"LAYER", &"PATH"])];
    for (path, file) in view.survey.largest(N_NAMED) {
        let layer = layer_of(view, file).map_or_else(String::new, |number| number.to_string());
        let bytes = format!("  {}", size(file.size));
        rows.push(row([&bytes, &layer, &one_line(&path.to_string())]));
    }
    if rows.len() == 1 {
        return Vec::new();
    }
    titled(&format!("Biggest files{}", partly(view)), rows)
}

fn wasted(view: &ImageView) -> Vec<String> {
    let (wasted_bytes, file_bytes) = (view.survey.wasted_bytes(), view.survey.file_bytes());
    let wasted = view.survey.wasted();
    if wasted.is_empty() {
        return vec![format!("Wasted: nothing{}", partly(view))];
    }
    let n_paths = wasted.len();
    let paths = if n_paths == 1 { "1 path".to_owned() } else { format!("{n_paths} paths") };
    let title = format!(
        "Wasted: {} of {} in files, at {paths}, that upper layers overwrite or remove; efficiency \
         {}{}",
        size(wasted_bytes),
        size(file_bytes),
        efficiency(wasted_bytes, file_bytes),
        partly(view)
    );
    let mut rows = vec![row([&"  BYTES", &"TIMES", &"PATH"])];
    for wasted in wasted.iter().take(N_NAMED) {
        let bytes = format!("  {}", size(wasted.n_bytes));
        rows.push(row([&bytes, &wasted.n_times, &one_line(&wasted.path.to_string())]));
    }
    let mut lines = titled(&title, rows);
    if n_paths > N_NAMED {
        lines.push(format!("  … and {} more: `rbuild inspect --json`", n_paths - N_NAMED));
    }
    lines
}

/// The part of all files' bytes that is seen, rounded down.
fn efficiency(wasted_bytes: u64, file_bytes: u64) -> String {
    let seen = u128::from(file_bytes.saturating_sub(wasted_bytes));
    let tenths = seen * 1000 / u128::from(file_bytes.max(1));
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// A remark where not all layers could be looked into.
fn partly(view: &ImageView) -> &'static str {
    if view.n_missing() > 0 { ", of the layers that are here" } else { "" }
}

/// The number of the layer that a file lies in.
pub(super) fn layer_of(view: &ImageView, file: &File) -> Option<usize> {
    match &file.origin {
        FileOrigin::Layer(place) => view.number_of(place.layer),
        FileOrigin::Directory(_) | FileOrigin::Inline(_) => None,
    }
}

fn titled(title: &str, rows: Vec<Vec<String>>) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    [vec![title.to_owned()], table::lines(&rows)].concat()
}

#[cfg(test)]
mod tests {
    use super::efficiency;

    #[test]
    fn efficiency_is_rounded_down() {
        for (wasted, all, want) in
            [(0, 0, "0.0%"), (0, 5, "100.0%"), (1, 3, "66.6%"), (1, 1_000_000, "99.9%")]
        {
            assert_eq!(efficiency(wasted, all), want);
        }
    }
}
