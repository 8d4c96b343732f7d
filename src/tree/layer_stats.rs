//! What each layer of an image does to those below it, and what of those nobody sees any more.

use std::collections::{BTreeMap, BTreeSet};

use super::{ChangeKind, File, LayerEntries, Leaf, Node, Pair, Tree, TreeNode, TreePath, pairs};

/// What one layer does to those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerEffect {
    /// Paths that were not there, directories included.
    pub n_added: usize,
    /// Paths that are something else now, or have other properties; times do not count.
    pub n_changed: usize,
    /// Paths that are gone.
    pub n_removed: usize,
    /// Bytes of the files that it has.
    pub file_bytes: u64,
    /// Bytes of files below that nobody sees any more because of it.
    pub wasted_bytes: u64,
}

/// A path where layers hold bytes that nobody sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wasted {
    /// Where the files were.
    pub path: TreePath,
    /// How many bytes.
    pub n_bytes: u64,
    /// How often a file was overwritten or removed there.
    pub n_times: usize,
}

/// Layers on top of each other, base first, and what each did.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    tree: Tree,
    layers: Vec<LayerEffect>,
    wasted: BTreeMap<TreePath, (u64, usize)>,
}

impl Survey {
    /// Puts a layer on top.
    pub fn push(&mut self, layer: &dyn LayerEntries) {
        let below = self.tree.clone();
        self.tree.apply(layer);
        let sizes = layer.stream().map(|entry| entry.item.file().map_or(0, |file| file.size));
        let mut effect = LayerEffect { file_bytes: sizes.sum(), ..LayerEffect::default() };
        let mut lost = Lost::default();
        pairs(&below, &self.tree, &mut |pair| {
            match pair.differences().first() {
                Some(ChangeKind::Added) => effect.n_added += 1,
                Some(ChangeKind::Removed) => effect.n_removed += 1,
                Some(_) => effect.n_changed += 1,
                None => {}
            }
            lost.see(&pair);
        });
        for (path, n_bytes) in lost.for_ever(&self.tree) {
            effect.wasted_bytes += n_bytes;
            let wasted = self.wasted.entry(path).or_default();
            *wasted = (wasted.0 + n_bytes, wasted.1 + 1);
        }
        self.layers.push(effect);
    }

    /// The layers so far, base first.
    #[must_use]
    pub fn layers(&self) -> &[LayerEffect] {
        &self.layers
    }

    /// All layers together, as a container sees them.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Bytes of files in all layers.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.file_bytes).sum()
    }

    /// Bytes of files in lower layers that upper layers overwrite or remove.
    #[must_use]
    pub fn wasted_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.wasted_bytes).sum()
    }

    /// Where they were, most bytes first; empty files are none of them.
    #[must_use]
    pub fn wasted(&self) -> Vec<Wasted> {
        let all = self.wasted.iter().filter(|(_, (n_bytes, _))| *n_bytes > 0);
        let mut wasted: Vec<Wasted> = all
            .map(|(path, (n_bytes, n_times))| Wasted {
                path: path.clone(),
                n_bytes: *n_bytes,
                n_times: *n_times,
            })
            .collect();
        // Stable: of equal ones the first by path.
        wasted.sort_by_key(|wasted| std::cmp::Reverse(wasted.n_bytes));
        wasted
    }

    /// The files that a container sees, most bytes first, `n_most` at most; one with several names
    /// is there once.
    #[must_use]
    pub fn biggest(&self, n_most: usize) -> Vec<(TreePath, &File)> {
        let mut seen = BTreeSet::new();
        let all = self.tree.walk(&TreePath::root());
        let files = all.filter_map(|(path, node)| Some((path, leaf_of(node)?)));
        let files = files.filter(|(_, leaf)| leaf.identity().is_none_or(|id| seen.insert(id)));
        let files = files.filter_map(|(path, leaf)| Some((path, file_of(leaf)?)));
        let mut biggest: Vec<(TreePath, &File)> = Vec::new();
        for (path, file) in files {
            biggest.push((path, file));
            if biggest.len() >= n_most.saturating_mul(2).max(64) {
                keep_biggest(&mut biggest, n_most);
            }
        }
        keep_biggest(&mut biggest, n_most);
        biggest
    }
}

fn keep_biggest(files: &mut Vec<(TreePath, &File)>, n_most: usize) {
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
struct Lost {
    own: Vec<(TreePath, u64)>,
    /// By identity: a file is gone only with the last of its names.
    linked: BTreeMap<usize, (TreePath, u64)>,
}

impl Lost {
    fn see(&mut self, pair: &Pair<'_>) {
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

    /// Those that have no name left in `now`, the tree that came of it.
    fn for_ever(self, now: &Tree) -> Vec<(TreePath, u64)> {
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
    use crate::tree::{ContentHash, Entry, FileOrigin, Item, LayerListing, Meta};

    fn path(text: &str) -> TreePath {
        TreePath::clean(text.as_bytes())
    }

    fn file(layer: u8, at: &str, size: u64) -> Entry {
        let origin = FileOrigin::layer(DiffId::new(Digest::of(&[layer])), path(at), 0);
        let file = File { size, content: ContentHash::of(&[layer]), origin };
        Entry { path: path(at), item: Item::Node(Meta::root(0o644, 0), Node::File(file)) }
    }

    fn directory(at: &str, opaque: bool) -> Entry {
        let item = Item::Node(Meta::root(0o755, 0), Node::Directory { opaque });
        Entry { path: path(at), item }
    }

    fn item(at: &str, item: Item) -> Entry {
        Entry { path: path(at), item }
    }

    /// What each layer did: added, changed, removed, wasted.
    fn check(layers: Vec<Vec<Entry>>, want: &[(usize, usize, usize, u64)]) -> Survey {
        let mut survey = Survey::default();
        layers.into_iter().for_each(|entries| survey.push(&LayerListing::new(entries)));
        let got: Vec<_> = survey
            .layers()
            .iter()
            .map(|layer| (layer.n_added, layer.n_changed, layer.n_removed, layer.wasted_bytes))
            .collect();
        assert_eq!(got, want);
        survey
    }

    #[test]
    fn what_is_overwritten_or_removed_is_wasted() {
        let base = vec![directory("d", false), file(1, "d/a", 10), file(1, "d/b", 20)];
        let again = vec![directory("d", false), file(2, "d/a", 11), file(2, "d/c", 1)];
        let gone = vec![item("d", Item::Whiteout)];
        let want = [(3, 0, 0, 0), (1, 1, 0, 10), (0, 0, 4, 32)];
        let survey = check(vec![base.clone(), again, gone], &want);
        assert_eq!((survey.wasted_bytes(), survey.file_bytes()), (42, 42));
        let worst: Vec<String> = survey
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
    fn a_file_with_several_names_is_wasted_when_the_last_one_goes() {
        let base = vec![file(1, "a", 10), item("b", Item::HardLink(path("a")))];
        let one = vec![item("a", Item::Whiteout)];
        let other = vec![item("b", Item::Whiteout)];
        let want = [(2, 0, 0, 0), (0, 0, 1, 0), (0, 0, 1, 10)];
        check(vec![base.clone(), one, other], &want);
        let survey = check(vec![base], &[(2, 0, 0, 0)]);
        let biggest: Vec<String> =
            survey.biggest(5).iter().map(|(path, file)| format!("{path} {}", file.size)).collect();
        assert_eq!(biggest, ["/a 10"]);
    }

    #[test]
    fn the_biggest_files_are_those_that_are_seen() {
        let many = (0..300_u64).map(|n| file(1, &format!("f{n:03}"), n % 7)).collect();
        let mut survey = Survey::default();
        survey.push(&LayerListing::new(many));
        survey.push(&LayerListing::new(vec![item("f006", Item::Whiteout), file(2, "z", 99)]));
        let biggest: Vec<String> = survey.biggest(3).iter().map(|(p, _)| p.to_string()).collect();
        assert_eq!(biggest, ["/z", "/f013", "/f020"]);
    }
}
