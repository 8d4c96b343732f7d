//! The differences between two layers, or any two lists of files.

use std::cmp::Ordering;
use std::iter::Peekable;

use super::{Entry, LayerEntries, LayerItem, Meta, Node, TreePath};

/// The way in which a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// The path is only in the new list.
    Added,
    /// The path is only in the old list.
    Removed,
    /// The type changed, for example from file to directory.
    Type,
    /// The bytes of a file or the target of a link changed.
    Content,
    /// The permission bits changed.
    Mode,
    /// The owner or the group changed.
    Owner,
    /// The extended attributes changed (xattr(7)).
    Attributes,
}

/// A path that differs between two lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path, in both lists.
    pub path: TreePath,
    /// The difference; of several the first in the order of [`ChangeKind`].
    pub kind: ChangeKind,
}

/// Compares two lists path by path, in layer order. Ignores times.
pub fn changes<'a>(
    old: &'a dyn LayerEntries,
    new: &'a dyn LayerEntries,
) -> impl Iterator<Item = Change> + 'a {
    let mut old = old.stream().map(std::borrow::Cow::into_owned).peekable();
    let mut new = new.stream().map(std::borrow::Cow::into_owned).peekable();
    std::iter::from_fn(move || next_change(&mut old, &mut new))
}

fn next_change(
    old: &mut Peekable<impl Iterator<Item = Entry>>,
    new: &mut Peekable<impl Iterator<Item = Entry>>,
) -> Option<Change> {
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.path.cmp(&new.path),
        };
        let kind = match order {
            Ordering::Less => {
                return old.next().map(|old| Change { path: old.path, kind: ChangeKind::Removed });
            }
            Ordering::Greater => {
                return new.next().map(|new| Change { path: new.path, kind: ChangeKind::Added });
            }
            Ordering::Equal => {
                let (Some(old), Some(new)) = (old.next(), new.next()) else { return None };
                difference(&old.item, &new.item).map(|kind| Change { path: new.path, kind })
            }
        };
        if kind.is_some() {
            return kind;
        }
    }
}

fn difference(old: &LayerItem, new: &LayerItem) -> Option<ChangeKind> {
    match (old, new) {
        (LayerItem::Whiteout, LayerItem::Whiteout) | (LayerItem::Opaque, LayerItem::Opaque) => None,
        (LayerItem::HardLink(old), LayerItem::HardLink(new)) => {
            (old != new).then_some(ChangeKind::Content)
        }
        (LayerItem::Node(old_meta, old), LayerItem::Node(new_meta, new)) => {
            content(old, new).or_else(|| properties(old_meta, new_meta))
        }
        _ => Some(ChangeKind::Type),
    }
}

/// Returns all differences between two items. After a change of type nothing else is compared.
pub(super) fn differences(old: &LayerItem, new: &LayerItem) -> Vec<ChangeKind> {
    let (LayerItem::Node(old_meta, old_node), LayerItem::Node(new_meta, new_node)) = (old, new)
    else {
        return difference(old, new).into_iter().collect();
    };
    let content = content(old_node, new_node);
    if content == Some(ChangeKind::Type) {
        return vec![ChangeKind::Type];
    }
    content.into_iter().chain(all_properties(old_meta, new_meta)).collect()
}

fn content(old: &Node, new: &Node) -> Option<ChangeKind> {
    let same = match (old, new) {
        (Node::File(old), Node::File(new)) => old.content == new.content,
        (Node::Symlink(old), Node::Symlink(new)) => old == new,
        (Node::CharDevice(old), Node::CharDevice(new))
        | (Node::BlockDevice(old), Node::BlockDevice(new)) => old == new,
        (Node::Directory { .. }, Node::Directory { .. }) | (Node::Fifo, Node::Fifo) => true,
        _ => return Some(ChangeKind::Type),
    };
    (!same).then_some(ChangeKind::Content)
}

fn properties(old: &Meta, new: &Meta) -> Option<ChangeKind> {
    all_properties(old, new).next()
}

fn all_properties(old: &Meta, new: &Meta) -> impl Iterator<Item = ChangeKind> {
    let ways = [
        (old.mode != new.mode, ChangeKind::Mode),
        ((old.uid, old.gid) != (new.uid, new.gid), ChangeKind::Owner),
        (old.xattrs != new.xattrs, ChangeKind::Attributes),
    ];
    ways.into_iter().filter(|(differs, _)| *differs).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{ContentHash, File, FileOrigin};

    fn file(path: &str, mode: u32, uid: u32, content: &str) -> Entry {
        let content = ContentHash::of(content.as_bytes());
        let file = File { size: 1, content, origin: FileOrigin::directory(0, TreePath::root()) };
        let meta = Meta { uid, ..Meta::root(mode, i64::from(uid)) };
        Entry {
            path: TreePath::clean(path.as_bytes()),
            item: LayerItem::Node(meta, Node::File(file)),
        }
    }

    #[test]
    fn each_difference_has_its_kind_and_times_are_ignored() {
        let item = |path: &str, item| Entry { path: TreePath::clean(path.as_bytes()), item };
        let fifo = || LayerItem::Node(Meta::root(0o644, 0), Node::Fifo);
        let old = vec![
            file("content", 0o644, 0, "a"),
            file("gone", 0o644, 0, "a"),
            file("mode", 0o644, 0, "a"),
            file("owner", 0o644, 0, "a"),
            file("same", 0o644, 0, "a"),
            file("type", 0o644, 0, "a"),
            item("whiteout", LayerItem::Whiteout),
        ];
        let new = vec![
            file("content", 0o600, 0, "b"),
            file("mode", 0o755, 0, "a"),
            file("new", 0o644, 0, "a"),
            file("owner", 0o644, 7, "a"),
            file("same", 0o644, 0, "a"),
            item("type", fifo()),
            item("whiteout", fifo()),
        ];
        let found: Vec<String> = changes(&old.as_slice(), &new.as_slice())
            .map(|change| format!("{} {:?}", change.path, change.kind))
            .collect();
        let want = [
            "/content Content",
            "/gone Removed",
            "/mode Mode",
            "/new Added",
            "/owner Owner",
            "/type Type",
            "/whiteout Type",
        ];
        assert_eq!(found, want);
        assert_eq!(changes(&new.as_slice(), &new.as_slice()).count(), 0);
    }
}
