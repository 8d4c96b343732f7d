//! Which files below a selected directory are copied.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::tree::patterns::{DirectoryMatch, Patterns};
use crate::tree::{ChildrenIter, Dir, TreeNode, TreePath};

/// What patterns say of the contents of a directory.
#[derive(Debug)]
pub(super) struct Filter {
    /// What is copied; all when there is none.
    pub(super) include: Option<Patterns>,
    /// What of that is not.
    pub(super) exclude: Arc<Patterns>,
}

/// The contents of a directory, or a part of them.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    /// The directory in the source, or one in which directories stand in for links to them.
    pub(super) dir: Cow<'a, Dir>,
    /// `None`: all is copied.
    pub(super) filter: Option<Filter>,
}

/// A file below a selected directory.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    /// Relative to the directory.
    pub(super) path: TreePath,
    pub(super) node: &'a TreeNode,
    /// A directory that was not chosen itself: only something in it.
    pub(super) on_the_way: bool,
}

impl<'a> Contents<'a> {
    /// The contents of `dir`: all, or what `include` matches, without what `exclude` matches.
    pub(super) fn new(
        dir: Cow<'a, Dir>,
        include: Option<Patterns>,
        exclude: &Arc<Patterns>,
    ) -> Self {
        let is_all = include.is_none() && exclude.is_empty();
        let filter = (!is_all).then(|| Filter { include, exclude: Arc::clone(exclude) });
        Self { dir, filter }
    }

    /// The chosen files. A directory comes before what it holds; one that is not chosen itself, only
    /// if something in it is.
    pub(super) fn iter(&self) -> ChosenIter<'_, '_> {
        let filter = self.filter.as_ref();
        let include = filter.and_then(|filter| filter.include.as_ref());
        let top = Directory {
            path: TreePath::root(),
            children: self.dir.children.iter(),
            include: include.map(Patterns::at_root).unwrap_or_default(),
            exclude: filter.map(|filter| filter.exclude.at_root()).unwrap_or_default(),
            pending: None,
        };
        ChosenIter { filter, open: vec![top], ready: VecDeque::new() }
    }
}

/// Goes through the chosen files.
#[derive(Debug)]
pub(super) struct ChosenIter<'a, 'f> {
    filter: Option<&'f Filter>,
    /// The directories on the way down.
    open: Vec<Directory<'a>>,
    /// What comes next.
    ready: VecDeque<Chosen<'a>>,
}

#[derive(Debug)]
struct Directory<'a> {
    path: TreePath,
    children: ChildrenIter<'a>,
    include: DirectoryMatch,
    exclude: DirectoryMatch,
    /// Itself, if it is still to be chosen.
    pending: Option<Chosen<'a>>,
}

impl<'a> Iterator for ChosenIter<'a, '_> {
    type Item = Chosen<'a>;

    fn next(&mut self) -> Option<Chosen<'a>> {
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
    /// Leaves out what the directory holds that came last.
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
            self.take(Chosen { path, node, on_the_way: false });
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
        let chosen = Chosen { path: path.clone(), node, on_the_way };
        let pending = if on_the_way {
            Some(chosen)
        } else {
            self.take(chosen);
            None
        };
        self.open.push(Directory {
            path,
            children: dir.children.iter(),
            include,
            exclude,
            pending,
        });
    }

    /// Takes a file, after the directories on the way to it.
    fn take(&mut self, chosen: Chosen<'a>) {
        self.ready.extend(self.open.iter_mut().filter_map(|directory| directory.pending.take()));
        self.ready.push_back(chosen);
    }
}
