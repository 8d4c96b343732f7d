//! The changes that an unpacked layer needs so that an overlay mount matches the merged listings.
//!
//! A layer is unpacked on its own, but parts of it depend on the layers below. A whiteout of a
//! missing file must not be on the disk: overlayfs shows it as a file where only one layer has the
//! directory (<https://docs.kernel.org/filesystems/overlayfs.html>, "readdir"). A directory that
//! exists only for a whiteout must not hide a link or a file below, and needs the mode, owner and
//! time of the directory below. And overlayfs supports no opaque root.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ContentDigest, ContentWriter, Entry, LayerEntries, LayerItem, Meta, Node, Tree, TreePath,
};

/// The changes that make an unpacked layer correct on top of the layers below.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OverlayAdjustments {
    /// Whiteouts to remove: they hide nothing.
    pub whiteouts_removed: Vec<TreePath>,
    /// Directories to remove, inner ones first: no layer contains them.
    pub directories_removed: Vec<TreePath>,
    /// Whiteouts to create: the layer's opaque root hides everything below.
    pub whiteouts: Vec<TreePath>,
    /// Directories to make opaque, for the same reason.
    pub opaque: Vec<TreePath>,
    /// Directories whose properties differ from the unpacked ones, or whose time a change above
    /// alters.
    pub directories: BTreeMap<TreePath, Meta>,
}

impl OverlayAdjustments {
    /// Compares `layer` as it is when unpacked alone with what it must be on top of `below`.
    #[must_use]
    pub fn of(layer: &dyn LayerEntries, below: &Tree) -> Self {
        let mut after = below.clone();
        after.apply(layer);
        let mut scan = AdjustmentScan {
            below,
            after: &after,
            open: Vec::new(),
            is_root_opaque: false,
            at_top: BTreeSet::new(),
            adjustments: Self::default(),
        };
        layer.stream().for_each(|entry| scan.entry(&entry));
        scan.finish()
    }

    /// Returns whether `layer` needs no changes on any base: it lists all its directories and
    /// removes nothing.
    #[must_use]
    pub fn are_never_needed(layer: &dyn LayerEntries) -> bool {
        let mut open: Vec<TreePath> = Vec::new();
        layer.stream().all(|entry| {
            let Entry { path, item } = &*entry;
            while open.last().is_some_and(|open| path.below(open).is_none()) {
                open.pop();
            }
            let parent = path.parent().unwrap_or_default();
            let is_listed = open.last().map_or(parent.is_root(), |open| *open == parent);
            if item.is_directory() {
                open.push(path.clone());
            }
            is_listed && !matches!(item, LayerItem::Whiteout | LayerItem::Opaque)
        })
    }

    /// Returns whether the layer needs no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a digest of the changes, which names the changed layer.
    #[must_use]
    pub fn digest(&self) -> ContentDigest {
        let mut writer = ContentWriter::new("rbuild/layer-fitting/v1");
        for paths in
            [&self.whiteouts_removed, &self.directories_removed, &self.whiteouts, &self.opaque]
        {
            writer.number(u64::try_from(paths.len()).unwrap_or(u64::MAX));
            paths.iter().for_each(|path| writer.field(path.as_bytes()));
        }
        for (path, meta) in &self.directories {
            writer.field(path.as_bytes());
            writer.meta(meta);
            writer.number(meta.mtime_s.cast_unsigned());
        }
        writer.finish()
    }
}

/// A directory of the layer that the next entries may be in.
struct OpenDirectory {
    path: TreePath,
    /// True if no file of the layers below is visible in it.
    is_cut: bool,
}

struct AdjustmentScan<'a> {
    below: &'a Tree,
    after: &'a Tree,
    open: Vec<OpenDirectory>,
    is_root_opaque: bool,
    /// The names in the layer's root directory.
    at_top: BTreeSet<Box<[u8]>>,
    adjustments: OverlayAdjustments,
}

impl AdjustmentScan<'_> {
    fn entry(&mut self, entry: &Entry) {
        let Entry { path, item } = entry;
        if path.is_root() {
            self.is_root_opaque = true;
            return;
        }
        while self.open.last().is_some_and(|open| path.below(&open.path).is_none()) {
            self.open.pop();
        }
        self.open_parents(path);
        let is_directory = item.is_directory() || *item == LayerItem::Opaque;
        if self.open.is_empty() && !is_directory {
            self.at_top.extend(path.name().map(Into::into));
        }
        match item {
            LayerItem::Node(_, Node::Directory { opaque }) => self.enter(path, *opaque),
            LayerItem::Opaque => {
                self.inherit(path);
                self.enter(path, true);
            }
            LayerItem::Whiteout => self.whiteout(path),
            LayerItem::Node(..) | LayerItem::HardLink(_) => {}
        }
    }

    /// Enters the parent directories of `path` that the layer does not list.
    fn open_parents(&mut self, path: &TreePath) {
        let mut at = self.open.last().map_or_else(TreePath::root, |open| open.path.clone());
        let parent = path.parent().unwrap_or_default();
        let rest = parent.below(&at).unwrap_or_default();
        for name in rest.names() {
            at = at.join(name);
            self.inherit(&at);
            self.enter(&at, false);
        }
    }

    fn enter(&mut self, path: &TreePath, is_opaque: bool) {
        let is_top = self.open.is_empty();
        let is_hidden = is_top && self.is_root_opaque;
        if is_top && self.after.dir(path).is_some() {
            self.at_top.extend(path.name().map(Into::into));
            if is_hidden && !is_opaque && self.below.dir(path).is_some() {
                self.adjustments.opaque.push(path.clone());
            }
        }
        let is_cut = is_opaque || is_hidden || self.open.last().is_some_and(|open| open.is_cut);
        self.open.push(OpenDirectory { path: path.clone(), is_cut });
    }

    /// Gives a directory without an entry the properties that it has in the merged tree.
    fn inherit(&mut self, path: &TreePath) {
        match self.after.dir(path) {
            Some(dir) if dir.meta == Meta::root(0o755, 0) => {}
            Some(dir) => drop(self.adjustments.directories.insert(path.clone(), dir.meta.clone())),
            None => {
                self.adjustments.directories_removed.push(path.clone());
                self.touch_parent(path);
            }
        }
    }

    fn whiteout(&mut self, path: &TreePath) {
        let is_cut = self.open.last().is_some_and(|open| open.is_cut);
        if is_cut || self.below.get(path).is_none() {
            self.adjustments.whiteouts_removed.push(path.clone());
            self.touch_parent(path);
        }
    }

    /// Restores the time of the parent directory, which a change in it alters.
    fn touch_parent(&mut self, path: &TreePath) {
        let parent = path.parent().unwrap_or_default();
        if !parent.is_root()
            && let Some(dir) = self.after.dir(&parent)
        {
            self.adjustments.directories.insert(parent, dir.meta.clone());
        }
    }

    fn finish(mut self) -> OverlayAdjustments {
        if self.is_root_opaque {
            let names = self.below.root().children.iter().map(|(name, _)| name);
            let hidden = names.filter(|name| !self.at_top.contains(*name));
            self.adjustments.whiteouts = hidden.map(|name| TreePath::root().join(name)).collect();
        }
        self.adjustments.directories_removed.reverse();
        self.adjustments
    }
}

#[cfg(test)]
mod tests {
    use super::super::LayerListing;
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::clean(text.as_bytes())
    }

    fn node(at: &str, meta: Meta, node: Node) -> Entry {
        Entry { path: path(at), item: LayerItem::Node(meta, node) }
    }

    fn dir(at: &str, mode: u32) -> Entry {
        node(at, Meta::root(mode, 7), Node::Directory { opaque: false })
    }

    fn fifo(at: &str) -> Entry {
        node(at, Meta::root(0o644, 0), Node::Fifo)
    }

    fn link(at: &str) -> Entry {
        node(at, Meta::root(0o777, 0), Node::Symlink(b"elsewhere".as_slice().into()))
    }

    fn item(at: &str, item: LayerItem) -> Entry {
        Entry { path: path(at), item }
    }

    fn adjustments(below: Vec<Entry>, layer: Vec<Entry>) -> OverlayAdjustments {
        let mut tree = Tree::default();
        tree.apply(&LayerListing::new(below));
        OverlayAdjustments::of(&LayerListing::new(layer), &tree)
    }

    fn paths(paths: &[TreePath]) -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn layer_that_lists_its_directories_needs_no_changes() {
        let below = vec![dir("d", 0o700), fifo("d/gone"), link("l")];
        let layer =
            vec![dir("d", 0o711), item("d/gone", LayerItem::Whiteout), fifo("d/new"), fifo("l")];
        assert!(adjustments(below, layer).is_empty());
        let listing = |entries| LayerListing::new(entries);
        let full = vec![dir("d", 0o711), dir("d/e", 0o711), fifo("d/e/f"), fifo("d/x"), fifo("l")];
        assert!(OverlayAdjustments::are_never_needed(&listing(full)));
        assert!(!OverlayAdjustments::are_never_needed(&listing(vec![
            dir("d", 0o711),
            fifo("d/e/f")
        ])));
        assert!(!OverlayAdjustments::are_never_needed(&listing(vec![item(
            "d",
            LayerItem::Whiteout
        )])));
    }

    #[test]
    fn unlisted_directories_inherit_from_directories_only() {
        let below = vec![dir("d", 0o700), dir("d/e", 0o711), link("l"), fifo("f")];
        let layer = vec![fifo("d/e/x"), fifo("l/x"), fifo("f/x"), fifo("new/x")];
        let adjustments = adjustments(below, layer);
        let modes: Vec<(String, u32, i64)> = adjustments
            .directories
            .iter()
            .map(|(path, meta)| (path.to_string(), meta.mode, meta.mtime_s))
            .collect();
        assert_eq!(modes, [("/d".to_owned(), 0o700, 7), ("/d/e".to_owned(), 0o711, 7)]);
        let rest = OverlayAdjustments { directories: BTreeMap::new(), ..adjustments };
        assert!(rest.is_empty());
    }

    #[test]
    fn whiteouts_of_missing_files_are_removed_with_their_directories() {
        let below = vec![dir("d", 0o755), fifo("d/here"), link("l")];
        let layer = vec![
            dir("d", 0o755),
            item("d/here", LayerItem::Whiteout),
            item("d/nothing", LayerItem::Whiteout),
            item("l/x", LayerItem::Whiteout),
            item("new/deep/x", LayerItem::Whiteout),
        ];
        let adjustments = adjustments(below, layer);
        assert_eq!(paths(&adjustments.whiteouts_removed), ["/d/nothing", "/l/x", "/new/deep/x"]);
        assert_eq!(paths(&adjustments.directories_removed), ["/new/deep", "/new", "/l"]);
        let touched: Vec<String> =
            adjustments.directories.keys().map(ToString::to_string).collect();
        assert_eq!(touched, ["/d"]);
    }

    #[test]
    fn whiteouts_in_an_opaque_directory_are_removed() {
        let below = vec![dir("d", 0o700), fifo("d/here")];
        let layer =
            vec![item("d", LayerItem::Opaque), item("d/here", LayerItem::Whiteout), fifo("d/x")];
        let adjustments = adjustments(below, layer);
        assert_eq!(paths(&adjustments.whiteouts_removed), ["/d/here"]);
        assert_eq!(adjustments.directories.get(&path("d")).map(|meta| meta.mode), Some(0o700));
    }

    #[test]
    fn opaque_root_hides_each_name_below() {
        let directories = ["a", "b", "e"].map(|at| dir(at, 0o755)).into_iter();
        let below = directories.chain(["a/x", "c", "d", "f"].map(fifo)).collect();
        let layer = vec![
            item("", LayerItem::Opaque),
            dir("a", 0o755),
            fifo("a/y"),
            fifo("c"),
            item("d", LayerItem::Whiteout),
            item("e/x", LayerItem::Whiteout),
            item("f", LayerItem::Opaque),
        ];
        let adjustments = adjustments(below, layer);
        assert_eq!(paths(&adjustments.opaque), ["/a"]);
        assert_eq!(paths(&adjustments.whiteouts), ["/b", "/e", "/f"]);
        assert_eq!(paths(&adjustments.whiteouts_removed), ["/e/x"]);
        assert_eq!(paths(&adjustments.directories_removed), ["/f", "/e"]);
    }
}
