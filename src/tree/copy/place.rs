//! Where the selected files go, and what is in the way there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::tree::mode::Chmod;
use crate::tree::{Dir, Entry, Item, Layer, LookupError, Meta, Node, Tree, TreeNode, TreePath};

use super::select::{Chosen, Selected, What};
use super::{CopyError, CopyRequest};

/// The tree as the copy changes it.
pub(super) struct Placement<'a> {
    request: &'a CopyRequest<'a>,
    /// What is below, with all that was put so far on top.
    tree: Tree,
    /// What was put or gone through.
    touched: BTreeSet<TreePath>,
    /// Folders of the tree below that a file has replaced.
    hidden: BTreeSet<TreePath>,
    /// The destination from the root, without a slash at either end.
    destination: TreePath,
    /// Whether the destination was written as a folder.
    is_folder: bool,
}

/// The first path of each file, to find its hard links.
#[derive(Default)]
pub(super) struct LinkNames(HashMap<usize, TreePath>);

impl LinkNames {
    /// The path that this file was first given with; `None` when it is met for the first time.
    pub(super) fn first_name(&mut self, node: &TreeNode, path: &TreePath) -> Option<&TreePath> {
        let TreeNode::Leaf(leaf) = node else { return None };
        // A file with one owner has one name.
        if Arc::strong_count(leaf) == 1 {
            return None;
        }
        let address = Arc::as_ptr(leaf).addr();
        let mut is_new = false;
        let first = self.0.entry(address).or_insert_with(|| {
            is_new = true;
            path.clone()
        });
        if is_new { None } else { Some(first) }
    }
}

impl<'a> Placement<'a> {
    pub(super) fn new(below: &Tree, request: &'a CopyRequest<'a>) -> Self {
        let written = request.destination;
        let is_folder = written.is_empty()
            || written == "."
            || written.ends_with('/')
            || written.ends_with("/.");
        let destination = if written.starts_with('/') {
            TreePath::clean(written.as_bytes())
        } else {
            TreePath::clean(format!("{}/{written}", request.workdir).as_bytes())
        };
        Self {
            request,
            tree: below.clone(),
            touched: BTreeSet::new(),
            hidden: BTreeSet::new(),
            destination,
            is_folder,
        }
    }

    /// Puts one file, or the contents of one folder.
    pub(super) fn put(&mut self, item: &Selected<'_>) -> Result<(), CopyError> {
        match &item.what {
            What::Leaf(node) => self.put_file(item, node),
            What::Contents(chosen) => {
                let at = self.make_folder(&self.destination.clone())?;
                self.put_contents(item, chosen, &at)?;
                self.set_modified(&at, item.modified_s);
                Ok(())
            }
        }
    }

    /// Several files for one that is no folder replace each other, as with BuildKit.
    fn put_file(&mut self, item: &Selected<'_>, node: &TreeNode) -> Result<(), CopyError> {
        let destination = self.destination.clone();
        if self.is_folder {
            self.make_folder(&destination)?;
        }
        let at = self.resolve(&destination)?;
        let path = if self.tree.dir(&at).is_some() {
            self.touched.insert(at.clone());
            at.join(item.name)
        } else {
            self.make_folder(&at.parent().unwrap_or_default())?;
            at
        };
        let TreeNode::Leaf(leaf) = node else { return Ok(()) };
        let meta = self.meta(item, &leaf.0, &leaf.1);
        self.put_leaf(item, path, TreeNode::Leaf(Arc::new((meta, leaf.1.clone()))))
    }

    /// Gives the folder at `path` the time of the one whose contents it got.
    fn set_modified(&mut self, path: &TreePath, modified_s: Option<i64>) {
        if let (Some(mtime_s), Some(dir)) = (modified_s, self.tree.dir(path))
            && !path.is_root()
        {
            let meta = Meta { mtime_s, ..dir.meta.clone() };
            let dir = Dir { meta, children: dir.children.clone() };
            self.tree.insert(path, TreeNode::Dir(Arc::new(dir)));
        }
    }

    fn put_contents(
        &mut self,
        item: &Selected<'_>,
        chosen: &[Chosen<'_>],
        at: &TreePath,
    ) -> Result<(), CopyError> {
        let mut names = LinkNames::default();
        for entry in chosen {
            let mut path = at.join_path(&entry.path);
            if item.replaces {
                path = self.through_links(path, entry.node);
            }
            match entry.node {
                TreeNode::Dir(dir) => self.put_folder(item, path, entry, &dir.meta)?,
                TreeNode::Leaf(leaf) => {
                    let linked = names.first_name(entry.node, &path);
                    let node = match linked.and_then(|first| self.tree.get(first)) {
                        Some(first) => first.clone(),
                        None => {
                            let meta = self.meta(item, &leaf.0, &leaf.1);
                            TreeNode::Leaf(Arc::new((meta, leaf.1.clone())))
                        }
                    };
                    self.put_leaf(item, path, node)?;
                }
            }
        }
        Ok(())
    }

    /// Where an unpacked archive's file goes: links to folders are followed inside the root, as tar
    /// would follow those of the image.
    fn through_links(&self, path: TreePath, node: &TreeNode) -> TreePath {
        if node.as_dir().is_some()
            && let Ok(target) = self.tree.resolve(path.as_bytes())
            && self.tree.dir(&target).is_some()
        {
            return target;
        }
        self.tree.resolve_parents(path.as_bytes()).unwrap_or(path)
    }

    fn put_folder(
        &mut self,
        item: &Selected<'_>,
        path: TreePath,
        entry: &Chosen<'_>,
        source: &Meta,
    ) -> Result<(), CopyError> {
        let directory = Node::Directory { opaque: false };
        let fresh = self.meta(item, source, &directory);
        let (meta, children) = match self.tree.get(&path) {
            None => (fresh, BTreeMap::new()),
            // BuildKit gives an existing folder on the way the source's mode and nothing else.
            Some(TreeNode::Dir(dir)) if item.keeps_parents || entry.on_the_way => {
                (Meta { mode: source.mode, ..dir.meta.clone() }, dir.children.clone())
            }
            Some(TreeNode::Dir(dir)) => (fresh, dir.children.clone()),
            Some(TreeNode::Leaf(_)) if item.replaces => (fresh, BTreeMap::new()),
            Some(node @ TreeNode::Leaf(_)) => return Err(over(path, node)),
        };
        self.tree.insert(&path, TreeNode::Dir(Arc::new(Dir { meta, children })));
        self.touched.insert(path);
        Ok(())
    }

    fn put_leaf(
        &mut self,
        item: &Selected<'_>,
        path: TreePath,
        node: TreeNode,
    ) -> Result<(), CopyError> {
        if path.is_root() || self.tree.dir(&path).is_some() {
            if path.is_root() || !item.replaces {
                return Err(CopyError::FileOverDir { path });
            }
            self.hidden.insert(path.clone());
        }
        self.tree.insert(&path, node);
        self.touched.insert(path);
        Ok(())
    }

    /// A copied file's properties.
    fn meta(&self, item: &Selected<'_>, source: &Meta, node: &Node) -> Meta {
        let mut meta = source.clone();
        if let Some((uid, gid)) = self.request.owner {
            (meta.uid, meta.gid) = (uid, gid);
        } else if self.request.from_context && !item.replaces {
            (meta.uid, meta.gid) = (0, 0);
        }
        if let Some(chmod) = self.request.mode
            && !matches!(node, Node::Symlink(_))
        {
            meta.mode = chmod.apply(meta.mode, matches!(node, Node::Directory { .. }));
        }
        meta
    }

    /// Makes the folder `path` and its missing parents, through links, and gives where it really
    /// is.
    fn make_folder(&mut self, path: &TreePath) -> Result<TreePath, CopyError> {
        let target = self.resolve(path)?;
        let mut at = TreePath::root();
        for name in target.names() {
            at = at.join(name);
            match self.tree.get(&at) {
                Some(TreeNode::Dir(_)) => {}
                Some(TreeNode::Leaf(_)) => return Err(self.through(at)),
                None => {
                    let dir = Dir { meta: self.made_meta(), children: BTreeMap::new() };
                    self.tree.insert(&at, TreeNode::Dir(Arc::new(dir)));
                }
            }
        }
        self.touched.insert(target.clone());
        Ok(target)
    }

    /// A made folder's properties. BuildKit gives it an octal `--chmod`, but not a symbolic one.
    fn made_meta(&self) -> Meta {
        let mode = match self.request.mode {
            Some(Chmod::Octal(mode)) => *mode,
            Some(Chmod::Symbolic(_)) | None => 0o755,
        };
        let (uid, gid) = self.request.owner.unwrap_or((0, 0));
        Meta { uid, gid, ..Meta::root(mode, self.request.now_s) }
    }

    fn resolve(&self, path: &TreePath) -> Result<TreePath, CopyError> {
        self.tree.resolve(path.as_bytes()).map_err(|error| match error {
            LookupError::NotADirectory(path) => self.through(path),
            LookupError::TooManyLinks(_) => {
                CopyError::TooManyLinks { path: self.request.destination.to_owned() }
            }
        })
    }

    fn through(&self, path: TreePath) -> CopyError {
        CopyError::ThroughFile { destination: self.request.destination.to_owned(), path }
    }

    /// What was put, and all folders on the way to it.
    pub(super) fn into_layer(self) -> Layer {
        let mut paths = self.touched.clone();
        for path in &self.touched {
            let mut parent = path.parent();
            while let Some(folder) = parent.filter(|folder| !paths.contains(folder)) {
                parent = folder.parent();
                paths.insert(folder);
            }
        }
        let mut names = LinkNames::default();
        let entries = paths.into_iter().filter_map(|path| {
            let item = match self.tree.get(&path)? {
                TreeNode::Dir(dir) => {
                    let opaque = self.hidden.contains(&path);
                    Item::Node(dir.meta.clone(), Node::Directory { opaque })
                }
                node @ TreeNode::Leaf(leaf) => match names.first_name(node, &path) {
                    Some(first) => Item::HardLink(first.clone()),
                    None => Item::Node(leaf.0.clone(), leaf.1.clone()),
                },
            };
            Some(Entry { path, item })
        });
        Layer::new(entries.collect())
    }
}

fn over(path: TreePath, node: &TreeNode) -> CopyError {
    match node.as_symlink() {
        Some(target) => {
            CopyError::DirOverLink { path, target: String::from_utf8_lossy(target).into_owned() }
        }
        None => CopyError::DirOverFile { path },
    }
}
