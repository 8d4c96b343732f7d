//! Layers on top of each other: the file tree that a container sees.

use std::sync::Arc;

use crate::limits::MAX_LINKS_FOLLOWED;

use super::{Children, ChildrenIter, File, Item, LayerEntries, Meta, Node, TreePath};

/// A merged file tree. Cloning is cheap: unchanged directories are shared.
#[derive(Debug, Clone)]
pub struct Tree {
    root: Arc<Dir>,
}

/// A directory of a merged tree.
#[derive(Debug, Clone, Default)]
pub struct Dir {
    /// Its own properties.
    pub meta: Meta,
    /// What it holds, by name.
    pub children: Children,
}

/// A file of a merged tree.
#[derive(Debug, Clone)]
pub enum TreeNode {
    /// A directory.
    Dir(Arc<Dir>),
    /// Anything else.
    Leaf(Leaf),
}

/// A file that is not a directory.
#[derive(Debug, Clone)]
pub enum Leaf {
    /// With one name, as nearly all have: it stands in its directory, in one piece with the others.
    Own(Meta, Node),
    /// With several names, its hard links; all of them share it.
    Linked(Arc<(Meta, Node)>),
}

// A million of them are kept while a context is copied.
const _: () = assert!(size_of::<TreeNode>() <= 96);

impl Leaf {
    /// A file with one name.
    #[must_use]
    pub const fn new(meta: Meta, node: Node) -> Self {
        Self::Own(meta, node)
    }

    /// Mode, owners, time, extended attributes.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Own(meta, _) => meta,
            Self::Linked(file) => &file.0,
        }
    }

    /// The kind of file.
    #[must_use]
    pub fn node(&self) -> &Node {
        match self {
            Self::Own(_, node) => node,
            Self::Linked(file) => &file.1,
        }
    }

    /// What the names of one file have in common, and nothing else in any tree that is alive;
    /// `None` for a file with one name.
    #[must_use]
    pub fn identity(&self) -> Option<usize> {
        match self {
            Self::Own(..) => None,
            Self::Linked(file) => Some(Arc::as_ptr(file).addr()),
        }
    }

    /// The file for a further name.
    #[must_use]
    pub fn link(&mut self) -> Self {
        if let Self::Own(meta, node) = self {
            let (meta, node) = (std::mem::take(meta), std::mem::replace(node, Node::Fifo));
            *self = Self::Linked(Arc::new((meta, node)));
        }
        self.clone()
    }
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Something on the way is neither a directory nor a link to one.
    #[error("{0} is not a directory")]
    NotADirectory(TreePath),
    /// More than 40 links on the way.
    #[error("{0} leads through too many symbolic links")]
    TooManyLinks(TreePath),
}

impl TreeNode {
    /// Mode, owners, time, extended attributes.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Dir(dir) => &dir.meta,
            Self::Leaf(leaf) => leaf.meta(),
        }
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn as_dir(&self) -> Option<&Dir> {
        match self {
            Self::Dir(dir) => Some(dir),
            Self::Leaf(_) => None,
        }
    }

    /// The target, if it is a symbolic link.
    #[must_use]
    pub fn as_symlink(&self) -> Option<&[u8]> {
        match self {
            Self::Leaf(leaf) => match leaf.node() {
                Node::Symlink(target) => Some(target),
                Node::Directory { .. }
                | Node::File(_)
                | Node::CharDevice(_)
                | Node::BlockDevice(_)
                | Node::Fifo => None,
            },
            Self::Dir(_) => None,
        }
    }
}

impl Dir {
    /// One that nothing says anything of.
    fn fresh() -> Self {
        Self { meta: Meta::root(0o755, 0), children: Children::new() }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: Arc::new(Dir::fresh()) }
    }
}

impl Tree {
    /// A tree whose root is `root`.
    #[must_use]
    pub const fn new(root: Arc<Dir>) -> Self {
        Self { root }
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> &Arc<Dir> {
        &self.root
    }

    /// Puts `layer` on top, honouring whiteouts (image-spec, layer.md, "Whiteouts"). Directories
    /// above its entries that the layer does not list stay unchanged; where there is none,
    /// or another file, they are root's, mode 0755.
    pub fn apply(&mut self, layer: &dyn LayerEntries) {
        for entry in layer.stream() {
            match &entry.item {
                Item::Whiteout => self.remove(&entry.path),
                Item::Opaque => self.empty(&entry.path),
                Item::HardLink(target) => {
                    if let Some(leaf) = self.link(target) {
                        self.insert(&entry.path, TreeNode::Leaf(leaf));
                    }
                }
                Item::Node(meta, Node::Directory { opaque }) => {
                    self.apply_directory(&entry.path, meta, *opaque);
                }
                Item::Node(meta, node) => {
                    let leaf = Leaf::new(meta.clone(), node.clone());
                    self.insert(&entry.path, TreeNode::Leaf(leaf));
                }
            }
        }
    }

    fn apply_directory(&mut self, path: &TreePath, meta: &Meta, opaque: bool) {
        let children = match self.get(path) {
            Some(TreeNode::Dir(dir)) if !opaque => dir.children.clone(),
            _ => Children::new(),
        };
        let dir = Dir { meta: meta.clone(), children };
        self.insert(path, TreeNode::Dir(Arc::new(dir)));
    }

    /// The file at `path`, for a further name; `None` when there is none, or a directory.
    pub fn link(&mut self, path: &TreePath) -> Option<Leaf> {
        if !matches!(self.get(path)?, TreeNode::Leaf(_)) {
            return None;
        }
        match self.dir_mut(&path.parent()?).children.get_mut(path.name()?)? {
            TreeNode::Leaf(leaf) => Some(leaf.link()),
            TreeNode::Dir(_) => None,
        }
    }

    /// Puts `node` at `path`, in place of what was there.
    pub fn insert(&mut self, path: &TreePath, node: TreeNode) {
        let Some(name) = path.name() else {
            if let TreeNode::Dir(dir) = node {
                self.root = dir;
            }
            return;
        };
        let parent = self.dir_mut(&path.parent().unwrap_or_default());
        parent.children.insert(name, node);
    }

    /// The directory at `path` for change; made, also in place of another file, when it is missing.
    fn dir_mut(&mut self, path: &TreePath) -> &mut Dir {
        let mut dir = Arc::make_mut(&mut self.root);
        for name in path.names() {
            if dir.children.get(name).and_then(TreeNode::as_dir).is_none() {
                dir.children.insert(name, TreeNode::Dir(Arc::new(Dir::fresh())));
            }
            let child = dir.children.get_mut(name);
            let Some(TreeNode::Dir(next)) = child else { unreachable!("it was just made") };
            dir = Arc::make_mut(next);
        }
        dir
    }

    /// Removes `path` and all below it; that nothing is there is fine.
    pub fn remove(&mut self, path: &TreePath) {
        let (Some(name), Some(parent)) = (path.name(), path.parent()) else { return };
        if self.get(path).is_some() {
            self.dir_mut(&parent).children.remove(name);
        }
    }

    /// Removes all that the directory at `path` holds; that none is there is fine.
    fn empty(&mut self, path: &TreePath) {
        if self.dir(path).is_some() {
            self.dir_mut(path).children = Children::new();
        }
    }

    /// The file at exactly `path`: no link is followed. `None` for the root's own node; see
    /// [`Tree::root`].
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&TreeNode> {
        let mut dir: &Dir = &self.root;
        let mut names = path.names().peekable();
        while let Some(name) = names.next() {
            let child = dir.children.get(name)?;
            if names.peek().is_none() {
                return Some(child);
            }
            dir = child.as_dir()?;
        }
        None
    }

    /// The regular file at exactly `path`.
    #[must_use]
    pub fn file(&self, path: &TreePath) -> Option<&File> {
        match self.get(path)? {
            TreeNode::Leaf(leaf) => match leaf.node() {
                Node::File(file) => Some(file),
                Node::Directory { .. }
                | Node::Symlink(_)
                | Node::CharDevice(_)
                | Node::BlockDevice(_)
                | Node::Fifo => None,
            },
            TreeNode::Dir(_) => None,
        }
    }

    /// The directory at exactly `path`, the root included.
    #[must_use]
    pub fn dir(&self, path: &TreePath) -> Option<&Dir> {
        if path.is_root() { Some(&self.root) } else { self.get(path)?.as_dir() }
    }

    /// Follows every symbolic link on `path`, the last name included, without ever leaving the
    /// root, and gives the path that is meant. Names that do not exist are kept as they are, so
    /// the result may be a path to be created.
    ///
    /// # Errors
    /// [`LookupError`] when something on the way is not a directory, or links go in a circle.
    pub fn resolve(&self, path: &[u8]) -> Result<TreePath, LookupError> {
        self.walk_links(path, true)
    }

    /// As [`Tree::resolve`], but a link at the end is not followed.
    ///
    /// # Errors
    /// As there.
    pub fn resolve_parents(&self, path: &[u8]) -> Result<TreePath, LookupError> {
        self.walk_links(path, false)
    }

    fn walk_links(&self, path: &[u8], follow_last: bool) -> Result<TreePath, LookupError> {
        let mut todo: Vec<Box<[u8]>> = names_reversed(path);
        let mut at = TreePath::root();
        let mut n_links = 0;
        while let Some(name) = todo.pop() {
            if &*name == b".." {
                at = at.parent().unwrap_or_default();
                continue;
            }
            let next = at.join(&name);
            let follow = follow_last || !todo.is_empty();
            match self.get(&next) {
                Some(node) if follow && node.as_symlink().is_some() => {
                    n_links += 1;
                    if n_links > MAX_LINKS_FOLLOWED {
                        return Err(LookupError::TooManyLinks(TreePath::clean(path)));
                    }
                    let target = node.as_symlink().unwrap_or_default();
                    if target.starts_with(b"/") {
                        at = TreePath::root();
                    }
                    todo.extend(names_reversed(target));
                }
                Some(TreeNode::Leaf(_)) if !todo.is_empty() => {
                    return Err(LookupError::NotADirectory(next));
                }
                _ => at = next,
            }
        }
        Ok(at)
    }

    /// Every path below `from` with its node, depth-first, a directory before what it holds; `from`
    /// itself comes first unless it is the root.
    #[must_use]
    pub fn walk(&self, from: &TreePath) -> TreeWalk<'_> {
        let first = self.get(from).map(|node| (from.clone(), node));
        let mut walk = TreeWalk { first, open: Vec::new() };
        if from.is_root() {
            walk.open.push((TreePath::root(), self.root.children.iter()));
        }
        walk
    }
}

/// See [`Tree::walk`].
#[derive(Debug, Clone)]
pub struct TreeWalk<'a> {
    first: Option<(TreePath, &'a TreeNode)>,
    /// The directories on the way down, each with what is still to come of it.
    open: Vec<(TreePath, ChildrenIter<'a>)>,
}

impl<'a> Iterator for TreeWalk<'a> {
    type Item = (TreePath, &'a TreeNode);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, node) = match self.first.take() {
            Some(first) => first,
            None => loop {
                let (directory, children) = self.open.last_mut()?;
                match children.next() {
                    Some((name, node)) => break (directory.join(name), node),
                    None => drop(self.open.pop()),
                }
            },
        };
        if let Some(dir) = node.as_dir() {
            self.open.push((path.clone(), dir.children.iter()));
        }
        Some((path, node))
    }
}

/// The names of a path, last first, `.` and empty ones left out, `..` kept.
fn names_reversed(path: &[u8]) -> Vec<Box<[u8]>> {
    path.split(|byte| *byte == b'/')
        .rev()
        .filter(|name| !name.is_empty() && *name != b".")
        .map(Into::into)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, LayerListing};
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    fn dir(at: &str, opaque: bool) -> Entry {
        let node = Node::Directory { opaque };
        Entry { path: path(at), item: Item::Node(Meta::root(0o755, 0), node) }
    }

    fn link(at: &str, target: &str) -> Entry {
        let node = Node::Symlink(target.as_bytes().into());
        Entry { path: path(at), item: Item::Node(Meta::root(0o777, 0), node) }
    }

    fn fifo(at: &str) -> Entry {
        Entry { path: path(at), item: Item::Node(Meta::root(0o644, 0), Node::Fifo) }
    }

    fn gone(at: &str) -> Entry {
        Entry { path: path(at), item: Item::Whiteout }
    }

    fn merged<const N: usize>(layers: [Vec<Entry>; N]) -> Tree {
        let mut tree = Tree::default();
        layers.into_iter().for_each(|entries| tree.apply(&LayerListing::new(entries)));
        tree
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.walk(&TreePath::root()).map(|(path, _)| path.to_string()).collect()
    }

    #[test]
    fn whiteouts_hide_only_lower_layers() {
        let base = vec![dir("a", false), fifo("a/x"), fifo("a/y"), dir("b", false), fifo("b/z")];
        let tree = merged([base.clone(), vec![gone("a/x"), gone("b")]]);
        assert_eq!(paths(&tree), ["/a", "/a/y"]);
        let tree = merged([base, vec![dir("a", true), fifo("a/n")]]);
        assert_eq!(paths(&tree), ["/a", "/a/n", "/b", "/b/z"]);
    }

    #[test]
    fn a_file_replaces_a_directory_and_the_reverse() {
        let tree = merged([
            vec![dir("a", false), fifo("a/x"), fifo("b")],
            vec![fifo("a"), dir("b", false)],
        ]);
        assert_eq!(paths(&tree), ["/a", "/b"]);
        assert!(tree.dir(&path("b")).is_some());
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let tree = merged([vec![
            dir("d", false),
            fifo("d/f"),
            link("abs", "/d"),
            link("up", "../../../d/f"),
            link("loop", "loop"),
            fifo("p"),
        ]]);
        let resolve = |text: &str| tree.resolve(text.as_bytes());
        assert_eq!(resolve("abs/f"), Ok(path("d/f")));
        assert_eq!(resolve("/up"), Ok(path("d/f")));
        assert_eq!(resolve("abs/new/file"), Ok(path("d/new/file")));
        assert_eq!(resolve("abs/../p"), Ok(path("p")));
        assert_eq!(resolve("loop"), Err(LookupError::TooManyLinks(path("loop"))));
        assert_eq!(resolve("p/x"), Err(LookupError::NotADirectory(path("p"))));
        assert_eq!(tree.resolve_parents(b"abs"), Ok(path("abs")));
    }
}
