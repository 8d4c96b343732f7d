//! Two images side by side, as values.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::images::config_text::{Member, members, one_line};
use crate::cli::images::image_view::ImageView;
use crate::oci::DiffId;
use crate::tree::{
    ChangeKind, Item, LayerEntries as _, Meta, Node, PathPair, TreeNode, TreePath, pairs,
};

/// What is different.
#[derive(Debug)]
pub(super) struct Difference<'a> {
    pub(super) old: &'a ImageView,
    pub(super) new: &'a ImageView,
    pub(super) config: Vec<MemberChange>,
    /// How many layers, from the base up, are the same.
    pub(super) n_shared: usize,
    /// Files by the layer that they are from, in the order of paths.
    pub(super) files: BTreeMap<Origin, Vec<FileChange>>,
}

/// A member of the config that is not the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MemberChange {
    pub(super) name: String,
    pub(super) removed: Vec<String>,
    pub(super) added: Vec<String>,
}

/// Where a change is from: the layer, from 1, that has the new file or took the old one away; that
/// of the old image which had a file that the new one never has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Old(usize),
    New(usize),
}

/// A path that is not the same.
#[derive(Debug)]
pub(super) struct FileChange {
    pub(super) path: TreePath,
    pub(super) ways: Vec<ChangeKind>,
    pub(super) old: Option<Side>,
    pub(super) new: Option<Side>,
}

/// What one image has at a path.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) kind: &'static str,
    /// Bytes, of a regular file.
    pub(super) n_bytes: Option<u64>,
    pub(super) meta: Meta,
    /// Where it points to, if it is a symbolic link.
    pub(super) target: Option<String>,
}

/// Added, changed and removed paths, and bytes of files before and after.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) n_added: usize,
    pub(super) n_changed: usize,
    pub(super) n_removed: usize,
    pub(super) old_bytes: u64,
    pub(super) new_bytes: u64,
}

impl<'a> Difference<'a> {
    pub(super) fn of(old: &'a ImageView, new: &'a ImageView) -> Self {
        let ids = |view: &'a ImageView| view.layers.iter().map(|layer| layer.diff_id);
        let n_shared = ids(old).zip(ids(new)).take_while(|(old, new)| old == new).count();
        let mut changes = Vec::new();
        pairs(old.survey.tree(), new.survey.tree(), &mut |pair| changes.extend(change(pair)));
        let files = by_origin(changes, old, new, n_shared);
        Self { old, new, config: config(old, new), n_shared, files }
    }

    /// Whether there is no difference that is shown. Times are none, nor is the history.
    pub(super) fn is_none(&self) -> bool {
        self.config.is_empty() && self.files.is_empty()
    }

    pub(super) fn counts(&self) -> Counts {
        self.files.values().flatten().fold(Counts::default(), Counts::with)
    }

    /// Layers of the one that the other has, too, wherever they are.
    pub(super) fn shared_layers(&self) -> BTreeSet<DiffId> {
        let ids = |view: &ImageView| -> BTreeSet<DiffId> {
            view.layers.iter().map(|layer| layer.diff_id).collect()
        };
        ids(self.old).intersection(&ids(self.new)).copied().collect()
    }
}

impl Counts {
    fn with(mut self, change: &FileChange) -> Self {
        match (&change.old, &change.new) {
            (None, _) => self.n_added += 1,
            (_, None) => self.n_removed += 1,
            (Some(_), Some(_)) => self.n_changed += 1,
        }
        let bytes = |side: &Option<Side>| side.as_ref().and_then(|side| side.n_bytes).unwrap_or(0);
        self.old_bytes += bytes(&change.old);
        self.new_bytes += bytes(&change.new);
        self
    }
}

fn config(old: &ImageView, new: &ImageView) -> Vec<MemberChange> {
    let members = |view: &ImageView| -> Vec<Member> {
        let platform = one_line(&view.image.platform().to_string());
        let mut all = vec![Member { name: "Platform".to_owned(), values: vec![platform] }];
        all.extend(members(view.image.config()));
        all
    };
    let (old, new) = (members(old), members(new));
    let names = old.iter().chain(&new).map(|member| &member.name);
    let mut seen = BTreeSet::new();
    let names: Vec<&String> = names.filter(|name| seen.insert(*name)).collect();
    let values = |all: &[Member], name: &str| -> Vec<String> {
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
        // The same in another order.
        (removed, added) = (old, new);
    }
    Some(MemberChange { name: name.to_owned(), removed, added })
}

fn change(pair: PathPair<'_>) -> Option<FileChange> {
    let ways = pair.differences();
    let (old, new) = (pair.old.map(Side::of), pair.new.map(Side::of));
    (!ways.is_empty()).then_some(FileChange { path: pair.path, ways, old, new })
}

impl Side {
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

/// Finds out which layer each change is from.
fn by_origin(
    changes: Vec<FileChange>,
    old: &ImageView,
    new: &ImageView,
    n_shared: usize,
) -> BTreeMap<Origin, Vec<FileChange>> {
    let (had, has) = (Named::of(old, n_shared), Named::of(new, n_shared));
    let mut files: BTreeMap<Origin, Vec<FileChange>> = BTreeMap::new();
    for change in changes {
        let path = &change.path;
        let by_new = || has.files.get(path).or(has.gone_at(path)).copied().map(Origin::New);
        let by_old = || had.files.get(path).or(had.gone_at(path)).copied().map(Origin::Old);
        let origin = match change.new {
            Some(_) => by_new().or_else(by_old),
            None => has.gone_at(path).copied().map(Origin::New).or_else(by_old),
        };
        // What neither says a word of differs because of a directory that one of them only implies.
        let origin = origin.unwrap_or(Origin::New(new.layers.len()));
        files.entry(origin).or_default().push(change);
    }
    files
}

/// The layers above the shared ones that name a path last.
#[derive(Default)]
struct Named {
    files: BTreeMap<TreePath, usize>,
    gone: BTreeMap<TreePath, usize>,
}

impl Named {
    fn of(view: &ImageView, n_shared: usize) -> Self {
        let mut named = Self::default();
        for (number, layer) in (1..).zip(&view.layers).skip(n_shared) {
            let Some(files) = &layer.files else { continue };
            for entry in files.listing.stream() {
                let path = entry.path.clone();
                match &entry.item {
                    Item::Whiteout | Item::Opaque => drop(named.gone.insert(path, number)),
                    Item::Node(_, Node::Directory { opaque: true }) => {
                        named.gone.insert(path.clone(), number);
                        named.files.insert(path, number);
                    }
                    Item::Node(..) | Item::HardLink(_) => drop(named.files.insert(path, number)),
                }
            }
        }
        named
    }

    /// The layer that took the path away, or a directory that it is in.
    fn gone_at(&self, path: &TreePath) -> Option<&usize> {
        let mut at = Some(path.clone());
        while let Some(path) = at {
            // Something else in its place takes away what was in a directory.
            if let Some(number) = self.gone.get(&path) {
                return Some(number);
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
