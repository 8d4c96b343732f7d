//! Squashed images: the layers of a stage as one.

use crate::executor::state::BuildState;
use crate::executor::state::stage_result::StageResult;
use crate::executor::{BuildError, Failure, Outcome, Squash};
use crate::oci::History;
use crate::store::{Representation, StoredLayer};
use crate::tree::{FileOrigin, LayerEntries as _, Tree, layer_between};

/// Comment of the history entry of a squashed layer.
const COMMENT: &str = "rbuild squashed layers";

/// The layers of an image after squashing.
pub(super) struct SquashedLayers {
    /// Number of layers of the base image that are kept.
    pub(super) n_kept: usize,
    /// The layer on top of them; `None` if it would be empty.
    pub(super) layer: Option<StoredLayer>,
}

/// Puts the new layers of a stage into one, or all its layers. `n_base` are those of the base image. `None`
/// if nothing is squashed.
///
/// The layer is made again in each build: it costs as much as reading its files once.
pub(super) fn squashed(
    state: &BuildState<'_>,
    stage: &StageResult,
    n_base: usize,
) -> Result<Option<SquashedLayers>, Failure> {
    let n_kept = match state.options.squash {
        Squash::Nothing => return Ok(None),
        Squash::New => n_base,
        Squash::All => 0,
    };
    let services = state.services;
    let step = services.start("[internal] squash layers".to_owned());
    let made = merged(state, stage, n_kept);
    services.finish(step, if made.is_ok() { Outcome::Done } else { Outcome::Failed });
    Ok(Some(SquashedLayers { n_kept, layer: made? }))
}

/// Returns the layer that has the changes of all layers above the lowest `n_kept`.
fn merged(
    state: &BuildState<'_>,
    stage: &StageResult,
    n_kept: usize,
) -> Result<Option<StoredLayer>, Failure> {
    let store = state.services.store;
    let all = state.tree(&stage.stack)?;
    let mut below = Tree::default();
    for layer in stage.stack.layers()?.iter().take(n_kept) {
        below.apply(&*store.listing(layer.diff_id).map_err(BuildError::from)?);
    }
    let layer = layer_between(&below, &all);
    if layer.n_entries() == 0 {
        return Ok(None);
    }
    let open = |file: &crate::tree::File, path: &crate::tree::TreePath| match &file.origin {
        FileOrigin::Layer(place) => {
            let opened = store.open_layer_file(place.layer, &place.path, place.tar_at, file.size);
            let opened: Box<dyn std::io::Read> = opened.map_err(std::io::Error::other)?;
            Ok(opened)
        }
        FileOrigin::Directory(_) | FileOrigin::Inline(_) => {
            Err(std::io::Error::other(format!("{path} is not in a layer")))
        }
    };
    let options = state.options.layer_options();
    let made = store.layer_from_entries(&layer, &open, Representation::Tar, &options);
    let (layer, _directory) = made.map_err(BuildError::from)?;
    Ok(Some(layer))
}

/// Marks the entries above the lowest `n_kept` layers as without a layer, and adds one for the layer.
pub(super) fn squash_history(
    history: &mut Vec<History>,
    squashed: &SquashedLayers,
    created: Option<String>,
) {
    let mut n_layers = 0;
    let mut n_instructions = 0_usize;
    for entry in history.iter_mut() {
        n_layers += usize::from(!entry.empty_layer);
        if n_layers > squashed.n_kept {
            n_instructions += usize::from(!entry.empty_layer);
            entry.empty_layer = true;
        }
    }
    if squashed.layer.is_some() {
        history.push(History {
            created,
            created_by: Some(format!("squash of {n_instructions} layers")),
            author: None,
            comment: Some(COMMENT.to_owned()),
            empty_layer: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_has_one_entry_with_a_layer_above_the_kept_ones() {
        let entry = |empty_layer| History { empty_layer, ..History::default() };
        let mut history = vec![entry(false), entry(true), entry(false), entry(true), entry(false)];
        let squashed = SquashedLayers { n_kept: 1, layer: None };
        squash_history(&mut history, &squashed, None);
        let marks: Vec<bool> = history.iter().map(|entry| entry.empty_layer).collect();
        assert_eq!(marks, [false, true, true, true, true]);
    }
}
