//! The JSON of `rbuild diff --json`, as in `docs/schemas/diff.schema.json`.

use serde_json::{Value, json};

use crate::cli::images::image_view::ImageView;
use crate::tree::ChangeKind;

use super::compare::{ChangeOrigin, ImageDiff, PathChange, PathState};

/// The format version of the document. New members do not change it.
const VERSION: u32 = 1;

/// Returns the differences as one JSON object.
pub(super) fn to_json(diff: &ImageDiff<'_>) -> Value {
    let counts = diff.counts();
    let config = diff.config.iter().map(
        |member| json!({ "Member": member.name, "Removed": member.removed, "Added": member.added }),
    );
    let files = diff
        .files
        .iter()
        .flat_map(|(origin, changes)| changes.iter().map(move |change| file(*origin, change)));
    json!({
        "Version": VERSION,
        "Old": image(diff.old),
        "New": image(diff.new),
        "IsSame": diff.is_empty(),
        "SharedLayers": diff.n_shared,
        "Config": config.collect::<Vec<Value>>(),
        "Added": counts.n_added,
        "Changed": counts.n_changed,
        "Removed": counts.n_removed,
        "OldBytes": counts.old_bytes,
        "NewBytes": counts.new_bytes,
        "Files": files.collect::<Vec<Value>>(),
    })
}

fn image(view: &ImageView) -> Value {
    let layers = view.layers.iter().map(|layer| {
        json!({
            "DiffId": layer.diff_id,
            "CreatedBy": layer.history.as_ref().and_then(|entry| entry.created_by.as_deref()),
            "Bytes": layer.tar_bytes,
        })
    });
    json!({ "Id": view.image.config_digest(), "Layers": layers.collect::<Vec<Value>>() })
}

fn file(origin: ChangeOrigin, change: &PathChange) -> Value {
    let (image, layer) = match origin {
        ChangeOrigin::Old(number) => ("old", number),
        ChangeOrigin::New(number) => ("new", number),
    };
    let ways: Vec<&str> = change.ways.iter().map(|way| way_name(*way)).collect();
    json!({
        "Path": change.path.to_string(),
        "Ways": ways,
        "Image": image,
        "Layer": layer,
        "Old": change.old.as_ref().map(state),
        "New": change.new.as_ref().map(state),
    })
}

fn state(state: &PathState) -> Value {
    json!({
        "Type": state.kind,
        "Bytes": state.n_bytes,
        "Mode": format!("{:04o}", state.meta.mode),
        "Uid": state.meta.uid,
        "Gid": state.meta.gid,
        "Target": state.target,
    })
}

const fn way_name(way: ChangeKind) -> &'static str {
    match way {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Type => "type",
        ChangeKind::Content => "content",
        ChangeKind::Mode => "mode",
        ChangeKind::Owner => "owner",
        ChangeKind::Attributes => "attributes",
    }
}
