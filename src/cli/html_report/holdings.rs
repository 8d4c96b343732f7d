//! What the layers of an image hold, from the store.

use crate::cli::images::image_view::{ImageView, LayerView};
use crate::image::{ExportError, StoredImages};
use crate::store::{Store, StoreError};
use crate::tree::{ChangeKind, Leaf, Node, PathPair, Tree, TreeNode, pairs};

use super::layers::{FileChange, FileOfLayer, ImageFiles, LayerFiles};

/// So many files of a layer are named;
const MAX_FILES: usize = 200;
/// and so many paths where bytes are wasted.
const MAX_WASTED: usize = 100;

/// Why the store cannot tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldingsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Image(#[from] ExportError),
}

impl ImageFiles {
    /// Of the image with this id, or those of this index; none if the store does not have it.
    ///
    /// # Errors
    /// The store's, and what is wrong with the image.
    pub(crate) fn all(store: &Store, id: &str) -> Result<Vec<Self>, HoldingsError> {
        let hex = id.strip_prefix("sha256:").unwrap_or(id);
        let found = store.images().by_id(hex)?;
        let Some(image) = found.first() else { return Ok(Vec::new()) };
        let loaded = StoredImages::load(store, image.top)?;
        let images = loaded.images.into_iter().map(|image| {
            let view = ImageView::of(store, image)?;
            Ok(Self::of(&view))
        });
        images.collect()
    }

    fn of(view: &ImageView) -> Self {
        let mut tree = Tree::default();
        let layers = view.layers.iter().map(|layer| LayerFiles::of(layer, &mut tree)).collect();
        let wasted = view.survey.wasted();
        let wasted = wasted.iter().take(MAX_WASTED);
        Self {
            platform: view.image.platform().to_string(),
            layers,
            wasted_bytes: view.survey.wasted_bytes(),
            wasted: wasted.map(|wasted| (wasted.path.to_string(), wasted.n_bytes)).collect(),
            file_bytes: view.survey.file_bytes(),
        }
    }
}

impl LayerFiles {
    /// Puts the layer on top of `tree`.
    fn of(layer: &LayerView, tree: &mut Tree) -> Self {
        let mut this = Self {
            digest: layer.diff_id.to_string(),
            instruction: layer.instruction(),
            bytes: layer.tar_bytes,
            ..Self::default()
        };
        let Some(files) = &layer.files else { return this };
        let below = tree.clone();
        tree.apply(&*files.listing);
        let effect = files.effect;
        if files.is_exact {
            this.counts = Some([effect.n_added, effect.n_changed, effect.n_removed]);
            this.wasted_bytes = effect.wasted_bytes;
        }
        pairs(&below, tree, &mut |pair| {
            if let Some(file) = FileOfLayer::of(&pair) {
                this.files.push(file);
                if this.files.len() >= MAX_FILES * 8 {
                    this.keep_biggest();
                }
            }
        });
        this.keep_biggest();
        this
    }

    /// Drops what is not shown.
    fn keep_biggest(&mut self) {
        self.files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        self.n_more += self.files.len().saturating_sub(MAX_FILES);
        self.files.truncate(MAX_FILES);
    }
}

impl FileOfLayer {
    /// Nothing if a layer changed nothing there, or what is there is a directory.
    fn of(pair: &PathPair<'_>) -> Option<Self> {
        let change = match pair.differences().first()? {
            ChangeKind::Added => FileChange::Added,
            ChangeKind::Removed => FileChange::Removed,
            ChangeKind::Content
            | ChangeKind::Type
            | ChangeKind::Mode
            | ChangeKind::Owner
            | ChangeKind::Attributes => FileChange::Changed,
        };
        let leaf = leaf_of(pair.new.or(pair.old)?)?;
        Some(Self { path: pair.path.to_string(), change, bytes: n_bytes(leaf) })
    }
}

const fn leaf_of(node: &TreeNode) -> Option<&Leaf> {
    match node {
        TreeNode::Leaf(leaf) => Some(leaf),
        TreeNode::Dir(_) => None,
    }
}

fn n_bytes(leaf: &Leaf) -> u64 {
    match leaf.node() {
        Node::File(file) => file.size,
        Node::Directory { .. }
        | Node::Symlink(_)
        | Node::CharDevice(_)
        | Node::BlockDevice(_)
        | Node::Fifo => 0,
    }
}
