//! The layer of a COPY. Its entries are generated from the tree one by one, so the layer is written
//! without a list of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::tree::{Entry, LayerEntries, LayerItem, Node, Tree, TreeNode, TreePath};

/// The part of the subtree at a path that belongs to the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// The node at the path only.
    Itself,
    /// The node and everything below it.
    Whole,
}

/// The layer that a COPY creates.
#[derive(Debug)]
pub struct CopyLayer {
    /// The tree below with everything inserted.
    tree: Tree,
    /// The inserted paths, with all their parent directories.
    touched: BTreeMap<TreePath, Extent>,
    /// Directories that are opaque, because a file had replaced the directory below.
    hidden: BTreeSet<TreePath>,
}

/// The first path of each file with several names, to recognise its hard links.
#[derive(Debug, Default)]
pub(super) struct LinkNames(HashMap<usize, TreePath>);

impl LinkNames {
    /// Returns the path at which this file was encountered first; `None` on that first encounter.
    pub(super) fn first_name(&mut self, node: &TreeNode, path: &TreePath) -> Option<&TreePath> {
        let TreeNode::Leaf(leaf) = node else { return None };
        let mut is_new = false;
        let first = self.0.entry(leaf.identity()?).or_insert_with(|| {
            is_new = true;
            path.clone()
        });
        if is_new { None } else { Some(first) }
    }
}

impl CopyLayer {
    pub(super) fn new(
        tree: Tree,
        mut touched: BTreeMap<TreePath, Extent>,
        hidden: BTreeSet<TreePath>,
    ) -> Self {
        let paths: Vec<TreePath> = touched.keys().filter_map(TreePath::parent).collect();
        for parent in paths {
            let mut parent = Some(parent);
            while let Some(directory) = parent.filter(|directory| !touched.contains_key(directory))
            {
                parent = directory.parent();
                touched.insert(directory, Extent::Itself);
            }
        }
        Self { tree, touched, hidden }
    }

    /// Returns the inserted paths, in order. Paths inside another one that is inserted whole are
    /// skipped.
    fn tops(&self) -> impl Iterator<Item = (&TreePath, Extent)> {
        let mut whole: Option<&TreePath> = None;
        self.touched.iter().filter_map(move |(path, extent)| {
            if whole.is_some_and(|whole| path.below(whole).is_some()) {
                return None;
            }
            whole = (*extent == Extent::Whole).then_some(path);
            Some((path, *extent))
        })
    }

    /// Returns the inserted nodes that still exist: a later archive may have replaced some.
    fn nodes(&self) -> impl Iterator<Item = (TreePath, &TreeNode)> {
        self.tops().flat_map(|(path, extent)| {
            let limit = if extent == Extent::Whole { usize::MAX } else { 1 };
            let itself = (path.is_root() && limit == 1).then_some(0);
            self.tree.walk(path).take(itself.unwrap_or(limit))
        })
    }

    fn item(&self, path: &TreePath, node: &TreeNode, names: &mut LinkNames) -> LayerItem {
        match node {
            TreeNode::Dir(dir) => {
                let opaque = self.hidden.contains(path);
                LayerItem::Node(dir.meta.clone(), Node::Directory { opaque })
            }
            TreeNode::Leaf(leaf) => match names.first_name(node, path) {
                Some(first) => LayerItem::HardLink(first.clone()),
                None => LayerItem::Node(leaf.meta().clone(), leaf.node().clone()),
            },
        }
    }
}

impl LayerEntries for CopyLayer {
    fn stream(&self) -> Box<dyn Iterator<Item = Cow<'_, Entry>> + '_> {
        let mut names = LinkNames::default();
        Box::new(self.nodes().map(move |(path, node)| {
            let item = self.item(&path, node, &mut names);
            Cow::Owned(Entry { path, item })
        }))
    }

    fn n_entries(&self) -> usize {
        self.nodes().count()
    }
}
