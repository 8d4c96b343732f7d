//! The layer that turns one merged tree into another: the changes of several layers, in one.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::pairs;
use super::{Entry, LayerItem, LayerListing, Leaf, Meta, Node, Tree, TreeNode, TreePath};

/// Returns the layer that makes `new` of `old`, with times. Empty if they do not differ.
#[must_use]
pub fn layer_between(old: &Tree, new: &Tree) -> LayerListing {
    let mut changes = Changes { new, entries: BTreeMap::new(), files: BTreeSet::new() };
    let mut removed: Option<TreePath> = None;
    pairs(old, new, &mut |pair| {
        match (pair.old, pair.new) {
            (Some(_), None) => {
                // What was in a removed directory is gone with it.
                let is_inside =
                    removed.as_ref().is_some_and(|gone| pair.path.below(gone).is_some());
                if !is_inside && !has_file_above(new, &pair.path) {
                    removed = Some(pair.path.clone());
                    changes.add(&pair.path, LayerItem::Whiteout);
                }
            }
            (old, Some(node)) if old.is_none_or(|old| is_changed(old, node)) => {
                changes.add_node(&pair.path, node);
            }
            (Some(_), Some(_)) | (None, _) => {}
        }
    });
    changes.add_links();
    let entries = changes.entries.into_iter();
    LayerListing::new(entries.map(|(path, item)| Entry { path, item }).collect())
}

/// The entries of the layer so far.
struct Changes<'a> {
    new: &'a Tree,
    entries: BTreeMap<TreePath, LayerItem>,
    /// Identities of changed files with several names.
    files: BTreeSet<usize>,
}

impl Changes<'_> {
    fn add_node(&mut self, path: &TreePath, node: &TreeNode) {
        let item = match node {
            TreeNode::Dir(dir) => {
                LayerItem::Node(dir.meta.clone(), Node::Directory { opaque: false })
            }
            TreeNode::Leaf(leaf) => {
                self.files.extend(leaf.identity());
                LayerItem::Node(leaf.meta().clone(), leaf.node().clone())
            }
        };
        self.add(path, item);
    }

    /// Adds an entry, and the directories above it: those that a layer does not list are root's.
    fn add(&mut self, path: &TreePath, item: LayerItem) {
        self.entries.insert(path.clone(), item);
        let mut above = path.parent();
        while let Some(directory) = above.filter(|directory| !directory.is_root()) {
            if self.entries.contains_key(&directory) {
                return;
            }
            let meta = self.new.dir(&directory).map_or_else(Meta::default, |dir| dir.meta.clone());
            let node = Node::Directory { opaque: false };
            self.entries.insert(directory.clone(), LayerItem::Node(meta, node));
            above = directory.parent();
        }
    }

    /// Adds all names of changed files that have several: a layer cannot link to a file of a lower one.
    fn add_links(&mut self) {
        if self.files.is_empty() {
            return;
        }
        let new = self.new;
        let mut first: BTreeMap<usize, TreePath> = BTreeMap::new();
        for (path, node) in new.walk(&TreePath::root()) {
            let TreeNode::Leaf(leaf @ Leaf::Linked(_)) = node else { continue };
            let Some(file) = leaf.identity().filter(|file| self.files.contains(file)) else {
                continue;
            };
            match first.get(&file) {
                Some(target) => {
                    let target = target.clone();
                    self.add(&path, LayerItem::HardLink(target));
                }
                None => {
                    first.insert(file, path.clone());
                    self.add_node(&path, node);
                }
            }
        }
    }
}

/// Returns whether a layer has to list the node: it has other properties, content or names.
fn is_changed(old: &TreeNode, new: &TreeNode) -> bool {
    match (old, new) {
        (TreeNode::Dir(old), TreeNode::Dir(new)) => old.meta != new.meta,
        (TreeNode::Leaf(old), TreeNode::Leaf(new)) => {
            old.meta() != new.meta()
                || !is_same(old.node(), new.node())
                || old.identity() != new.identity()
        }
        (TreeNode::Dir(_), TreeNode::Leaf(_)) | (TreeNode::Leaf(_), TreeNode::Dir(_)) => true,
    }
}

/// Compares two nodes without the locations of their contents.
fn is_same(old: &Node, new: &Node) -> bool {
    match (old, new) {
        (Node::File(old), Node::File(new)) => (old.size, &old.content) == (new.size, &new.content),
        (old, new) => old == new,
    }
}

/// Returns whether a parent of `path` is a file in the tree, which hides what was below it.
fn has_file_above(tree: &Tree, path: &TreePath) -> bool {
    path.parent().is_some_and(|parent| !parent.is_root() && tree.dir(&parent).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, mode: u32, node: Node) -> Entry {
        let item = LayerItem::Node(Meta::root(mode, 1), node);
        Entry { path: TreePath::clean(path.as_bytes()), item }
    }

    fn dir(path: &str) -> Entry {
        node(path, 0o755, Node::Directory { opaque: false })
    }

    fn opaque(path: &str) -> Entry {
        node(path, 0o755, Node::Directory { opaque: true })
    }

    fn fifo(path: &str, mode: u32) -> Entry {
        node(path, mode, Node::Fifo)
    }

    fn gone(path: &str) -> Entry {
        Entry { path: TreePath::clean(path.as_bytes()), item: LayerItem::Whiteout }
    }

    fn link(path: &str, target: &str) -> Entry {
        let item = LayerItem::HardLink(TreePath::clean(target.as_bytes()));
        Entry { path: TreePath::clean(path.as_bytes()), item }
    }

    fn with(tree: &Tree, entries: Vec<Entry>) -> Tree {
        let mut tree = tree.clone();
        tree.apply(&LayerListing::new(entries));
        tree
    }

    /// Lists a tree, with the groups of its links.
    fn lines(tree: &Tree) -> Vec<String> {
        let mut groups: Vec<usize> = Vec::new();
        let walk = tree.walk(&TreePath::root());
        let line = |(path, node): (TreePath, &TreeNode)| {
            let identity = if let TreeNode::Leaf(leaf) = node { leaf.identity() } else { None };
            let group = identity.map(|file| {
                let known = groups.iter().position(|known| *known == file);
                known.unwrap_or_else(|| {
                    groups.push(file);
                    groups.len() - 1
                })
            });
            format!("{path} {:?} {group:?}", node.meta())
        };
        walk.map(line).collect()
    }

    fn base() -> Tree {
        with(
            &Tree::default(),
            vec![
                dir("kept"),
                fifo("kept/a", 0o644),
                dir("d"),
                fifo("d/a", 0o644),
                fifo("d/b", 0o644),
                dir("d/sub"),
                fifo("d/sub/x", 0o644),
                fifo("l1", 0o644),
                link("l2", "l1"),
            ],
        )
    }

    #[test]
    fn one_layer_has_the_effect_of_several() {
        let base = base();
        for (layers, want) in [
            (vec![vec![fifo("d/c", 0o600)], vec![gone("d/c"), dir("d")]], ""),
            (
                vec![vec![dir("d"), gone("d/a")], vec![dir("d"), fifo("d/b", 0o600)]],
                "/d /d/a- /d/b",
            ),
            (
                vec![vec![gone("d")], vec![dir("d"), fifo("d/new", 0o644)]],
                "/d /d/a- /d/b- /d/new /d/sub-",
            ),
            (vec![vec![opaque("d")]], "/d /d/a- /d/b- /d/sub-"),
            (vec![vec![gone("d")], vec![fifo("d", 0o644)]], "/d"),
            (vec![vec![dir("d"), gone("d/sub")]], "/d /d/sub-"),
            (vec![vec![fifo("l1", 0o600)]], "/l1"),
            (
                vec![vec![dir("kept"), fifo("kept/x", 0o644), link("kept/y", "kept/x")]],
                "/kept /kept/x /kept/y=",
            ),
            (
                vec![vec![fifo("kept/a", 0o7), dir("kept")], vec![dir("new/deep")]],
                "/kept /kept/a /new /new/deep",
            ),
        ] {
            let new = layers.iter().fold(base.clone(), |tree, layer| with(&tree, layer.clone()));
            let layer = layer_between(&base, &new);
            let mark = |entry: &Entry| match &entry.item {
                LayerItem::Whiteout => "-",
                LayerItem::HardLink(_) => "=",
                LayerItem::Node(..) | LayerItem::Opaque => "",
            };
            let shown: Vec<String> = layer
                .entries()
                .iter()
                .map(|entry| format!("{}{}", entry.path, mark(entry)))
                .collect();
            assert_eq!(shown.join(" "), want, "{layers:?}");
            assert_eq!(lines(&with(&base, layer.entries().to_vec())), lines(&new), "{want}");
        }
        let all = layer_between(&Tree::default(), &base);
        assert_eq!(lines(&with(&Tree::default(), all.entries().to_vec())), lines(&base));
    }
}
