//! Two merged trees side by side. Directories that both share are not looked into, so that two stacks
//! of layers with the same base are compared in the time that their differences take.

use std::sync::Arc;

use super::changes::differences;
use super::{ChangeKind, Dir, Item, Node, Tree, TreeNode, TreePath};

/// A path that may differ between two trees: at least one of them has it.
#[derive(Debug, Clone)]
pub struct Pair<'a> {
    /// Where.
    pub path: TreePath,
    /// What the old tree has there.
    pub old: Option<&'a TreeNode>,
    /// What the new tree has there.
    pub new: Option<&'a TreeNode>,
}

impl Pair<'_> {
    /// All ways in which it differs; none if only times do, or nothing at all.
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

/// What a layer would say to make this.
fn item_of(node: &TreeNode) -> Item {
    match node {
        TreeNode::Dir(dir) => Item::Node(dir.meta.clone(), Node::Directory { opaque: false }),
        TreeNode::Leaf(leaf) => Item::Node(leaf.meta().clone(), leaf.node().clone()),
    }
}

/// Gives `visit` every path that is not in a directory which both trees share, in the order of layers:
/// a directory before what it holds, names in byte order.
pub fn pairs<'a>(old: &'a Tree, new: &'a Tree, visit: &mut dyn FnMut(Pair<'a>)) {
    if !Arc::ptr_eq(old.root(), new.root()) {
        below(&TreePath::root(), Some(old.root()), Some(new.root()), visit);
    }
}

fn below<'a>(
    path: &TreePath,
    old: Option<&'a Dir>,
    new: Option<&'a Dir>,
    visit: &mut dyn FnMut(Pair<'a>),
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
        visit(Pair { path: path.clone(), old, new });
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
        let item = Item::Node(Meta::root(mode, 0), Node::Directory { opaque: false });
        Entry { path: TreePath::clean(path.as_bytes()), item }
    }

    fn fifo(path: &str, mode: u32, uid: u32) -> Entry {
        let item = Item::Node(Meta { uid, ..Meta::root(mode, 0) }, Node::Fifo);
        Entry { path: TreePath::clean(path.as_bytes()), item }
    }

    fn gone(path: &str) -> Entry {
        Entry { path: TreePath::clean(path.as_bytes()), item: Item::Whiteout }
    }

    fn with(tree: &Tree, entries: Vec<Entry>) -> Tree {
        let mut tree = tree.clone();
        tree.apply(&LayerListing::new(entries));
        tree
    }

    #[test]
    fn only_what_is_not_shared_is_visited_and_all_ways_to_differ_are_named() {
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
