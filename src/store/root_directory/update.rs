//! Changes the files of a directory from one tree to another. Only paths that differ are touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;

use crate::oci::DiffId;
use crate::pool;
use crate::store::{Store, StoreError};
use crate::tree::{self, Dir, FileOrigin, Leaf, Meta, Node, PathPair, Tree, TreeNode, TreePath};

use super::contents::LayerContents;
use super::maker::{FileMaker, MakerRights, NewAttributes};

type Result<T> = std::result::Result<T, StoreError>;

/// Number of files that one thread creates at a time.
const FILES_AT_ONCE: usize = 256;

/// Changes the files in `root` from `old` to `new`; returns the attributes of new files.
///
/// # Errors
/// [`StoreError::NoSpace`], the damage of a layer, or [`StoreError::Io`]. The files are then neither
/// those of `old` nor of `new`.
pub(super) fn update(
    store: &Store,
    root: BorrowedFd<'_>,
    (old, new): (&Tree, &Tree),
    rights: MakerRights,
) -> Result<Vec<NewAttributes>> {
    let plan = UpdatePlan::of(old, new);
    let contents = LayerContents::open(store, plan.layers())?;
    let mut maker = FileMaker::new(root, &contents, rights);
    plan.removed.iter().try_for_each(|path| maker.remove(path))?;
    plan.directories.iter().try_for_each(|path| maker.directory(path))?;
    let jobs = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let leaves = stream(&mut maker, &contents, plan.leaves)?;
    let chunks: Vec<&[(TreePath, &Leaf)]> = leaves.chunks(FILES_AT_ONCE).collect();
    let made = pool::map_in_order(&chunks, jobs, |files| {
        let mut maker = FileMaker::new(root, &contents, rights);
        files.iter().try_for_each(|(path, leaf)| maker.leaf(path, leaf))?;
        Ok::<_, StoreError>(maker.made)
    });
    for made in made {
        maker.made.extend(made?);
    }
    plan.links.iter().try_for_each(|(path, target)| maker.hard_link(path, target))?;
    // Subdirectories first: a mode may deny access, and each new entry sets its directory's time.
    let finished = plan.finished.iter().rev();
    finished.into_iter().try_for_each(|(path, meta)| maker.finish_directory(path, meta))?;
    Ok(maker.made)
}

/// Creates the files whose contents are in compressed layers, in the order of those; returns the
/// others.
fn stream<'a>(
    maker: &mut FileMaker<'_>,
    contents: &LayerContents<'_>,
    leaves: Vec<(TreePath, &'a Leaf)>,
) -> Result<Vec<(TreePath, &'a Leaf)>> {
    let mut others = Vec::with_capacity(leaves.len());
    let mut streamed: BTreeMap<DiffId, HashMap<u64, (TreePath, &Leaf)>> = BTreeMap::new();
    for (path, leaf) in leaves {
        let place = match leaf.node() {
            Node::File(file) => contents.streamed(file),
            Node::Directory { .. }
            | Node::Symlink(_)
            | Node::CharDevice(_)
            | Node::BlockDevice(_)
            | Node::Fifo => None,
        };
        match place {
            Some((layer, at)) => {
                others.extend(streamed.entry(layer).or_default().insert(at, (path, leaf)));
            }
            None => others.push((path, leaf)),
        }
    }
    for (layer, mut files) in streamed {
        contents.stream(layer, &mut |at, content| {
            let Some((path, leaf)) = files.remove(&at) else { return Ok(()) };
            let Node::File(file) = leaf.node() else { return Ok(()) };
            maker.streamed(&path, (leaf.meta(), file), content)
        })?;
        // Read in another way, which finds the damage.
        others.extend(files.into_values());
    }
    Ok(others)
}

/// The differences between two trees, as changes on the disk.
#[derive(Debug, Default)]
struct UpdatePlan<'a> {
    /// Paths to remove with everything below them.
    removed: Vec<TreePath>,
    /// Directories to create, parents first.
    directories: Vec<TreePath>,
    /// Files to create.
    leaves: Vec<(TreePath, &'a Leaf)>,
    /// Further names of files, and one of the names that exist before.
    links: Vec<(TreePath, TreePath)>,
    /// Directories whose properties are set at the end.
    finished: BTreeMap<TreePath, &'a Meta>,
}

impl<'a> UpdatePlan<'a> {
    fn of(old: &'a Tree, new: &'a Tree) -> Self {
        let mut plan = Self::default();
        // By identity: one name of each file with several names that is on the disk.
        let mut names: HashMap<usize, TreePath> = HashMap::new();
        let (mut made, mut touched) = (Vec::new(), BTreeSet::new());
        tree::pairs(old, new, &mut |PathPair { path, old, new }| {
            let parent = path.parent().unwrap_or_default();
            match (old, new) {
                (Some(TreeNode::Dir(old)), Some(TreeNode::Dir(new))) => {
                    if old.meta != new.meta {
                        plan.finished.insert(path, &new.meta);
                    }
                    return;
                }
                (Some(TreeNode::Leaf(old)), Some(TreeNode::Leaf(new))) if is_same(old, new) => {
                    if let Some(identity) = new.identity() {
                        names.insert(identity, path);
                    }
                    return;
                }
                (Some(_), _) => plan.remove(&path),
                (None, _) => {}
            }
            match new {
                Some(TreeNode::Dir(dir)) => {
                    plan.finished.insert(path.clone(), &dir.meta);
                    plan.directories.push(path);
                }
                Some(TreeNode::Leaf(leaf)) => made.push((path, leaf)),
                None => {}
            }
            touched.insert(parent);
        });
        for (path, leaf) in made {
            match leaf.identity().map(|identity| names.entry(identity)) {
                Some(std::collections::hash_map::Entry::Occupied(name)) => {
                    plan.links.push((path, name.get().clone()));
                    continue;
                }
                Some(std::collections::hash_map::Entry::Vacant(name)) => {
                    name.insert(path.clone());
                }
                None => {}
            }
            plan.leaves.push((path, leaf));
        }
        for path in touched.into_iter().filter(|path| !path.is_root()) {
            if let Some(Dir { meta, .. }) = new.dir(&path) {
                plan.finished.insert(path, meta);
            }
        }
        plan
    }

    /// Removes a path, unless a directory above it is removed.
    fn remove(&mut self, path: &TreePath) {
        if self.removed.last().is_none_or(|above| path.below(above).is_none()) {
            self.removed.push(path.clone());
        }
    }

    /// Returns the layers that have the contents of new files.
    fn layers(&self) -> BTreeSet<DiffId> {
        let layer = |(_, leaf): &(TreePath, &Leaf)| match leaf.node() {
            Node::File(file) if file.size > 0 => match &file.origin {
                FileOrigin::Layer(place) => Some(place.layer),
                FileOrigin::Directory(_) | FileOrigin::Inline(_) => None,
            },
            Node::File(_)
            | Node::Directory { .. }
            | Node::Symlink(_)
            | Node::CharDevice(_)
            | Node::BlockDevice(_)
            | Node::Fifo => None,
        };
        self.leaves.iter().filter_map(layer).collect()
    }
}

/// Returns whether a file need not be created again. A layer that lists a file with several names
/// gives the listed names another file.
fn is_same(old: &Leaf, new: &Leaf) -> bool {
    let has_names = old.identity().is_none() || old.identity() == new.identity();
    let node = match (old.node(), new.node()) {
        (Node::File(old), Node::File(new)) => (old.size, old.content) == (new.size, new.content),
        (old, new) => old == new,
    };
    has_names && node && old.meta() == new.meta()
}
