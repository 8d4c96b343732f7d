//! Inserts the selected files into the tree below, and detects conflicts at the destination.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::tree::mode::Chmod;
use crate::tree::{Children, Dir, Leaf, LookupError, Meta, Node, Tree, TreeNode, TreePath};

use super::chosen::{ChosenFile, DirectoryContents};
use super::copy_layer::{CopyLayer, Extent, LinkNames};
use super::select::{Selected, SelectedKind};
use super::{CopyError, CopyRequest};

/// The mode of a directory that COPY creates.
const MADE_DIRECTORY_MODE: u32 = 0o755;

/// The state of a running copy.
pub(super) struct Placement<'a> {
    request: &'a CopyRequest<'a>,
    /// The tree below with everything inserted so far.
    tree: Tree,
    /// The paths that were inserted or passed through.
    touched: BTreeMap<TreePath, Extent>,
    /// Directories of the tree below that were replaced by a file.
    hidden: BTreeSet<TreePath>,
    /// The absolute destination.
    destination: TreePath,
    /// True if the destination was written as a directory.
    is_directory: bool,
}

impl<'a> Placement<'a> {
    pub(super) fn new(below: &Tree, request: &'a CopyRequest<'a>) -> Self {
        let written = request.destination;
        let is_directory = written.is_empty()
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
            touched: BTreeMap::new(),
            hidden: BTreeSet::new(),
            destination,
            is_directory,
        }
    }

    /// Inserts one file, or the contents of one directory.
    pub(super) fn put(&mut self, item: &Selected<'_>, several: bool) -> Result<(), CopyError> {
        match &item.what {
            SelectedKind::Leaf(node) => self.put_file(item, node, several),
            SelectedKind::Contents(contents) => {
                let mode = if item.is_archive() { None } else { self.request.mode };
                let at = self.make_directory(&self.destination.clone(), mode)?;
                if let Some(contents) = contents {
                    self.put_contents(item, contents, &at, several)?;
                }
                self.set_modified(&at, item.modified_s);
                Ok(())
            }
        }
    }

    /// Inserts one file. `several` files need a directory, since each would replace the one before.
    /// A destination that is already a directory may be written without a trailing slash.
    fn put_file(
        &mut self,
        item: &Selected<'_>,
        node: &TreeNode,
        several: bool,
    ) -> Result<(), CopyError> {
        let destination = self.destination.clone();
        if self.is_directory {
            self.make_directory(&destination, self.request.mode)?;
        }
        let at = self.resolve(&destination)?;
        let path = if self.tree.dir(&at).is_some() {
            self.touch(at.clone());
            at.join(item.name)
        } else if several {
            return Err(CopyError::SeveralToOne {
                destination: self.request.destination.to_owned(),
            });
        } else {
            self.make_directory(&at.parent().unwrap_or_default(), self.request.mode)?;
            at
        };
        let TreeNode::Leaf(leaf) = node else { return Ok(()) };
        let leaf = Leaf::new(self.meta(item, leaf.meta(), leaf.node()), leaf.node().clone());
        self.put_leaf(item, path, leaf)
    }

    /// Sets the time of the directory at `path` to that of its source.
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
        contents: &DirectoryContents<'_>,
        at: &TreePath,
        several: bool,
    ) -> Result<(), CopyError> {
        let may_share = contents.filter.is_none() && self.leaves_as_is(item, contents, several);
        if may_share && self.share_contents(at, &contents.dir) {
            return Ok(());
        }
        let mut names = LinkNames::default();
        let mut all = contents.iter();
        while let Some(entry) = all.next() {
            let mut path = at.join_path(&entry.path);
            if item.is_archive() {
                path = self.through_links(path, entry.node);
            }
            match entry.node {
                TreeNode::Dir(_) if may_share && self.tree.get(&path).is_none() => {
                    self.tree.insert(&path, entry.node.clone());
                    self.touched.insert(path, Extent::Whole);
                    all.skip_contents();
                }
                TreeNode::Dir(_) if item.only_implies(&entry.path) => self.put_implied(path),
                TreeNode::Dir(dir) => self.put_directory(item, path, &entry, &dir.meta)?,
                TreeNode::Leaf(leaf) => {
                    let linked = names.first_name(entry.node, &path).cloned();
                    let leaf = match linked.and_then(|first| self.tree.link(&first)) {
                        Some(first) => first,
                        None => {
                            let meta = self.meta(item, leaf.meta(), leaf.node());
                            Leaf::new(meta, leaf.node().clone())
                        }
                    };
                    self.put_leaf(item, path, leaf)?;
                }
            }
        }
        Ok(())
    }

    /// Returns whether all these files keep their properties, so that a directory that is new here
    /// can share the source's nodes. Files with several names are excluded if there are other
    /// sources: they are links within one source only, which a shared node would not show.
    fn leaves_as_is(
        &self,
        item: &Selected<'_>,
        contents: &DirectoryContents<'_>,
        several: bool,
    ) -> bool {
        if item.archive.is_some_and(|implied| !implied.is_empty()) {
            return false;
        }
        let stays = |node: &TreeNode| match node {
            TreeNode::Dir(dir) => {
                let directory = Node::Directory { opaque: false };
                self.meta(item, &dir.meta, &directory) == dir.meta
            }
            TreeNode::Leaf(leaf) => {
                let shows_links = !several || leaf.identity().is_none();
                shows_links && self.meta(item, leaf.meta(), leaf.node()) == *leaf.meta()
            }
        };
        let mut open: Vec<&Dir> = vec![&contents.dir];
        while let Some(dir) = open.pop() {
            if !dir.children.iter().all(|(_, node)| stays(node)) {
                return false;
            }
            open.extend(dir.children.iter().filter_map(|(_, node)| node.as_dir()));
        }
        true
    }

    /// Shares the contents of `source` with an empty directory; returns false if it is not empty.
    fn share_contents(&mut self, at: &TreePath, source: &Dir) -> bool {
        let Some(Dir { meta, children }) = self.tree.dir(at) else { return false };
        if !children.is_empty() {
            return false;
        }
        let dir = Dir { meta: meta.clone(), children: source.children.clone() };
        self.tree.insert(at, TreeNode::Dir(Arc::new(dir)));
        self.touched.insert(at.clone(), Extent::Whole);
        true
    }

    fn touch(&mut self, path: TreePath) {
        self.touched.entry(path).or_insert(Extent::Itself);
    }

    /// Returns the path for an entry of an archive: links to directories are followed inside the
    /// root, as tar(1) follows those of the image.
    fn through_links(&self, path: TreePath, node: &TreeNode) -> TreePath {
        if node.as_dir().is_some()
            && let Ok(target) = self.tree.resolve(path.as_bytes())
            && self.tree.dir(&target).is_some()
        {
            return target;
        }
        self.tree.resolve_parents(path.as_bytes()).unwrap_or(path)
    }

    fn put_directory(
        &mut self,
        item: &Selected<'_>,
        path: TreePath,
        entry: &ChosenFile<'_>,
        source: &Meta,
    ) -> Result<(), CopyError> {
        let directory = Node::Directory { opaque: false };
        let fresh = self.meta(item, source, &directory);
        let (meta, children) = match self.tree.get(&path) {
            None => (fresh, Children::new()),
            // BuildKit only sets the mode of an existing parent directory to that of the source.
            Some(TreeNode::Dir(dir)) if item.keeps_parents || entry.on_the_way => {
                (Meta { mode: source.mode, ..dir.meta.clone() }, dir.children.clone())
            }
            Some(TreeNode::Dir(dir)) => (fresh, dir.children.clone()),
            Some(TreeNode::Leaf(_)) if item.is_archive() => (fresh, Children::new()),
            Some(node @ TreeNode::Leaf(_)) => return Err(over(path, node)),
        };
        self.tree.insert(&path, TreeNode::Dir(Arc::new(Dir { meta, children })));
        self.touch(path);
        Ok(())
    }

    /// Creates a directory that an archive only implies; an existing one stays unchanged.
    fn put_implied(&mut self, path: TreePath) {
        if self.tree.dir(&path).is_none() {
            let meta = Meta::root(MADE_DIRECTORY_MODE, self.request.now_s);
            self.tree
                .insert(&path, TreeNode::Dir(Arc::new(Dir { meta, children: Children::new() })));
        }
        self.touch(path);
    }

    fn put_leaf(
        &mut self,
        item: &Selected<'_>,
        path: TreePath,
        leaf: Leaf,
    ) -> Result<(), CopyError> {
        if path.is_root() || self.tree.dir(&path).is_some() {
            if path.is_root() || !item.is_archive() {
                return Err(CopyError::FileOverDir { path });
            }
            self.hidden.insert(path.clone());
        }
        self.tree.insert(&path, TreeNode::Leaf(leaf));
        self.touch(path);
        Ok(())
    }

    /// Returns the properties of a copied file.
    fn meta(&self, item: &Selected<'_>, source: &Meta, node: &Node) -> Meta {
        let mut meta = source.clone();
        if let Some((uid, gid)) = self.request.owner {
            (meta.uid, meta.gid) = (uid, gid);
        } else if self.request.from_context && !item.is_archive() {
            (meta.uid, meta.gid) = (0, 0);
        }
        if let Some(chmod) = self.request.mode
            && !item.is_archive()
            && !matches!(node, Node::Symlink(_))
        {
            meta.mode = chmod.apply(meta.mode, matches!(node, Node::Directory { .. }));
        }
        meta
    }

    /// Creates the directory `path` and its missing parents, following links. Returns its resolved
    /// path.
    fn make_directory(
        &mut self,
        path: &TreePath,
        mode: Option<&Chmod>,
    ) -> Result<TreePath, CopyError> {
        let target = self.resolve(path)?;
        let mut at = TreePath::root();
        for name in target.names() {
            at = at.join(name);
            match self.tree.get(&at) {
                Some(TreeNode::Dir(_)) => {}
                Some(TreeNode::Leaf(_)) => return Err(self.through(at)),
                None => {
                    let dir = Dir { meta: self.made_meta(mode), children: Children::new() };
                    self.tree.insert(&at, TreeNode::Dir(Arc::new(dir)));
                }
            }
        }
        self.touch(target.clone());
        Ok(target)
    }

    /// Returns the properties of a created directory. BuildKit applies an octal `--chmod` to it,
    /// but not a symbolic one.
    fn made_meta(&self, mode: Option<&Chmod>) -> Meta {
        let mode = match mode {
            Some(Chmod::Octal(mode)) => *mode,
            Some(Chmod::Symbolic(_)) | None => MADE_DIRECTORY_MODE,
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

    /// Returns the layer of everything inserted, with all parent directories.
    pub(super) fn finish(self) -> CopyLayer {
        CopyLayer::new(self.tree, self.touched, self.hidden)
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
