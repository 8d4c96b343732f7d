//! Comparison of two images: config members, layers, and the files of the merged trees.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::images::config_text::{ConfigMember, members, one_line};
use crate::cli::images::image_view::ImageView;
use crate::oci::DiffId;
use crate::tree::{
    ChangeKind, LayerEntries as _, LayerItem, Meta, Node, PathPair, TreeNode, TreePath, pairs,
};

/// The differences between two images.
#[derive(Debug)]
pub(super) struct ImageDiff<'a> {
    pub(super) old: &'a ImageView,
    pub(super) new: &'a ImageView,
    pub(super) config: Vec<MemberChange>,
    /// Number of equal layers, counted from the base.
    pub(super) n_shared: usize,
    /// Changed paths by the layer that changed them, sorted by path.
    pub(super) files: BTreeMap<ChangeOrigin, Vec<PathChange>>,
}

/// A member of the config that differs, with the values that only one image has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MemberChange {
    pub(super) name: String,
    pub(super) removed: Vec<String>,
    pub(super) added: Vec<String>,
}

/// The layer, counted from 1, that a change is attributed to: the layer of the new image that writes
/// or removes the path, or else the layer of the old image that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ChangeOrigin {
    Old(usize),
    New(usize),
}

/// A path that differs, with its state in both images.
#[derive(Debug)]
pub(super) struct PathChange {
    pub(super) path: TreePath,
    pub(super) ways: Vec<ChangeKind>,
    pub(super) old: Option<PathState>,
    pub(super) new: Option<PathState>,
}

/// The file, directory or link that one image has at a path.
#[derive(Debug, Clone)]
pub(super) struct PathState {
    pub(super) kind: &'static str,
    /// Size of a regular file.
    pub(super) n_bytes: Option<u64>,
    pub(super) meta: Meta,
    /// Target of a symbolic link.
    pub(super) target: Option<String>,
}

/// Numbers of added, changed and removed paths, and total size of these files in both images.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChangeCounts {
    pub(super) n_added: usize,
    pub(super) n_changed: usize,
    pub(super) n_removed: usize,
    pub(super) old_bytes: u64,
    pub(super) new_bytes: u64,
}

impl<'a> ImageDiff<'a> {
    /// Compares two images whose layers are all in the store.
    pub(super) fn of(old: &'a ImageView, new: &'a ImageView) -> Self {
        let ids = |view: &'a ImageView| view.layers.iter().map(|layer| layer.diff_id);
        let n_shared = ids(old).zip(ids(new)).take_while(|(old, new)| old == new).count();
        let mut changes = Vec::new();
        pairs(old.survey.tree(), new.survey.tree(), &mut |pair| changes.extend(change(pair)));
        let files = by_origin(changes, old, new, n_shared);
        Self { old, new, config: config(old, new), n_shared, files }
    }

    /// Returns whether config and files are equal. Times and history do not count.
    pub(super) fn is_empty(&self) -> bool {
        self.config.is_empty() && self.files.is_empty()
    }

    pub(super) fn counts(&self) -> ChangeCounts {
        self.files.values().flatten().fold(ChangeCounts::default(), ChangeCounts::with)
    }

    /// Returns the layers that both images have, at any position.
    pub(super) fn shared_layers(&self) -> BTreeSet<DiffId> {
        let ids = |view: &ImageView| -> BTreeSet<DiffId> {
            view.layers.iter().map(|layer| layer.diff_id).collect()
        };
        ids(self.old).intersection(&ids(self.new)).copied().collect()
    }
}

impl ChangeCounts {
    fn with(mut self, change: &PathChange) -> Self {
        match (&change.old, &change.new) {
            (None, _) => self.n_added += 1,
            (_, None) => self.n_removed += 1,
            (Some(_), Some(_)) => self.n_changed += 1,
        }
        let bytes =
            |side: &Option<PathState>| side.as_ref().and_then(|side| side.n_bytes).unwrap_or(0);
        self.old_bytes += bytes(&change.old);
        self.new_bytes += bytes(&change.new);
        self
    }
}

fn config(old: &ImageView, new: &ImageView) -> Vec<MemberChange> {
    let members = |view: &ImageView| -> Vec<ConfigMember> {
        let platform = one_line(&view.image.platform().to_string());
        let mut all = vec![ConfigMember { name: "Platform".to_owned(), values: vec![platform] }];
        all.extend(members(view.image.config()));
        all
    };
    let (old, new) = (members(old), members(new));
    let names = old.iter().chain(&new).map(|member| &member.name);
    let mut seen = BTreeSet::new();
    let names: Vec<&String> = names.filter(|name| seen.insert(*name)).collect();
    let values = |all: &[ConfigMember], name: &str| -> Vec<String> {
        all.iter().find(|member| member.name == name).map_or(Vec::new(), |m| m.values.clone())
    };
    names
        .into_iter()
        .filter_map(|name| member(name, values(&old, name), values(&new, name)))
        .collect()
}

fn member(name: &str, old: Vec<String>, new: Vec<String>) -> Option<MemberChange> {
    if old == new {
        return None;
    }
    let without = |all: &[String], others: &[String]| -> Vec<String> {
        all.iter().filter(|value| !others.contains(value)).cloned().collect()
    };
    let (mut removed, mut added) = (without(&old, &new), without(&new, &old));
    if removed.is_empty() && added.is_empty() {
        // The values are equal, but their order differs.
        (removed, added) = (old, new);
    }
    Some(MemberChange { name: name.to_owned(), removed, added })
}

fn change(pair: PathPair<'_>) -> Option<PathChange> {
    let ways = pair.differences();
    let (old, new) = (pair.old.map(PathState::of), pair.new.map(PathState::of));
    (!ways.is_empty()).then_some(PathChange { path: pair.path, ways, old, new })
}

impl PathState {
    fn of(node: &TreeNode) -> Self {
        let (kind, n_bytes) = match node {
            TreeNode::Dir(_) => ("directory", None),
            TreeNode::Leaf(leaf) => match leaf.node() {
                Node::File(file) => ("file", Some(file.size)),
                Node::Directory { .. } => ("directory", None),
                Node::Symlink(_) => ("symbolic link", None),
                Node::CharDevice(_) => ("character device", None),
                Node::BlockDevice(_) => ("block device", None),
                Node::Fifo => ("named pipe", None),
            },
        };
        let target = node.as_symlink().map(|target| String::from_utf8_lossy(target).into_owned());
        Self { kind, n_bytes, meta: node.meta().clone(), target }
    }
}

/// Groups the changes by the layer that each is attributed to.
fn by_origin(
    changes: Vec<PathChange>,
    old: &ImageView,
    new: &ImageView,
    n_shared: usize,
) -> BTreeMap<ChangeOrigin, Vec<PathChange>> {
    let (old_index, new_index) = (PathIndex::of(old, n_shared), PathIndex::of(new, n_shared));
    let mut files: BTreeMap<ChangeOrigin, Vec<PathChange>> = BTreeMap::new();
    for change in changes {
        let path = &change.path;
        let by_new = || new_index.written_or_removed(path).map(ChangeOrigin::New);
        let by_old = || old_index.written_or_removed(path).map(ChangeOrigin::Old);
        let origin = match change.new {
            Some(_) => by_new().or_else(by_old),
            None => new_index.removed(path).map(ChangeOrigin::New).or_else(by_old),
        };
        // No layer has an entry for a parent directory that is only implied by its files.
        let origin = origin.unwrap_or(ChangeOrigin::New(new.layers.len()));
        files.entry(origin).or_default().push(change);
    }
    files
}

/// For each path, the number of the topmost layer above the shared ones that writes or removes it.
#[derive(Default)]
struct PathIndex {
    written: BTreeMap<TreePath, usize>,
    removed: BTreeMap<TreePath, usize>,
}

impl PathIndex {
    fn of(view: &ImageView, n_shared: usize) -> Self {
        let mut index = Self::default();
        for (number, layer) in (1..).zip(&view.layers).skip(n_shared) {
            let Some(files) = &layer.files else { continue };
            for entry in files.listing.stream() {
                let path = entry.path.clone();
                match &entry.item {
                    LayerItem::Whiteout | LayerItem::Opaque => {
                        index.removed.insert(path, number);
                    }
                    LayerItem::Node(_, Node::Directory { opaque: true }) => {
                        index.removed.insert(path.clone(), number);
                        index.written.insert(path, number);
                    }
                    LayerItem::Node(..) | LayerItem::HardLink(_) => {
                        index.written.insert(path, number);
                    }
                }
            }
        }
        index
    }

    fn written_or_removed(&self, path: &TreePath) -> Option<usize> {
        self.written.get(path).copied().or_else(|| self.removed(path))
    }

    /// Returns the layer that removed the path or one of its parent directories.
    fn removed(&self, path: &TreePath) -> Option<usize> {
        let mut at = Some(path.clone());
        while let Some(path) = at {
            // Removing or replacing a directory removes its content (image-spec, layer.md, Whiteouts).
            if let Some(number) = self.removed.get(&path) {
                return Some(*number);
            }
            at = path.parent();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_differ_by_value() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let check = |old: &[&str], new: &[&str], want: Option<(&[&str], &[&str])>| {
            let want = want.map(|(removed, added)| MemberChange {
                name: "Env".to_owned(),
                removed: texts(removed),
                added: texts(added),
            });
            assert_eq!(member("Env", texts(old), texts(new)), want);
        };
        check(&["A=1"], &["A=1"], None);
        check(&["A=1", "B=1"], &["A=2", "B=1"], Some((&["A=1"], &["A=2"])));
        check(&["A", "B"], &["B", "A"], Some((&["A", "B"], &["B", "A"])));
        check(&[], &["A"], Some((&[], &["A"])));
    }
}
