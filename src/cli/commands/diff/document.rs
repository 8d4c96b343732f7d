//! The differences for programs. The README says what the members mean.

use serde_json::{Value, json};

use crate::cli::images::image_view::ImageView;
use crate::tree::ChangeKind;

use super::compare::{Difference, FileChange, Origin, Side};

/// The version of the form; members may be added without a new one.
const VERSION: u32 = 1;

/// The whole document.
pub(super) fn of(difference: &Difference<'_>) -> Value {
    let counts = difference.counts();
    let config = difference.config.iter().map(
        |member| json!({ "Member": member.name, "Removed": member.removed, "Added": member.added }),
    );
    let files = difference
        .files
        .iter()
        .flat_map(|(origin, changes)| changes.iter().map(move |change| file(*origin, change)));
    json!({
        "Version": VERSION,
        "Old": image(difference.old),
        "New": image(difference.new),
        "IsSame": difference.is_none(),
        "SharedLayers": difference.n_shared,
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

fn file(origin: Origin, change: &FileChange) -> Value {
    let (image, layer) = match origin {
        Origin::Old(number) => ("old", number),
        Origin::New(number) => ("new", number),
    };
    let ways: Vec<&str> = change.ways.iter().map(|way| way_name(*way)).collect();
    json!({
        "Path": change.path.to_string(),
        "Ways": ways,
        "Image": image,
        "Layer": layer,
        "Old": change.old.as_ref().map(side),
        "New": change.new.as_ref().map(side),
    })
}

fn side(side: &Side) -> Value {
    json!({
        "Type": side.kind,
        "Bytes": side.n_bytes,
        "Mode": format!("{:04o}", side.meta.mode),
        "Uid": side.meta.uid,
        "Gid": side.meta.gid,
        "Target": side.target,
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
