//! What a COPY placed, as entries of a layer: made one by one out of the tree, so that the layer
//! can be written without a list of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::tree::{Entry, Item, LayerEntries, Node, Tree, TreeNode, TreePath};

/// How much of what is at a path was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// It alone.
    Itself,
    /// It and all that it holds.
    Whole,
}

/// The layer that a COPY makes.
#[derive(Debug)]
pub struct Placed {
    /// What was below with what was placed.
    tree: Tree,
    /// What was placed, with all directories on the way.
    touched: BTreeMap<TreePath, Extent>,
    /// Directories that hide what was below.
    hidden: BTreeSet<TreePath>,
}

/// The first path of each file, to find its hard links.
#[derive(Debug, Default)]
pub(super) struct LinkNames(HashMap<usize, TreePath>);

impl LinkNames {
    /// The path that this file was first given with; `None` when it is met for the first time.
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

impl Placed {
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

    /// What was placed, in order: a path that is part of another's whole is not named again.
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

    /// What was placed and is still there: an archive may have put something in its place since.
    fn nodes(&self) -> impl Iterator<Item = (TreePath, &TreeNode)> {
        self.tops().flat_map(|(path, extent)| {
            let limit = if extent == Extent::Whole { usize::MAX } else { 1 };
            let itself = (path.is_root() && limit == 1).then_some(0);
            self.tree.walk(path).take(itself.unwrap_or(limit))
        })
    }

    fn item(&self, path: &TreePath, node: &TreeNode, names: &mut LinkNames) -> Item {
        match node {
            TreeNode::Dir(dir) => {
                let opaque = self.hidden.contains(path);
                Item::Node(dir.meta.clone(), Node::Directory { opaque })
            }
            TreeNode::Leaf(leaf) => match names.first_name(node, path) {
                Some(first) => Item::HardLink(first.clone()),
                None => Item::Node(leaf.meta().clone(), leaf.node().clone()),
            },
        }
    }
}

impl LayerEntries for Placed {
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
