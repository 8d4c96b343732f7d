//! Merged layers: the file tree that a container sees.

use std::sync::Arc;

use crate::limits::MAX_LINKS_FOLLOWED;

use super::{Children, ChildrenIter, File, LayerEntries, LayerItem, Meta, Node, TreePath};

/// A merged file tree. Cloning is cheap: unchanged directories are shared.
#[derive(Debug, Clone)]
pub struct Tree {
    root: Arc<Dir>,
}

/// A directory of a merged tree.
#[derive(Debug, Clone, Default)]
pub struct Dir {
    /// The directory's own properties.
    pub meta: Meta,
    /// The files in it, by name.
    pub children: Children,
}

/// A node of a merged tree.
#[derive(Debug, Clone)]
pub enum TreeNode {
    /// A directory, shared between clones.
    Dir(Arc<Dir>),
    /// Any other type of file.
    Leaf(Leaf),
}

/// A file that is not a directory.
#[derive(Debug, Clone)]
pub enum Leaf {
    /// A file with one name, as nearly all are; stored in its directory's chunk.
    Own(Meta, Node),
    /// A file with several names (hard links), which share it.
    Linked(Arc<(Meta, Node)>),
}

// A context of a million files keeps a million of them in memory.
const _: () = assert!(size_of::<TreeNode>() <= 96);

impl Leaf {
    /// Returns a file with one name.
    #[must_use]
    pub const fn new(meta: Meta, node: Node) -> Self {
        Self::Own(meta, node)
    }

    /// Returns mode, owners, time and extended attributes.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Own(meta, _) => meta,
            Self::Linked(file) => &file.0,
        }
    }

    /// Returns the file's type and its data.
    #[must_use]
    pub fn node(&self) -> &Node {
        match self {
            Self::Own(_, node) => node,
            Self::Linked(file) => &file.1,
        }
    }

    /// Returns a number that all names of one file share, and no other file in any live tree;
    /// `None` for a file with one name.
    #[must_use]
    pub fn identity(&self) -> Option<usize> {
        match self {
            Self::Own(..) => None,
            Self::Linked(file) => Some(Arc::as_ptr(file).addr()),
        }
    }

    /// Returns the file for a further name.
    #[must_use]
    pub fn link(&mut self) -> Self {
        if let Self::Own(meta, node) = self {
            let (meta, node) = (std::mem::take(meta), std::mem::replace(node, Node::Fifo));
            *self = Self::Linked(Arc::new((meta, node)));
        }
        self.clone()
    }
}

/// The reason why a path cannot be resolved (path_resolution(7)).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// A component of the path is neither a directory nor a link to one (`ENOTDIR`).
    #[error("{0} is not a directory")]
    NotADirectory(TreePath),
    /// The path has more than [`MAX_LINKS_FOLLOWED`] symbolic links (`ELOOP`).
    #[error("too many symbolic links in {0}")]
    TooManyLinks(TreePath),
}

impl TreeNode {
    /// Returns mode, owners, time and extended attributes.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Dir(dir) => &dir.meta,
            Self::Leaf(leaf) => leaf.meta(),
        }
    }

    /// Returns the directory, if it is one.
    #[must_use]
    pub fn as_dir(&self) -> Option<&Dir> {
        match self {
            Self::Dir(dir) => Some(dir),
            Self::Leaf(_) => None,
        }
    }

    /// Returns the target, if it is a symbolic link.
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
    /// Returns a directory that no layer lists: root's, mode 0755.
    fn unlisted() -> Self {
        Self { meta: Meta::root(0o755, 0), children: Children::new() }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: Arc::new(Dir::unlisted()) }
    }
}

impl Tree {
    /// Returns a tree whose root is `root`.
    #[must_use]
    pub const fn new(root: Arc<Dir>) -> Self {
        Self { root }
    }

    /// Returns the root directory.
    #[must_use]
    pub fn root(&self) -> &Arc<Dir> {
        &self.root
    }

    /// Applies `layer` on top, honouring whiteouts (image-spec, layer.md, "Whiteouts"). Parent
    /// directories that the layer does not list stay unchanged; a missing one, or one in place of
    /// another file, becomes root's with mode 0755.
    pub fn apply(&mut self, layer: &dyn LayerEntries) {
        for entry in layer.stream() {
            match &entry.item {
                LayerItem::Whiteout => self.remove(&entry.path),
                LayerItem::Opaque => self.empty(&entry.path),
                LayerItem::HardLink(target) => {
                    if let Some(leaf) = self.link(target) {
                        self.insert(&entry.path, TreeNode::Leaf(leaf));
                    }
                }
                LayerItem::Node(meta, Node::Directory { opaque }) => {
                    self.apply_directory(&entry.path, meta, *opaque);
                }
                LayerItem::Node(meta, node) => {
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

    /// Returns the file at `path` for a further name; `None` if it does not exist or is a
    /// directory.
    pub fn link(&mut self, path: &TreePath) -> Option<Leaf> {
        if !matches!(self.get(path)?, TreeNode::Leaf(_)) {
            return None;
        }
        match self.dir_mut(&path.parent()?).children.get_mut(path.name()?)? {
            TreeNode::Leaf(leaf) => Some(leaf.link()),
            TreeNode::Dir(_) => None,
        }
    }

    /// Inserts `node` at `path`, replacing an existing node.
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

    /// Returns the directory at `path`, mutably; creates it if it is missing or another type of
    /// file.
    fn dir_mut(&mut self, path: &TreePath) -> &mut Dir {
        let mut dir = Arc::make_mut(&mut self.root);
        for name in path.names() {
            if dir.children.get(name).and_then(TreeNode::as_dir).is_none() {
                dir.children.insert(name, TreeNode::Dir(Arc::new(Dir::unlisted())));
            }
            let child = dir.children.get_mut(name);
            let Some(TreeNode::Dir(next)) = child else { unreachable!("it was just made") };
            dir = Arc::make_mut(next);
        }
        dir
    }

    /// Removes `path` and everything below it, if it exists.
    pub fn remove(&mut self, path: &TreePath) {
        let (Some(name), Some(parent)) = (path.name(), path.parent()) else { return };
        if self.get(path).is_some() {
            self.dir_mut(&parent).children.remove(name);
        }
    }

    /// Removes the contents of the directory at `path`, if it exists.
    fn empty(&mut self, path: &TreePath) {
        if self.dir(path).is_some() {
            self.dir_mut(path).children = Children::new();
        }
    }

    /// Returns the node at exactly `path`, without following links. `None` for the root; see
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

    /// Returns the regular file at exactly `path`.
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

    /// Returns the directory at exactly `path`, which may be the root.
    #[must_use]
    pub fn dir(&self, path: &TreePath) -> Option<&Dir> {
        if path.is_root() { Some(&self.root) } else { self.get(path)?.as_dir() }
    }

    /// Resolves every symbolic link in `path`, the last name included, without leaving the root.
    /// Names that do not exist are kept, so the result may be a path to be created.
    ///
    /// # Errors
    /// [`LookupError`] if a component is not a directory, or there are too many links.
    pub fn resolve(&self, path: &[u8]) -> Result<TreePath, LookupError> {
        self.walk_links(path, true)
    }

    /// Resolves like [`Tree::resolve`], but does not follow a link at the end.
    ///
    /// # Errors
    /// [`LookupError`], as [`Tree::resolve`].
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

    /// Iterates over every path below `from`, depth-first, a directory before its contents. `from`
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

/// The iterator of [`Tree::walk`].
#[derive(Debug, Clone)]
pub struct TreeWalk<'a> {
    first: Option<(TreePath, &'a TreeNode)>,
    /// The directories from the root down, each with its remaining children.
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

/// Returns the names of a path, last first, without `.` and empty names, with `..`.
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
        Entry { path: path(at), item: LayerItem::Node(Meta::root(0o755, 0), node) }
    }

    fn link(at: &str, target: &str) -> Entry {
        let node = Node::Symlink(target.as_bytes().into());
        Entry { path: path(at), item: LayerItem::Node(Meta::root(0o777, 0), node) }
    }

    fn fifo(at: &str) -> Entry {
        Entry { path: path(at), item: LayerItem::Node(Meta::root(0o644, 0), Node::Fifo) }
    }

    fn gone(at: &str) -> Entry {
        Entry { path: path(at), item: LayerItem::Whiteout }
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
