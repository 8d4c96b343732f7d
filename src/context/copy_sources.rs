//! Resolves the sources of a COPY to the parts of the context that they can refer to.

use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::limits::MAX_LINKS_FOLLOWED;
use crate::pathio::PathError;
use crate::tree::glob::{self, DoubleStar, Glob};
use crate::tree::patterns::DirectoryMatch;
use crate::tree::{Children, Dir, FileInDirectory, Tree, TreeNode, TreePath};

use super::files::Stat;
use super::walk::WalkedEntry;
use super::{Context, files};

/// One component of a source path.
#[derive(Clone)]
enum PathStep {
    /// A name without wildcards.
    Plain(Box<[u8]>),
    /// A pattern for one name (<https://docs.docker.com/reference/dockerfile/#pattern-matching>).
    Wild(Glob),
    /// `**`: any number of directories, so everything below.
    Deep,
    /// `..`, in the target of a link.
    Up,
}

/// A partly resolved source: a position and the remaining components, last first.
struct PendingSource {
    at: TreePath,
    steps: Vec<PathStep>,
    n_links: usize,
}

/// Implements [`Context::tree`] for the given sources.
pub(super) fn tree(context: &Context, sources: &[&str]) -> Result<Tree, PathError> {
    let root = context.directory_meta(&context.root, &TreePath::root())?;
    let dir = Dir { meta: root, children: Children::new() };
    let mut resolver = SourceResolver { context, tree: Tree::new(Arc::new(dir)) };
    for source in sources {
        let steps = source_steps(source);
        let mut todo = vec![PendingSource { at: TreePath::root(), steps, n_links: 0 }];
        while let Some(work) = todo.pop() {
            resolver.resolve_step(work, &mut todo)?;
        }
    }
    Ok(resolver.tree)
}

/// Splits a source into components, last first. Resolves `.` and `..`.
fn source_steps(source: &str) -> Vec<PathStep> {
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

fn step(name: &str) -> PathStep {
    if name.contains("**") {
        return PathStep::Deep;
    }
    let plain = PathStep::Plain(name.as_bytes().into());
    if !glob::has_wildcard(name) && !name.contains('\\') {
        return plain;
    }
    // An invalid pattern matches nothing here. The copy reports the error.
    Glob::new(name, DoubleStar::AsSingle).map_or(plain, PathStep::Wild)
}

struct SourceResolver<'a> {
    context: &'a Context,
    tree: Tree,
}

impl SourceResolver<'_> {
    /// Resolves one component and queues the rest in `todo`.
    fn resolve_step(
        &mut self,
        mut work: PendingSource,
        todo: &mut Vec<PendingSource>,
    ) -> Result<(), PathError> {
        match work.steps.pop() {
            None | Some(PathStep::Deep) => self.add_directory(&work.at),
            Some(PathStep::Up) => {
                work.at = work.at.parent().unwrap_or_default();
                todo.push(work);
                Ok(())
            }
            Some(PathStep::Plain(name)) => self.enter(work, &name, todo),
            Some(PathStep::Wild(glob)) => {
                for name in self.names(&work.at)?.into_iter().filter(|name| glob.matches(name)) {
                    let mut steps = work.steps.clone();
                    steps.push(PathStep::Plain(name));
                    todo.push(PendingSource { at: work.at.clone(), steps, n_links: work.n_links });
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
        mut work: PendingSource,
        name: &[u8],
        todo: &mut Vec<PendingSource>,
    ) -> Result<(), PathError> {
        let path = work.at.join(name);
        let Some(stat) = self.stat(&path)? else { return Ok(()) };
        if stat.kind == FileType::Directory {
            work.at = path;
            todo.push(work);
        } else if stat.kind == FileType::Symlink {
            self.add_leaf(&path, &stat)?;
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
            self.add_leaf(&path, &stat)?;
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

    /// Returns whether the directory `path` is excluded, and the state of the rules in it.
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

    /// Adds the directory `path` with its content.
    fn add_directory(&mut self, path: &TreePath) -> Result<(), PathError> {
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

    /// Adds a single file that is not a directory.
    fn add_leaf(&mut self, at: &TreePath, stat: &Stat) -> Result<(), PathError> {
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
                let known = self.context.hashes.get(&path, &stat.stamp);
                let place = FileInDirectory::new(self.context.directory, path.clone());
                let leaf =
                    self.context.leaf(&open, WalkedEntry { name, path, place, stat, known })?;
                if let (Some((stamp, file_content)), true) = (&leaf.file_content, leaf.was_read) {
                    self.context.hashes.add_single(at, *stamp, file_content);
                }
                self.context.remember(at, Some(&leaf.node));
                Some(leaf.node)
            }
        };
        node.map_or(Ok(()), |node| self.insert(at, node))
    }

    /// Inserts `node` into the tree, with its parent directories.
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

/// Splits the target of a link into components, last first.
fn link_steps(target: &[u8]) -> Vec<PathStep> {
    let names = target.split(|byte| *byte == b'/').rev();
    let names = names.filter(|name| !name.is_empty() && *name != b".");
    names
        .map(|name| if name == b".." { PathStep::Up } else { PathStep::Plain(name.into()) })
        .collect()
}
