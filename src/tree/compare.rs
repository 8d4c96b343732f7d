//! Compares two merged trees. Directories that both trees share are skipped, so comparing two
//! stacks of layers with the same base takes time in proportion to their differences.

use std::sync::Arc;

use super::changes::differences;
use super::{ChangeKind, Dir, LayerItem, Node, Tree, TreeNode, TreePath};

/// A path that may differ between two trees, of which at least one has it.
#[derive(Debug, Clone)]
pub struct PathPair<'a> {
    /// The path in both trees.
    pub path: TreePath,
    /// The node in the old tree.
    pub old: Option<&'a TreeNode>,
    /// The node in the new tree.
    pub new: Option<&'a TreeNode>,
}

impl PathPair<'_> {
    /// Returns all differences; none if only times differ, or nothing.
    #[must_use]
    pub fn differences(&self) -> Vec<ChangeKind> {
        match (self.old, self.new) {
            (None, None) => Vec::new(),
            (None, Some(_)) => vec![ChangeKind::Added],
            (Some(_), None) => vec![ChangeKind::Removed],
            (Some(old), Some(new)) => differences(&item_of(old), &item_of(new)),
        }
    }
}

/// Returns the layer entry that would create this node.
fn item_of(node: &TreeNode) -> LayerItem {
    match node {
        TreeNode::Dir(dir) => LayerItem::Node(dir.meta.clone(), Node::Directory { opaque: false }),
        TreeNode::Leaf(leaf) => LayerItem::Node(leaf.meta().clone(), leaf.node().clone()),
    }
}

/// Calls `visit` for every path outside of shared directories, in layer order: a directory before
/// its contents, names in byte order.
pub fn pairs<'a>(old: &'a Tree, new: &'a Tree, visit: &mut dyn FnMut(PathPair<'a>)) {
    if !Arc::ptr_eq(old.root(), new.root()) {
        below(&TreePath::root(), Some(old.root()), Some(new.root()), visit);
    }
}

fn below<'a>(
    path: &TreePath,
    old: Option<&'a Dir>,
    new: Option<&'a Dir>,
    visit: &mut dyn FnMut(PathPair<'a>),
) {
    let children = |dir: Option<&'a Dir>| dir.into_iter().flat_map(|dir| dir.children.iter());
    let (mut old, mut new) = (children(old).peekable(), children(new).peekable());
    loop {
        let name = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some((name, _)), None) | (None, Some((name, _))) => *name,
            (Some((old, _)), Some((new, _))) => std::cmp::min(*old, *new),
        };
        let old = old.next_if(|(own, _)| *own == name).map(|(_, node)| node);
        let new = new.next_if(|(own, _)| *own == name).map(|(_, node)| node);
        let directories = (old.and_then(directory), new.and_then(directory));
        if let (Some(old), Some(new)) = directories
            && Arc::ptr_eq(old, new)
        {
            continue;
        }
        let path = path.join(name);
        visit(PathPair { path: path.clone(), old, new });
        below(&path, directories.0.map(|dir| &**dir), directories.1.map(|dir| &**dir), visit);
    }
}

const fn directory(node: &TreeNode) -> Option<&Arc<Dir>> {
    match node {
        TreeNode::Dir(dir) => Some(dir),
        TreeNode::Leaf(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Entry, LayerListing, Meta};

    fn dir(path: &str, mode: u32) -> Entry {
        let item = LayerItem::Node(Meta::root(mode, 0), Node::Directory { opaque: false });
        Entry { path: TreePath::clean(path.as_bytes()), item }
    }

    fn fifo(path: &str, mode: u32, uid: u32) -> Entry {
        let item = LayerItem::Node(Meta { uid, ..Meta::root(mode, 0) }, Node::Fifo);
        Entry { path: TreePath::clean(path.as_bytes()), item }
    }

    fn gone(path: &str) -> Entry {
        Entry { path: TreePath::clean(path.as_bytes()), item: LayerItem::Whiteout }
    }

    fn with(tree: &Tree, entries: Vec<Entry>) -> Tree {
        let mut tree = tree.clone();
        tree.apply(&LayerListing::new(entries));
        tree
    }

    #[test]
    fn pairs_skips_shared_directories_and_names_all_differences() {
        let base = vec![
            dir("kept", 0o755),
            fifo("kept/x", 0o644, 0),
            dir("d", 0o755),
            fifo("d/a", 0o644, 0),
            fifo("d/b", 0o644, 0),
            dir("e", 0o755),
            fifo("e/f", 0o644, 0),
        ];
        let old = with(&Tree::default(), base);
        let top = vec![fifo("d/a", 0o600, 7), fifo("d/b", 0o644, 0), fifo("d/c", 0o644, 0)];
        let new = with(&with(&old, top), vec![gone("e"), fifo("e", 0o755, 0)]);
        let mut seen = Vec::new();
        pairs(&old, &new, &mut |pair| {
            seen.push(format!("{} {:?}", pair.path, pair.differences()));
        });
        let want = [
            "/d []",
            "/d/a [Mode, Owner]",
            "/d/b []",
            "/d/c [Added]",
            "/e [Type]",
            "/e/f [Removed]",
        ];
        assert_eq!(seen, want);
        pairs(&old, &old.clone(), &mut |pair| panic!("{pair:?}"));
    }
}
