//! The file tree of a stack whose layers may still be hashed: everything but the contents of their files.

use std::borrow::Cow;
use std::fs::File as OsFile;
use std::os::fd::AsFd as _;

use crate::pathio::PathError;
use crate::store::{self, LowerDirectory, StepOrigin};
use crate::tree::{Entry, File, FileOrigin, LayerEntries, LayerItem, Node, Tree, TreePath};

/// A merged file tree. A file of a layer that is still hashed has no content hash and no extended
/// attributes, and its origin is the layer's directory.
#[derive(Debug, Clone, Default)]
pub(in crate::executor) struct Outline {
    tree: Tree,
    /// The directories of these layers. The number in a file's origin is the index.
    directories: Vec<LowerDirectory>,
    /// The caches that listed some of the layers, which are not in the store.
    claims: StepOrigin,
}

impl Outline {
    /// Returns the outline of layers that are all finished.
    pub(in crate::executor) fn of_tree(tree: Tree) -> Self {
        Self { tree, directories: Vec::new(), claims: StepOrigin::default() }
    }

    /// Returns the tree. Only directories and links may be read from it, and the types of other files.
    pub(in crate::executor) const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns the tree if all layers of it were finished, and in the store.
    pub(in crate::executor) fn as_tree(&self) -> Option<&Tree> {
        (self.directories.is_empty() && self.claims.is_own()).then_some(&self.tree)
    }

    /// Returns the caches that listed some of the layers: the files of these cannot be read.
    pub(in crate::executor) const fn claims(&self) -> &StepOrigin {
        &self.claims
    }

    /// Puts a finished layer on top.
    pub(in crate::executor) fn apply(&mut self, layer: &dyn LayerEntries) {
        self.tree.apply(layer);
    }

    /// Puts a layer on top that is not in the store, as a cache lists it.
    pub(in crate::executor) fn apply_claim(
        &mut self,
        layer: &dyn LayerEntries,
        origin: &StepOrigin,
    ) {
        self.tree.apply(layer);
        self.claims = self.claims.and(origin);
    }

    /// Puts a layer on top that is still hashed: the changes that a RUN left in `directory`.
    pub(in crate::executor) fn add_listed(&mut self, changes: &[Entry], directory: LowerDirectory) {
        // No process can open as many directories.
        let number = u32::try_from(self.directories.len()).unwrap_or(u32::MAX);
        let origin = FileOrigin::directory(number, TreePath::root());
        self.tree.apply(&ListedChanges { changes, origin });
        self.directories.push(directory);
    }

    /// Opens a file of the tree if its layer is still hashed.
    ///
    /// # Errors
    /// The error of openat2(2).
    pub(in crate::executor) fn open_listed(
        &self,
        file: &File,
        path: &TreePath,
    ) -> Result<Option<OsFile>, PathError> {
        let FileOrigin::Directory(place) = &file.origin else { return Ok(None) };
        let number = usize::try_from(place.opened()).unwrap_or(usize::MAX);
        let Some(directory) = self.directories.get(number) else { return Ok(None) };
        store::open_layer_file(directory.as_fd(), path)
            .map(Some)
            .map_err(|error| PathError::new("open", path.as_path(), error))
    }
}

/// Changes whose files have the same origin.
struct ListedChanges<'a> {
    changes: &'a [Entry],
    origin: FileOrigin,
}

impl LayerEntries for ListedChanges<'_> {
    fn stream(&self) -> Box<dyn Iterator<Item = Cow<'_, Entry>> + '_> {
        Box::new(self.changes.iter().map(|entry| {
            let LayerItem::Node(_, Node::File(_)) = &entry.item else {
                return Cow::Borrowed(entry);
            };
            let mut entry = entry.clone();
            if let LayerItem::Node(_, Node::File(file)) = &mut entry.item {
                file.origin = self.origin.clone();
            }
            Cow::Owned(entry)
        }))
    }

    fn n_entries(&self) -> usize {
        self.changes.len()
    }
}
