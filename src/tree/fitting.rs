//! What an unpacked layer lacks so that an overlay mount shows what the listings say.
//!
//! A layer is unpacked alone, but some of it depends on what lies below. A whiteout of something
//! that is not there must not be on the disk: overlayfs shows it as a file wherever only one layer
//! has the directory (Documentation/filesystems/overlayfs.rst, "readdir"). A directory that is
//! there only for a whiteout must not hide a link or a file below, and has the mode, owner and time
//! of the directory below. And overlayfs knows no opaque root.

use std::collections::{BTreeMap, BTreeSet};

use super::{ContentDigest, ContentWriter, Entry, Item, LayerEntries, Meta, Node, Tree, TreePath};

/// The changes that make an unpacked layer fit on what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fitting {
    /// Whiteouts that hide nothing.
    pub whiteouts_removed: Vec<TreePath>,
    /// Directories that no layer has, those inside others first.
    pub directories_removed: Vec<TreePath>,
    /// Whiteouts to be made: the layer hides all that is below.
    pub whiteouts: Vec<TreePath>,
    /// Directories to be made opaque, for the same reason.
    pub opaque: Vec<TreePath>,
    /// The properties of directories that are unpacked with others, or whose time changes.
    pub directories: BTreeMap<TreePath, Meta>,
}

impl Fitting {
    /// Compares what `layer` is when it is unpacked alone with what it has to be on `below`.
    #[must_use]
    pub fn of(layer: &dyn LayerEntries, below: &Tree) -> Self {
        let mut after = below.clone();
        after.apply(layer);
        let mut fitter = Fitter {
            below,
            after: &after,
            open: Vec::new(),
            is_root_opaque: false,
            at_top: BTreeSet::new(),
            fitting: Self::default(),
        };
        layer.stream().for_each(|entry| fitter.entry(&entry));
        fitter.finish()
    }

    /// Returns whether `layer` fits everywhere, as those do that list their directories and remove
    /// nothing.
    #[must_use]
    pub fn is_never_needed(layer: &dyn LayerEntries) -> bool {
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
            is_listed && !matches!(item, Item::Whiteout | Item::Opaque)
        })
    }

    /// Returns whether the layer fits unchanged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a name for the changes: layers changed in the same way are equal.
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
struct Open {
    path: TreePath,
    /// True if nothing of the layers below shows in it.
    is_cut: bool,
}

struct Fitter<'a> {
    below: &'a Tree,
    after: &'a Tree,
    open: Vec<Open>,
    is_root_opaque: bool,
    /// The names that the layer has at its top.
    at_top: BTreeSet<Box<[u8]>>,
    fitting: Fitting,
}

impl Fitter<'_> {
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
        let is_directory = item.is_directory() || *item == Item::Opaque;
        if self.open.is_empty() && !is_directory {
            self.at_top.extend(path.name().map(Into::into));
        }
        match item {
            Item::Node(_, Node::Directory { opaque }) => self.enter(path, *opaque),
            Item::Opaque => {
                self.inherit(path);
                self.enter(path, true);
            }
            Item::Whiteout => self.whiteout(path),
            Item::Node(..) | Item::HardLink(_) => {}
        }
    }

    /// Enters the directories above `path` that the layer does not list.
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
                self.fitting.opaque.push(path.clone());
            }
        }
        let is_cut = is_opaque || is_hidden || self.open.last().is_some_and(|open| open.is_cut);
        self.open.push(Open { path: path.clone(), is_cut });
    }

    /// A directory without properties of its own has those of the merged tree.
    fn inherit(&mut self, path: &TreePath) {
        match self.after.dir(path) {
            Some(dir) if dir.meta == Meta::root(0o755, 0) => {}
            Some(dir) => drop(self.fitting.directories.insert(path.clone(), dir.meta.clone())),
            None => {
                self.fitting.directories_removed.push(path.clone());
                self.touch_parent(path);
            }
        }
    }

    fn whiteout(&mut self, path: &TreePath) {
        let is_cut = self.open.last().is_some_and(|open| open.is_cut);
        if is_cut || self.below.get(path).is_none() {
            self.fitting.whiteouts_removed.push(path.clone());
            self.touch_parent(path);
        }
    }

    /// A change in a directory changes its time.
    fn touch_parent(&mut self, path: &TreePath) {
        let parent = path.parent().unwrap_or_default();
        if !parent.is_root()
            && let Some(dir) = self.after.dir(&parent)
        {
            self.fitting.directories.insert(parent, dir.meta.clone());
        }
    }

    fn finish(mut self) -> Fitting {
        if self.is_root_opaque {
            let names = self.below.root().children.iter().map(|(name, _)| name);
            let hidden = names.filter(|name| !self.at_top.contains(*name));
            self.fitting.whiteouts = hidden.map(|name| TreePath::root().join(name)).collect();
        }
        self.fitting.directories_removed.reverse();
        self.fitting
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
        Entry { path: path(at), item: Item::Node(meta, node) }
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

    fn item(at: &str, item: Item) -> Entry {
        Entry { path: path(at), item }
    }

    fn fitting(below: Vec<Entry>, layer: Vec<Entry>) -> Fitting {
        let mut tree = Tree::default();
        tree.apply(&LayerListing::new(below));
        Fitting::of(&LayerListing::new(layer), &tree)
    }

    fn paths(paths: &[TreePath]) -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_layer_that_lists_its_directories_fits_everywhere() {
        let below = vec![dir("d", 0o700), fifo("d/gone"), link("l")];
        let layer = vec![dir("d", 0o711), item("d/gone", Item::Whiteout), fifo("d/new"), fifo("l")];
        assert!(fitting(below, layer).is_empty());
        let listing = |entries| LayerListing::new(entries);
        let full = vec![dir("d", 0o711), dir("d/e", 0o711), fifo("d/e/f"), fifo("d/x"), fifo("l")];
        assert!(Fitting::is_never_needed(&listing(full)));
        assert!(!Fitting::is_never_needed(&listing(vec![dir("d", 0o711), fifo("d/e/f")])));
        assert!(!Fitting::is_never_needed(&listing(vec![item("d", Item::Whiteout)])));
    }

    #[test]
    fn directories_that_are_not_listed_inherit_from_directories_only() {
        let below = vec![dir("d", 0o700), dir("d/e", 0o711), link("l"), fifo("f")];
        let layer = vec![fifo("d/e/x"), fifo("l/x"), fifo("f/x"), fifo("new/x")];
        let fitting = fitting(below, layer);
        let modes: Vec<(String, u32, i64)> = fitting
            .directories
            .iter()
            .map(|(path, meta)| (path.to_string(), meta.mode, meta.mtime_s))
            .collect();
        assert_eq!(modes, [("/d".to_owned(), 0o700, 7), ("/d/e".to_owned(), 0o711, 7)]);
        let rest = Fitting { directories: BTreeMap::new(), ..fitting };
        assert!(rest.is_empty());
    }

    #[test]
    fn whiteouts_of_nothing_go_with_what_is_there_for_them() {
        let below = vec![dir("d", 0o755), fifo("d/here"), link("l")];
        let layer = vec![
            dir("d", 0o755),
            item("d/here", Item::Whiteout),
            item("d/nothing", Item::Whiteout),
            item("l/x", Item::Whiteout),
            item("new/deep/x", Item::Whiteout),
        ];
        let fitting = fitting(below, layer);
        assert_eq!(paths(&fitting.whiteouts_removed), ["/d/nothing", "/l/x", "/new/deep/x"]);
        assert_eq!(paths(&fitting.directories_removed), ["/new/deep", "/new", "/l"]);
        let touched: Vec<String> = fitting.directories.keys().map(ToString::to_string).collect();
        assert_eq!(touched, ["/d"]);
    }

    #[test]
    fn whiteouts_in_an_opaque_directory_hide_nothing() {
        let below = vec![dir("d", 0o700), fifo("d/here")];
        let layer = vec![item("d", Item::Opaque), item("d/here", Item::Whiteout), fifo("d/x")];
        let fitting = fitting(below, layer);
        assert_eq!(paths(&fitting.whiteouts_removed), ["/d/here"]);
        assert_eq!(fitting.directories.get(&path("d")).map(|meta| meta.mode), Some(0o700));
    }

    #[test]
    fn an_opaque_root_hides_each_name_below() {
        let directories = ["a", "b", "e"].map(|at| dir(at, 0o755)).into_iter();
        let below = directories.chain(["a/x", "c", "d", "f"].map(fifo)).collect();
        let layer = vec![
            item("", Item::Opaque),
            dir("a", 0o755),
            fifo("a/y"),
            fifo("c"),
            item("d", Item::Whiteout),
            item("e/x", Item::Whiteout),
            item("f", Item::Opaque),
        ];
        let fitting = fitting(below, layer);
        assert_eq!(paths(&fitting.opaque), ["/a"]);
        assert_eq!(paths(&fitting.whiteouts), ["/b", "/e", "/f"]);
        assert_eq!(paths(&fitting.whiteouts_removed), ["/e/x"]);
        assert_eq!(paths(&fitting.directories_removed), ["/f", "/e"]);
    }
}
