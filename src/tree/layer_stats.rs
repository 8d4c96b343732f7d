//! Statistics of an image's layers: the changes of each, and the bytes of lower layers that they
//! make invisible.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ChangeKind, File, LayerEntries, Leaf, Node, PathPair, Tree, TreeNode, TreePath, pairs,
};

/// The effect of one layer on the layers below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerEffect {
    /// Number of new paths, directories included.
    pub n_added: usize,
    /// Number of paths with another type, content or other properties; times do not count.
    pub n_changed: usize,
    /// Number of removed paths.
    pub n_removed: usize,
    /// Total size of the layer's own files in bytes.
    pub file_bytes: u64,
    /// Total size of the files below that this layer makes invisible.
    pub wasted_bytes: u64,
}

/// A path at which layers contain invisible bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WastedPath {
    /// The path of the files.
    pub path: TreePath,
    /// The invisible bytes at this path.
    pub n_bytes: u64,
    /// Number of times that a file was overwritten or removed there.
    pub n_times: usize,
}

/// The statistics of a stack of layers, collected base first.
#[derive(Debug, Clone, Default)]
pub struct LayerStats {
    tree: Tree,
    layers: Vec<LayerEffect>,
    wasted: BTreeMap<TreePath, (u64, usize)>,
}

impl LayerStats {
    /// Adds a layer on top.
    pub fn push(&mut self, layer: &dyn LayerEntries) {
        let below = self.tree.clone();
        self.tree.apply(layer);
        let sizes = layer.stream().map(|entry| entry.item.file().map_or(0, |file| file.size));
        let mut effect = LayerEffect { file_bytes: sizes.sum(), ..LayerEffect::default() };
        let mut lost = LostFiles::default();
        pairs(&below, &self.tree, &mut |pair| {
            match pair.differences().first() {
                Some(ChangeKind::Added) => effect.n_added += 1,
                Some(ChangeKind::Removed) => effect.n_removed += 1,
                Some(_) => effect.n_changed += 1,
                None => {}
            }
            lost.record(&pair);
        });
        for (path, n_bytes) in lost.without_names_in(&self.tree) {
            effect.wasted_bytes += n_bytes;
            let wasted = self.wasted.entry(path).or_default();
            *wasted = (wasted.0 + n_bytes, wasted.1 + 1);
        }
        self.layers.push(effect);
    }

    /// Returns the effects of the layers so far, base first.
    #[must_use]
    pub fn layers(&self) -> &[LayerEffect] {
        &self.layers
    }

    /// Returns the merged tree, as a container sees it.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns the total size of the files in all layers.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.file_bytes).sum()
    }

    /// Returns the total size of files in lower layers that upper layers overwrite or remove.
    #[must_use]
    pub fn wasted_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.wasted_bytes).sum()
    }

    /// Returns the paths of invisible files, most bytes first; without empty files.
    #[must_use]
    pub fn wasted(&self) -> Vec<WastedPath> {
        let all = self.wasted.iter().filter(|(_, (n_bytes, _))| *n_bytes > 0);
        let mut wasted: Vec<WastedPath> = all
            .map(|(path, (n_bytes, n_times))| WastedPath {
                path: path.clone(),
                n_bytes: *n_bytes,
                n_times: *n_times,
            })
            .collect();
        // The sort is stable: equal sizes stay in path order.
        wasted.sort_by_key(|wasted| std::cmp::Reverse(wasted.n_bytes));
        wasted
    }

    /// Returns the `n_most` largest visible files, largest first; a file with several names appears
    /// once.
    #[must_use]
    pub fn largest(&self, n_most: usize) -> Vec<(TreePath, &File)> {
        let mut seen = BTreeSet::new();
        let all = self.tree.walk(&TreePath::root());
        let files = all.filter_map(|(path, node)| Some((path, leaf_of(node)?)));
        let files = files.filter(|(_, leaf)| leaf.identity().is_none_or(|id| seen.insert(id)));
        let files = files.filter_map(|(path, leaf)| Some((path, file_of(leaf)?)));
        let mut largest: Vec<(TreePath, &File)> = Vec::new();
        for (path, file) in files {
            largest.push((path, file));
            if largest.len() >= n_most.saturating_mul(2).max(64) {
                keep_largest(&mut largest, n_most);
            }
        }
        keep_largest(&mut largest, n_most);
        largest
    }
}

fn keep_largest(files: &mut Vec<(TreePath, &File)>, n_most: usize) {
    files.sort_by(|(a_path, a), (b_path, b)| b.size.cmp(&a.size).then_with(|| a_path.cmp(b_path)));
    files.truncate(n_most);
}

const fn leaf_of(node: &TreeNode) -> Option<&Leaf> {
    match node {
        TreeNode::Leaf(leaf) => Some(leaf),
        TreeNode::Dir(_) => None,
    }
}

fn file_of(leaf: &Leaf) -> Option<&File> {
    match leaf.node() {
        Node::File(file) => Some(file),
        Node::Directory { .. }
        | Node::Symlink(_)
        | Node::CharDevice(_)
        | Node::BlockDevice(_)
        | Node::Fifo => None,
    }
}

/// Files that lost a name to a layer.
#[derive(Default)]
struct LostFiles {
    own: Vec<(TreePath, u64)>,
    /// Files with several names, by identity: such a file is gone only with its last name.
    linked: BTreeMap<usize, (TreePath, u64)>,
}

impl LostFiles {
    fn record(&mut self, pair: &PathPair<'_>) {
        let Some(old) = pair.old.and_then(leaf_of) else { return };
        let Some(file) = file_of(old) else { return };
        let new = pair.new.and_then(leaf_of);
        if let Some(identity) = old.identity() {
            if new.and_then(Leaf::identity) != Some(identity) {
                self.linked.entry(identity).or_insert((pair.path.clone(), file.size));
            }
        } else if new.and_then(file_of).is_none_or(|new| new.origin != file.origin) {
            self.own.push((pair.path.clone(), file.size));
        }
    }

    /// Returns the files that have no name left in the tree `now`.
    fn without_names_in(self, now: &Tree) -> Vec<(TreePath, u64)> {
        let mut gone = self.own;
        if !self.linked.is_empty() {
            let nodes = now.walk(&TreePath::root());
            let alive: BTreeSet<usize> =
                nodes.filter_map(|(_, node)| leaf_of(node)?.identity()).collect();
            let linked = self.linked.into_iter().filter(|(identity, _)| !alive.contains(identity));
            gone.extend(linked.map(|(_, file)| file));
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{DiffId, Digest};
    use crate::tree::{ContentHash, Entry, FileOrigin, LayerItem, LayerListing, Meta};

    fn path(text: &str) -> TreePath {
        TreePath::clean(text.as_bytes())
    }

    fn file(layer: u8, at: &str, size: u64) -> Entry {
        let origin = FileOrigin::layer(DiffId::new(Digest::of(&[layer])), path(at), 0);
        let file = File { size, content: ContentHash::of(&[layer]), origin };
        Entry { path: path(at), item: LayerItem::Node(Meta::root(0o644, 0), Node::File(file)) }
    }

    fn directory(at: &str, opaque: bool) -> Entry {
        let item = LayerItem::Node(Meta::root(0o755, 0), Node::Directory { opaque });
        Entry { path: path(at), item }
    }

    fn item(at: &str, item: LayerItem) -> Entry {
        Entry { path: path(at), item }
    }

    /// Checks the effect of each layer: added, changed, removed, wasted.
    fn check(layers: Vec<Vec<Entry>>, want: &[(usize, usize, usize, u64)]) -> LayerStats {
        let mut stats = LayerStats::default();
        layers.into_iter().for_each(|entries| stats.push(&LayerListing::new(entries)));
        let got: Vec<_> = stats
            .layers()
            .iter()
            .map(|layer| (layer.n_added, layer.n_changed, layer.n_removed, layer.wasted_bytes))
            .collect();
        assert_eq!(got, want);
        stats
    }

    #[test]
    fn overwritten_and_removed_files_count_as_wasted() {
        let base = vec![directory("d", false), file(1, "d/a", 10), file(1, "d/b", 20)];
        let again = vec![directory("d", false), file(2, "d/a", 11), file(2, "d/c", 1)];
        let gone = vec![item("d", LayerItem::Whiteout)];
        let want = [(3, 0, 0, 0), (1, 1, 0, 10), (0, 0, 4, 32)];
        let stats = check(vec![base.clone(), again, gone], &want);
        assert_eq!((stats.wasted_bytes(), stats.file_bytes()), (42, 42));
        let worst: Vec<String> = stats
            .wasted()
            .iter()
            .map(|wasted| format!("{} {} {}", wasted.path, wasted.n_bytes, wasted.n_times))
            .collect();
        assert_eq!(worst, ["/d/a 21 2", "/d/b 20 1", "/d/c 1 1"]);
        // An opaque directory hides what is below, and has what it brings.
        let opaque = vec![directory("d", true), file(2, "d/b", 5)];
        check(vec![base, opaque], &[(3, 0, 0, 0), (0, 1, 1, 30)]);
    }

    #[test]
    fn hard_linked_file_is_wasted_when_its_last_name_is_removed() {
        let base = vec![file(1, "a", 10), item("b", LayerItem::HardLink(path("a")))];
        let one = vec![item("a", LayerItem::Whiteout)];
        let other = vec![item("b", LayerItem::Whiteout)];
        let want = [(2, 0, 0, 0), (0, 0, 1, 0), (0, 0, 1, 10)];
        check(vec![base.clone(), one, other], &want);
        let stats = check(vec![base], &[(2, 0, 0, 0)]);
        let largest: Vec<String> =
            stats.largest(5).iter().map(|(path, file)| format!("{path} {}", file.size)).collect();
        assert_eq!(largest, ["/a 10"]);
    }

    #[test]
    fn largest_files_are_visible_ones() {
        let many = (0..300_u64).map(|n| file(1, &format!("f{n:03}"), n % 7)).collect();
        let mut stats = LayerStats::default();
        stats.push(&LayerListing::new(many));
        stats.push(&LayerListing::new(vec![item("f006", LayerItem::Whiteout), file(2, "z", 99)]));
        let largest: Vec<String> = stats.largest(3).iter().map(|(p, _)| p.to_string()).collect();
        assert_eq!(largest, ["/z", "/f013", "/f020"]);
    }
}
