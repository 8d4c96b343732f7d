//! Selects the files below a source directory by the patterns of `--parents` and `--exclude`.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::tree::patterns::{DirectoryMatch, Patterns};
use crate::tree::{ChildrenIter, Dir, TreeNode, TreePath};

/// The patterns that select from the contents of a directory.
#[derive(Debug)]
pub(super) struct PatternFilter {
    /// The files to copy; `None` for all.
    pub(super) include: Option<Patterns>,
    /// The files to leave out.
    pub(super) exclude: Arc<Patterns>,
}

/// The contents of a source directory, or a part of them.
#[derive(Debug)]
pub(super) struct DirectoryContents<'a> {
    /// The directory in the source, or a copy in which symbolic links are replaced by the
    /// directories that they lead to.
    pub(super) dir: Cow<'a, Dir>,
    /// `None` copies everything.
    pub(super) filter: Option<PatternFilter>,
}

/// A selected file below a source directory.
#[derive(Debug)]
pub(super) struct ChosenFile<'a> {
    /// The path relative to the directory.
    pub(super) path: TreePath,
    pub(super) node: &'a TreeNode,
    /// True for a directory that is not selected itself but contains selected files.
    pub(super) on_the_way: bool,
}

impl<'a> DirectoryContents<'a> {
    /// Selects the contents of `dir`: everything, or what `include` matches, without what `exclude`
    /// matches.
    pub(super) fn new(
        dir: Cow<'a, Dir>,
        include: Option<Patterns>,
        exclude: &Arc<Patterns>,
    ) -> Self {
        let is_all = include.is_none() && exclude.is_empty();
        let filter = (!is_all).then(|| PatternFilter { include, exclude: Arc::clone(exclude) });
        Self { dir, filter }
    }

    /// Iterates over the selected files. A directory comes before its contents; one that is not
    /// selected itself only appears if something in it is.
    pub(super) fn iter(&self) -> ChosenIter<'_, '_> {
        let filter = self.filter.as_ref();
        let include = filter.and_then(|filter| filter.include.as_ref());
        let top = OpenDirectory {
            path: TreePath::root(),
            children: self.dir.children.iter(),
            include: include.map(Patterns::at_root).unwrap_or_default(),
            exclude: filter.map(|filter| filter.exclude.at_root()).unwrap_or_default(),
            pending: None,
        };
        ChosenIter { filter, open: vec![top], ready: VecDeque::new() }
    }
}

/// The iterator of [`DirectoryContents::iter`].
#[derive(Debug)]
pub(super) struct ChosenIter<'a, 'f> {
    filter: Option<&'f PatternFilter>,
    /// The directories from the root down to the current one.
    open: Vec<OpenDirectory<'a>>,
    /// Selected files that come next.
    ready: VecDeque<ChosenFile<'a>>,
}

#[derive(Debug)]
struct OpenDirectory<'a> {
    path: TreePath,
    children: ChildrenIter<'a>,
    include: DirectoryMatch,
    exclude: DirectoryMatch,
    /// The directory's own entry, emitted before the first selected file in it.
    pending: Option<ChosenFile<'a>>,
}

impl<'a> Iterator for ChosenIter<'a, '_> {
    type Item = ChosenFile<'a>;

    fn next(&mut self) -> Option<ChosenFile<'a>> {
        while self.ready.is_empty() {
            let Some((name, node)) = self.open.last_mut()?.children.next() else {
                self.open.pop();
                continue;
            };
            match node {
                TreeNode::Dir(dir) => self.enter(name, node, dir),
                TreeNode::Leaf(_) => self.leaf(name, node),
            }
        }
        self.ready.pop_front()
    }
}

impl<'a> ChosenIter<'a, '_> {
    /// Skips the contents of the directory that was returned last.
    pub(super) fn skip_contents(&mut self) {
        self.open.pop();
    }

    fn leaf(&mut self, name: &[u8], node: &'a TreeNode) {
        let Some(directory) = self.open.last() else { return };
        let path = directory.path.join(name);
        let is_chosen = self.filter.is_none_or(|filter| {
            let include = filter.include.as_ref();
            include.is_none_or(|include| include.matches(&path, &directory.include))
                && !filter.exclude.matches(&path, &directory.exclude)
        });
        if is_chosen {
            self.take(ChosenFile { path, node, on_the_way: false });
        }
    }

    fn enter(&mut self, name: &[u8], node: &'a TreeNode, dir: &'a Dir) {
        let Some(directory) = self.open.last() else { return };
        let path = directory.path.join(name);
        let (is_included, include) = match self.filter.and_then(|filter| filter.include.as_ref()) {
            Some(patterns) => patterns.enter(&path, &directory.include),
            None => (true, DirectoryMatch::default()),
        };
        let (is_excluded, exclude) = match self.filter {
            Some(filter) => filter.exclude.enter(&path, &directory.exclude),
            None => (false, DirectoryMatch::default()),
        };
        let on_the_way = !is_included || is_excluded;
        let chosen = ChosenFile { path: path.clone(), node, on_the_way };
        let pending = if on_the_way {
            Some(chosen)
        } else {
            self.take(chosen);
            None
        };
        self.open.push(OpenDirectory {
            path,
            children: dir.children.iter(),
            include,
            exclude,
            pending,
        });
    }

    /// Emits a file, after the pending directories above it.
    fn take(&mut self, chosen: ChosenFile<'a>) {
        self.ready.extend(self.open.iter_mut().filter_map(|directory| directory.pending.take()));
        self.ready.push_back(chosen);
    }
}
