//! The JSON of `rbuild inspect --json`, as in `docs/schemas/inspect.schema.json`.

use serde_json::{Map, Value, json};

use crate::cli::images::image_view::{ImageView, LayerView};
use crate::tree::LayerEntries as _;

use super::InspectedImage;

/// The format version of the document. New members do not change it.
const VERSION: u32 = 1;
/// Maximum number of listed files and of listed paths with wasted bytes.
const N_NAMED: usize = 100;

/// Returns the image as one JSON object. For an index, the member `Images` has its images.
pub(super) fn to_json(subject: &InspectedImage, views: &[ImageView]) -> Value {
    let name = subject.name.as_ref().map(ToString::to_string);
    let names: Vec<String> = subject.names.iter().map(ToString::to_string).collect();
    let mut shown = Map::new();
    shown.insert("Version".to_owned(), json!(VERSION));
    shown.insert("Name".to_owned(), json!(name));
    shown.insert("Names".to_owned(), json!(names));
    match views {
        [only] if !subject.is_index => {
            shown.insert("Manifest".to_owned(), json!(subject.top));
            shown.extend(image(only));
        }
        several => {
            shown.insert("Index".to_owned(), json!(subject.top));
            let images = several.iter().map(|view| Value::Object(image(view)));
            shown.insert("Images".to_owned(), images.collect());
            shown.insert("OtherEntries".to_owned(), json!(subject.n_others));
        }
    }
    Value::Object(shown)
}

fn image(view: &ImageView) -> Map<String, Value> {
    let image = &view.image;
    let config: Value = serde_json::from_slice(&image.config().to_json()).unwrap_or_default();
    let ids: Vec<Value> = view.layers.iter().map(|layer| json!(layer.diff_id)).collect();
    let wasted = view.survey.wasted();
    let paths = wasted.iter().take(N_NAMED).map(|wasted| {
        let path = wasted.path.to_string();
        json!({ "Path": path, "Bytes": wasted.n_bytes, "Times": wasted.n_times })
    });
    let biggest = view.survey.largest(N_NAMED).into_iter().map(|(path, file)| {
        let layer = super::page::layer_of(view, file);
        json!({ "Path": path.to_string(), "Bytes": file.size, "Layer": layer })
    });
    let members = json!({
        "Platform": image.platform().to_string(),
        "Id": image.config_digest(),
        "Created": image.created(),
        "Config": config,
        "Layers": ids,
        "Bytes": view.tar_bytes(),
        "PackedBytes": view.packed_bytes(),
        "LayerDetails": view.layers.iter().map(layer).collect::<Vec<Value>>(),
        "BiggestFiles": biggest.collect::<Vec<Value>>(),
        "Wasted": {
            "IsWhole": view.n_missing() == 0,
            "Bytes": view.survey.wasted_bytes(),
            "FileBytes": view.survey.file_bytes(),
            "Paths": paths.collect::<Vec<Value>>(),
        },
    });
    members.as_object().cloned().unwrap_or_default()
}

fn layer(layer: &LayerView) -> Value {
    let history = layer.history.as_ref();
    let mut shown = json!({
        "DiffId": layer.diff_id,
        "CreatedBy": history.and_then(|entry| entry.created_by.as_deref()),
        "Created": history.and_then(|entry| entry.created.as_deref()),
        "Bytes": layer.tar_bytes,
        "PackedBytes": layer.packed_bytes,
        "IsHere": layer.files.is_some(),
    });
    if let (Some(files), Some(shown)) = (&layer.files, shown.as_object_mut()) {
        let effect = files.effect;
        shown.insert("Entries".to_owned(), json!(files.listing.n_entries()));
        shown.insert("FileBytes".to_owned(), json!(effect.file_bytes));
        if files.is_exact {
            shown.insert("Added".to_owned(), json!(effect.n_added));
            shown.insert("Changed".to_owned(), json!(effect.n_changed));
            shown.insert("Removed".to_owned(), json!(effect.n_removed));
            shown.insert("WastedBytes".to_owned(), json!(effect.wasted_bytes));
        }
    }
    shown
}
