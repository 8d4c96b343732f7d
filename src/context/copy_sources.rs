//! Which parts of a context the sources of a COPY can name.

use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::limits::MAX_LINKS_FOLLOWED;
use crate::pathio::PathError;
use crate::tree::glob::{self, DoubleStar, Glob};
use crate::tree::patterns::DirectoryMatch;
use crate::tree::{Children, Dir, FileInDirectory, Tree, TreeNode, TreePath};

use super::files::Stat;
use super::walk::Seen;
use super::{Context, files};

/// One name of a source.
#[derive(Clone)]
enum Step {
    /// This very name.
    Plain(Box<[u8]>),
    /// All names that match.
    Wild(Glob),
    /// Any number of directories: all below.
    Deep,
    /// `..`, in a link's target.
    Up,
}

/// A place and what is still to go from there, last step first.
struct Work {
    at: TreePath,
    steps: Vec<Step>,
    n_links: usize,
}

/// See [`Context::tree`].
pub(super) fn tree(context: &Context, sources: &[&str]) -> Result<Tree, PathError> {
    let root = context.directory_meta(&context.root, &TreePath::root())?;
    let dir = Dir { meta: root, children: Children::new() };
    let mut reach = Reach { context, tree: Tree::new(Arc::new(dir)) };
    for source in sources {
        let steps = source_steps(source);
        let mut todo = vec![Work { at: TreePath::root(), steps, n_links: 0 }];
        while let Some(work) = todo.pop() {
            reach.go(work, &mut todo)?;
        }
    }
    Ok(reach.tree)
}

/// The steps of a source, last first; `.` and `..` are resolved.
fn source_steps(source: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for name in source.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(steps.pop()),
            name => steps.push(step(name)),
        }
    }
    steps.reverse();
    steps
}

fn step(name: &str) -> Step {
    if name.contains("**") {
        return Step::Deep;
    }
    let plain = Step::Plain(name.as_bytes().into());
    if !glob::has_wildcard(name) && !name.contains('\\') {
        return plain;
    }
    // A senseless pattern names nothing; the copy says what is wrong with it.
    Glob::new(name, DoubleStar::AsSingle).map_or(plain, Step::Wild)
}

struct Reach<'a> {
    context: &'a Context,
    tree: Tree,
}

impl Reach<'_> {
    /// Goes one step, and leaves the rest in `todo`.
    fn go(&mut self, mut work: Work, todo: &mut Vec<Work>) -> Result<(), PathError> {
        match work.steps.pop() {
            None | Some(Step::Deep) => self.take_directory(&work.at),
            Some(Step::Up) => {
                work.at = work.at.parent().unwrap_or_default();
                todo.push(work);
                Ok(())
            }
            Some(Step::Plain(name)) => self.enter(work, &name, todo),
            Some(Step::Wild(glob)) => {
                for name in self.names(&work.at)?.into_iter().filter(|name| glob.matches(name)) {
                    let mut steps = work.steps.clone();
                    steps.push(Step::Plain(name));
                    todo.push(Work { at: work.at.clone(), steps, n_links: work.n_links });
                }
                Ok(())
            }
        }
    }

    fn names(&self, directory: &TreePath) -> Result<Vec<Box<[u8]>>, PathError> {
        if let Some(node) = self.context.remembered(directory) {
            let node = node.as_ref().and_then(TreeNode::as_dir);
            let names = node.map(|dir| dir.children.iter().map(|(name, _)| name.into()).collect());
            return Ok(names.unwrap_or_default());
        }
        let error = |errno| self.context.error("read the directory", directory, errno);
        let open = files::open_directory(&self.context.root, directory).map_err(error)?;
        files::names(&open).map_err(error)
    }

    fn enter(
        &mut self,
        mut work: Work,
        name: &[u8],
        todo: &mut Vec<Work>,
    ) -> Result<(), PathError> {
        let path = work.at.join(name);
        let Some(stat) = self.stat(&path)? else { return Ok(()) };
        if stat.kind == FileType::Directory {
            work.at = path;
            todo.push(work);
        } else if stat.kind == FileType::Symlink {
            self.take_leaf(&path, &stat)?;
            let target = self.tree.get(&path).and_then(TreeNode::as_symlink);
            if let Some(target) = target.filter(|_| work.n_links < MAX_LINKS_FOLLOWED) {
                if target.starts_with(b"/") {
                    work.at = TreePath::root();
                }
                work.steps.extend(link_steps(target));
                work.n_links += 1;
                todo.push(work);
            }
        } else if work.steps.is_empty() {
            self.take_leaf(&path, &stat)?;
        }
        Ok(())
    }

    fn stat(&self, path: &TreePath) -> Result<Option<Stat>, PathError> {
        let error = |errno| self.context.error("look at", path, errno);
        let (directory, name) =
            (path.parent().unwrap_or_default(), path.name().unwrap_or_default());
        let result = files::open_directory(&self.context.root, &directory)
            .and_then(|directory| files::stat(directory, name));
        match result {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
            result => result.map(Some).map_err(error),
        }
    }

    /// Whether the directory `path` is excluded, and what holds in it.
    fn ignore_in(&self, path: &TreePath) -> (bool, DirectoryMatch) {
        let rules = &self.context.ignore;
        let mut at = TreePath::root();
        let mut state = (false, rules.at_root());
        for name in path.names() {
            at = at.join(name);
            state = rules.enter(&at, &state.1);
        }
        state
    }

    /// Takes the directory `path` with all that it holds.
    fn take_directory(&mut self, path: &TreePath) -> Result<(), PathError> {
        let node = match self.context.remembered(path) {
            Some(node) => node,
            None => {
                let (excluded, ignore) = self.ignore_in(path);
                if excluded && !self.context.ignore.may_hold_exceptions_below(path) {
                    return Ok(());
                }
                let node = self.context.whole_directory(path, excluded, ignore)?;
                self.context.remember(path, node.as_ref());
                node
            }
        };
        node.map_or(Ok(()), |node| self.insert(path, node))
    }

    /// Takes one file that is not a directory.
    fn take_leaf(&mut self, at: &TreePath, stat: &Stat) -> Result<(), PathError> {
        if self.context.ignore.excludes(at) {
            return Ok(());
        }
        let node = match self.context.remembered(at) {
            Some(node) => node,
            None => {
                let (directory, name) = (at.parent().unwrap_or_default(), at.name());
                let open = files::open_directory(&self.context.root, &directory);
                let open = open.map_err(|errno| self.context.error("read", at, errno))?;
                let (name, path, stat) = (name.unwrap_or_default().into(), at.clone(), *stat);
                let known = self.context.memo.get(&path, &stat.stamp);
                let place = FileInDirectory::new(self.context.directory, path.clone());
                let leaf = self.context.leaf(&open, Seen { name, path, place, stat, known })?;
                if let (Some((stamp, learned)), true) = (&leaf.learned, leaf.was_read) {
                    self.context.memo.add_single(at, *stamp, learned);
                }
                self.context.remember(at, Some(&leaf.node));
                Some(leaf.node)
            }
        };
        node.map_or(Ok(()), |node| self.insert(at, node))
    }

    /// Puts `node` into the tree, its directories with what they are.
    fn insert(&mut self, path: &TreePath, node: TreeNode) -> Result<(), PathError> {
        let mut directory = TreePath::root();
        let parent = path.parent().unwrap_or_default();
        for name in parent.names() {
            directory = directory.join(name);
            if self.tree.get(&directory).is_none() {
                let error = |errno| self.context.error("look at", &directory, errno);
                let open = files::open_directory(&self.context.root, &directory).map_err(error)?;
                let meta = self.context.directory_meta(&open, &directory)?;
                let dir = Dir { meta, children: Children::new() };
                self.tree.insert(&directory, TreeNode::Dir(Arc::new(dir)));
            }
        }
        self.tree.insert(path, node);
        Ok(())
    }
}

/// The steps of a link's target, last first.
fn link_steps(target: &[u8]) -> Vec<Step> {
    let names = target.split(|byte| *byte == b'/').rev();
    let names = names.filter(|name| !name.is_empty() && *name != b".");
    names.map(|name| if name == b".." { Step::Up } else { Step::Plain(name.into()) }).collect()
}
