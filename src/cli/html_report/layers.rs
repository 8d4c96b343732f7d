//! The section about layers, base first: sizes, and the files that each adds, changes and removes.

use super::ReportPage;
use super::html::{Html, count};
use crate::cli::records::BuildEnd;
use crate::diag::size;

/// An image with its layers and wasted bytes.
#[derive(Debug, Default)]
pub(crate) struct ReportedImage {
    pub(crate) platform: String,
    /// The layers, base first.
    pub(crate) layers: Vec<ReportedLayer>,
    /// Size of files in lower layers that upper layers overwrite or remove.
    pub(crate) wasted_bytes: u64,
    /// Paths with the bytes wasted at each, largest first.
    pub(crate) wasted: Vec<(String, u64)>,
    /// Total size of files in all layers.
    pub(crate) file_bytes: u64,
}

/// A layer with its largest files.
#[derive(Debug, Default)]
pub(crate) struct ReportedLayer {
    pub(crate) digest: String,
    pub(crate) instruction: String,
    /// Uncompressed size, if known.
    pub(crate) bytes: Option<u64>,
    /// Numbers of files added, changed and removed; `None` if the layer is not in the store.
    pub(crate) counts: Option<[usize; 3]>,
    pub(crate) wasted_bytes: u64,
    /// The largest files of the layer.
    pub(crate) files: Vec<ReportedFile>,
    /// Number of files not listed.
    pub(crate) n_more: usize,
}

/// A file that a layer adds, changes or removes.
#[derive(Debug)]
pub(crate) struct ReportedFile {
    pub(crate) path: String,
    pub(crate) change: FileChange,
    pub(crate) bytes: u64,
}

/// Change of a file by a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileChange {
    Added,
    Changed,
    Removed,
}

impl FileChange {
    const fn class(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::Added => "+",
            Self::Changed => "~",
            Self::Removed => "−",
        }
    }
}

/// Writes the section: a filter, and the layers of each image.
pub(crate) fn section(page: &ReportPage<'_>) -> Html {
    let mut html = Html::default();
    if page.images.is_empty() {
        if let Some(why) = page.no_images {
            html.put("<p class=\"quiet\">The layers cannot be shown: {}</p>\n", &[&why]);
        } else if matches!(page.recorded.end, Some(BuildEnd::Built(_))) {
            html.raw("<p class=\"quiet\">The image is no longer in the store.</p>\n");
        }
        return html;
    }
    html.raw(
        "<p class=\"tools\" hidden><label>Filter files <input id=\"filter\" type=\"search\" \
         autocomplete=\"off\" spellcheck=\"false\" placeholder=\"part of a path\"></label> \
         <output id=\"hits\"></output></p>\n",
    );
    for image in page.images {
        if page.images.len() > 1 {
            html.put("<h3>{}</h3>\n", &[&image.platform]);
        }
        self::image(image, &mut html);
    }
    html
}

fn image(image: &ReportedImage, html: &mut Html) {
    let most = image.layers.iter().filter_map(|layer| layer.bytes).max().unwrap_or(0).max(1);
    html.raw("<div class=\"layers\">\n");
    for (number, layer) in (1..).zip(&image.layers) {
        self::layer(number, layer, most, html);
    }
    html.raw("</div>\n");
    if image.wasted_bytes > 0 {
        html.put(
            "<details class=\"wasted\"><summary>Wasted space: {} of {}, in files that upper layers overwrite or \
             remove</summary>\n<ul class=\"files\">\n",
            &[&size(image.wasted_bytes), &size(image.file_bytes)],
        );
        for (path, bytes) in &image.wasted {
            html.put("<li><span></span><code>{}</code><b>{}</b></li>\n", &[path, &size(*bytes)]);
        }
        html.raw("</ul></details>\n");
    }
}

fn layer(number: usize, layer: &ReportedLayer, most: u64, html: &mut Html) {
    let bytes = layer.bytes.map_or_else(|| "?".to_owned(), size);
    let part = layer.bytes.unwrap_or(0).saturating_mul(1000) / most;
    html.put(
        "<details class=\"layer\"><summary><span class=\"number\">{}</span><code>{}</code>\
         <span class=\"counts\">{}</span><svg class=\"part\" viewBox=\"0 0 1000 10\" \
         preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect width=\"{}\" height=\"10\"/></svg>\
         <span class=\"size\">{}</span></summary>\n<div class=\"body\">\n",
        &[&number, &layer.instruction, &counts(layer), &part, &bytes],
    );
    html.put("<dl class=\"facts\"><dt>Layer</dt><dd><code>{}</code></dd>\n", &[&layer.digest]);
    if !layer.instruction.is_empty() {
        html.put("<dt>Instruction</dt><dd><code>{}</code></dd>\n", &[&layer.instruction]);
    }
    if layer.wasted_bytes > 0 {
        let wasted = size(layer.wasted_bytes);
        html.put(
            "<dt>Wasted</dt><dd>{} of the layers below, overwritten or removed here</dd>\n",
            &[&wasted],
        );
    }
    html.raw("</dl>\n");
    if layer.counts.is_none() {
        html.raw(
            "<p class=\"quiet\">This layer is not in the store: no step needed its files.</p>\n",
        );
    }
    files(layer, html);
    html.raw("</div></details>\n");
}

/// Formats the counts of a layer: `+12 ~3 −1`.
fn counts(layer: &ReportedLayer) -> String {
    let Some(counts) = layer.counts else { return "not fetched".to_owned() };
    let signs = [FileChange::Added, FileChange::Changed, FileChange::Removed];
    let counts = signs.iter().zip(counts).filter(|(_, n)| *n > 0);
    let counts: Vec<String> = counts.map(|(change, n)| format!("{}{n}", change.sign())).collect();
    if counts.is_empty() { "no files".to_owned() } else { counts.join(" ") }
}

fn files(layer: &ReportedLayer, html: &mut Html) {
    if layer.files.is_empty() {
        return;
    }
    html.raw("<ul class=\"files\">\n");
    for file in &layer.files {
        html.put(
            "<li class=\"{}\"><span title=\"{}\">{}</span><code>{}</code><b>{}</b></li>\n",
            &[
                &file.change.class(),
                &file.change.class(),
                &file.change.sign(),
                &file.path,
                &size(file.bytes),
            ],
        );
    }
    html.raw("</ul>\n");
    if layer.n_more > 0 {
        let more = count(layer.n_more, "more file");
        html.put("<p class=\"quiet\">and {}, none larger than the last one listed</p>\n", &[&more]);
    }
}
