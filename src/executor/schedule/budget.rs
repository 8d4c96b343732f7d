//! Size limits of an image, checked when its layers exist and before it has a name.

use crate::diag::{Diagnostic, Span, codes, size};
use crate::plan::Base;
use crate::tree::{LayerEntries as _, TreePath};

use crate::executor::state::BuildState;
use crate::executor::{Budget, BuildError, BuiltImage, BuiltLayer, Failure};

use super::assemble::AssembledImage;

/// Maximum number of files that an error names.
const N_FILES: usize = 10;

type Result<T> = std::result::Result<T, Failure>;

/// Checks that no image and no layer is larger than the limits.
pub(in crate::executor) fn check(
    state: &BuildState<'_>,
    images: &mut [AssembledImage],
) -> Result<()> {
    let Budget { image_bytes, layer_bytes } = state.options.budget;
    let is_one = images.len() == 1;
    let mut found = Vec::new();
    for image in images {
        let of = if is_one { String::new() } else { format!(" for {}", image.built.platform) };
        if let Some(most) = layer_bytes {
            found.extend(large_layers(state, &image.built, most)?);
        }
        if let Some(most) = image_bytes {
            measure(state, &mut image.built)?;
            let n_bytes = image.built.known_and_other_bytes().0;
            if n_bytes > most {
                found.push(large_image(state, image, &of, n_bytes, most)?);
            }
        }
    }
    // Images for several platforms can have layers in common.
    found.dedup();
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::new(BuildError::Dockerfile { diagnostics: found }))
}

/// Measures the layers of a base image, which may have to be fetched for it.
fn measure(state: &BuildState<'_>, image: &mut BuiltImage) -> Result<()> {
    let store = state.services.store;
    for layer in image.layers.iter_mut().filter(|layer| layer.tar_bytes.is_none()) {
        if !store.has_layer(layer.diff_id).map_err(BuildError::from)? {
            state.images.fetch_layer(state.services, layer.diff_id, None)?;
        }
        // Listing a layer measures it.
        store.listing(layer.diff_id).map_err(BuildError::from)?;
        layer.tar_bytes = store.tar_bytes(layer.diff_id).map_err(BuildError::from)?;
    }
    Ok(())
}

fn large_layers(state: &BuildState<'_>, image: &BuiltImage, most: u64) -> Result<Vec<Diagnostic>> {
    let mut found = Vec::new();
    for layer in &image.layers {
        let (Some(made_by), Some(n_bytes)) = (&layer.made_by, layer.tar_bytes) else { continue };
        if n_bytes <= most {
            continue;
        }
        let message = format!(
            "this layer has {}, more than the {} of --max-layer-size",
            exactly(n_bytes, most),
            size(most)
        );
        let error = Diagnostic::error(codes::TOO_LARGE, made_by.span, message);
        found.push(error.maybe_help(biggest_files(state, &[layer])?));
    }
    Ok(found)
}

fn large_image(
    state: &BuildState<'_>,
    image: &AssembledImage,
    of: &str,
    n_bytes: u64,
    most: u64,
) -> Result<Diagnostic> {
    let message = format!(
        "the image{of} has {}, more than the {} of --max-size",
        exactly(n_bytes, most),
        size(most)
    );
    let layers = &image.built.layers;
    let made = layers.iter().filter_map(|layer| Some((layer.tar_bytes?, layer.made_by.as_ref()?)));
    let largest = made.clone().max_by_key(|(n_bytes, _)| *n_bytes);
    let of_base = layers.iter().filter(|layer| layer.made_by.is_none());
    let base_bytes = of_base.filter_map(|layer| layer.tar_bytes).sum();
    let base = base_span(state, image.stage);
    let place = match largest {
        Some((largest, made_by)) if largest > base_bytes => made_by.span,
        _ => base,
    };
    let mut error = Diagnostic::error(codes::TOO_LARGE, place, message);
    if base_bytes > 0 {
        error = error.label(base, format!("{} in the base image", size(base_bytes)));
    }
    for (n_bytes, made_by) in made {
        if error.labels.iter().all(|label| label.span != made_by.span) {
            error = error.label(made_by.span, size(n_bytes));
        }
    }
    let all: Vec<&BuiltLayer> = layers.iter().collect();
    let list: Vec<String> = layers.iter().map(line_of).collect();
    let error = error.help(format!("its layers, base first:\n{}", list.join("\n")));
    Ok(error.maybe_help(biggest_files(state, &all)?))
}

/// Returns the location of the FROM that names the base image of a stage, through the stages
/// between.
fn base_span(state: &BuildState<'_>, mut stage: usize) -> Span {
    loop {
        let planned = state.plan.stages.get(stage).expect("a plan names its own stages");
        match planned.base {
            Base::Stage(parent) => stage = parent,
            Base::Scratch | Base::Image(_) => return planned.span,
        }
    }
}

fn line_of(layer: &BuiltLayer) -> String {
    let by = layer.made_by.as_ref().map(|made_by| made_by.place.to_string());
    let n_bytes = size(layer.tar_bytes.unwrap_or(layer.stored_bytes));
    format!("{n_bytes:>8}  {}", by.as_deref().unwrap_or("of the base image"))
}

/// Returns a list of the largest files in these layers; `None` without files.
fn biggest_files(state: &BuildState<'_>, layers: &[&BuiltLayer]) -> Result<Option<String>> {
    let mut files: Vec<(u64, TreePath)> = Vec::new();
    for layer in layers {
        let listing = state.services.store.listing(layer.diff_id).map_err(BuildError::from)?;
        for entry in listing.stream() {
            if let Some(file) = entry.item.file() {
                files.push((file.size, entry.path.clone()));
            }
            if files.len() > 8 * N_FILES {
                keep_biggest(&mut files);
            }
        }
    }
    keep_biggest(&mut files);
    let lines: Vec<String> = files
        .iter()
        .map(|(n_bytes, path)| {
            let path = path.to_string();
            let path: String = path.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            format!("{:>8}  {path}", size(*n_bytes))
        })
        .collect();
    Ok((!lines.is_empty()).then(|| format!("the largest files:\n{}", lines.join("\n"))))
}

fn keep_biggest(files: &mut Vec<(u64, TreePath)>) {
    files.sort_by(|(a, a_path), (b, b_path)| b.cmp(a).then_with(|| a_path.cmp(b_path)));
    files.truncate(N_FILES);
}

/// Formats a size that is more than `most`; in bytes, if both would read the same.
fn exactly(n_bytes: u64, most: u64) -> String {
    let text = size(n_bytes);
    if text == size(most) { format!("{n_bytes}B") } else { text }
}
