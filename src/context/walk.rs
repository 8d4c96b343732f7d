//! Reads a whole directory, its levels one after the other, the directories of a level side by side.
//!
//! Not recursive: a context can be nested as deep as paths can be long.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, PoisonError};

use rayon::prelude::*;
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::pathio::PathError;
use crate::tree::patterns::DirectoryMatch;
use crate::tree::{
    Children, ContentHash, Dir, File, FileInDirectory, FileOrigin, Leaf, Meta, Node, TreeNode,
    TreePath,
};

use super::Context;
use super::files::{self, Stat};
use super::hash_cache::{DirectoryMemo, Learned, Stamp};

/// Files of a directory are looked at in groups of at most this many.
const GROUP_LEN: usize = 4096;

/// A file that was looked at.
pub(super) struct Seen {
    pub(super) name: Box<[u8]>,
    pub(super) path: TreePath,
    pub(super) place: FileInDirectory,
    pub(super) stat: Stat,
    /// What is remembered of it.
    pub(super) known: Option<Learned>,
}

/// A file that was read, if it had to be.
pub(super) struct Leafed {
    name: Box<[u8]>,
    pub(super) node: TreeNode,
    /// What is to be remembered of it.
    pub(super) learned: Option<(Stamp, Learned)>,
    /// Whether that is new.
    pub(super) was_read: bool,
}

/// A directory that is still to be read.
struct Todo {
    path: TreePath,
    /// Whether the ignore file excludes it, and only what it takes back counts.
    excluded: bool,
    ignore: DirectoryMatch,
    /// Its parent's place in the list of directories.
    parent: Option<usize>,
}

/// A directory that was read.
struct Found {
    path: TreePath,
    excluded: bool,
    parent: Option<usize>,
    meta: Meta,
    children: Children,
}

/// Applies `work` to all items on several threads; on the caller's if the system lets this process
/// start no more. Rayon's own pool panics then.
fn side_by_side<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    static THREADS: OnceLock<Option<rayon::ThreadPool>> = OnceLock::new();
    let threads = THREADS.get_or_init(|| rayon::ThreadPoolBuilder::new().build().ok());
    match threads {
        Some(threads) => threads.install(|| items.into_par_iter().map(work).collect()),
        None => items.into_iter().map(work).collect(),
    }
}

impl Context {
    /// The directory at `path` with all that it holds and the ignore file lets through; `None` when
    /// it is excluded and nothing in it is taken back.
    pub(super) fn whole_directory(
        &self,
        path: &TreePath,
        excluded: bool,
        ignore: DirectoryMatch,
    ) -> Result<Option<TreeNode>, PathError> {
        let mut found: Vec<Found> = Vec::new();
        let mut level = vec![Todo { path: path.clone(), excluded, ignore, parent: None }];
        while !level.is_empty() {
            let n_before = found.len();
            let results = side_by_side(level.iter().collect(), |todo| self.one_directory(todo));
            let mut next = Vec::new();
            for (at, result) in results.into_iter().enumerate() {
                let (directory, mut below) = result?;
                below.iter_mut().for_each(|todo| todo.parent = Some(n_before + at));
                found.push(directory);
                next.append(&mut below);
            }
            level = next;
        }
        Ok(assemble(found))
    }

    fn one_directory(&self, todo: &Todo) -> Result<(Found, Vec<Todo>), PathError> {
        let path = &todo.path;
        let error = |errno| self.error("read the directory", path, errno);
        let directory = files::open_directory(&self.root, path).map_err(error)?;
        let meta = self.directory_meta(&directory, path)?;
        let (mut below, mut children) = (Vec::new(), Children::new());
        let mut memo = self.memo.directory(path);
        let names = files::names(&directory).map_err(error)?;
        let names = names.iter().map(|name| &**name);
        let mut files =
            FileInDirectory::all(self.directory, path, names.clone()).zip(names).peekable();
        while files.peek().is_some() {
            let group = files.by_ref().take(GROUP_LEN);
            let seen = self.look_at(&directory, group, todo, &mut memo, &mut below)?;
            for leaf in self.leaves(&directory, seen)? {
                if let Some((stamp, learned)) = &leaf.learned {
                    self.memo.add(&mut memo, &leaf.name, (stamp, learned), leaf.was_read);
                }
                children.insert(&leaf.name, leaf.node);
            }
        }
        children.shrink();
        let kept = self.memo.finish(path, &memo);
        kept.map_err(|error| PathError::new("remember the files of", path.as_path(), error))?;
        let (excluded, parent) = (todo.excluded, todo.parent);
        Ok((Found { path: path.clone(), excluded, parent, meta, children }, below))
    }

    /// Looks at files of a directory: gives those that are not directories and not excluded, and adds those
    /// that are directories to `below`.
    fn look_at<'a>(
        &self,
        directory: &OwnedFd,
        files: impl Iterator<Item = (FileInDirectory, &'a [u8])>,
        todo: &Todo,
        memo: &mut DirectoryMemo,
        below: &mut Vec<Todo>,
    ) -> Result<Vec<Seen>, PathError> {
        let mut seen = Vec::with_capacity(files.size_hint().0);
        for (place, name) in files {
            let path = todo.path.join(name);
            let stat = match files::stat(directory, name) {
                // Removed since its name was read.
                Err(Errno::NOENT) => continue,
                result => result.map_err(|errno| self.error("look at", &path, errno))?,
            };
            if stat.kind != FileType::Directory {
                if !self.ignore.excludes_in(&path, &todo.ignore) {
                    let known = memo.get(name, &stat.stamp);
                    seen.push(Seen { name: name.into(), path, place, stat, known });
                }
                continue;
            }
            let (excluded, ignore) = self.ignore.enter(&path, &todo.ignore);
            if !excluded || self.ignore.may_hold_exceptions_below(&path) {
                below.push(Todo { path, excluded, ignore, parent: None });
            }
        }
        Ok(seen)
    }

    fn leaves(&self, directory: &OwnedFd, seen: Vec<Seen>) -> Result<Vec<Leafed>, PathError> {
        // Most directories are small or need no reading; handing their files around costs more.
        let needs_reading =
            |seen: &&Seen| seen.stat.kind == FileType::RegularFile && seen.known.is_none();
        if seen.iter().filter(needs_reading).nth(8).is_none() {
            return seen.into_iter().map(|seen| self.leaf(directory, seen)).collect();
        }
        let results = side_by_side(seen, |seen| self.leaf(directory, seen));
        results.into_iter().collect()
    }

    /// A file in `directory` that is not a directory.
    pub(super) fn leaf(&self, directory: &OwnedFd, seen: Seen) -> Result<Leafed, PathError> {
        let Seen { name, path, place, stat, known } = seen;
        let meta = Meta::root(stat.mode, stat.mtime_s);
        let node = match stat.kind {
            FileType::RegularFile => {
                self.check_length(&path, stat.stamp.size)?;
                let was_read = known.is_none();
                let (stat, learned) = match known {
                    Some(learned) => (stat, learned),
                    None => files::learn(directory, &TreePath::root().join(&name))
                        .map_err(|errno| self.error("read", &path, errno))?,
                };
                let node = self.file(place, &stat, &learned);
                let learned = Some((stat.stamp, learned));
                return Ok(Leafed { name, node, learned, was_read });
            }
            FileType::Symlink => {
                let target = files::link_target(directory, &name);
                Node::Symlink(target.map_err(|errno| self.error("read the link", &path, errno))?)
            }
            FileType::Fifo => Node::Fifo,
            FileType::CharacterDevice => Node::CharDevice(stat.device),
            FileType::BlockDevice => Node::BlockDevice(stat.device),
            // BuildKit makes an empty file of a socket, which a tar cannot hold.
            FileType::Socket | FileType::Unknown | FileType::Directory => Node::File(File {
                size: 0,
                content: ContentHash::of(b""),
                origin: FileOrigin::Inline([].into()),
            }),
        };
        let node = TreeNode::Leaf(Leaf::new(meta, node));
        Ok(Leafed { name, node, learned: None, was_read: false })
    }

    fn file(&self, place: FileInDirectory, stat: &Stat, learned: &Learned) -> TreeNode {
        let origin = FileOrigin::Directory(place);
        let file = File { size: stat.stamp.size, content: learned.content, origin };
        let meta = Meta { xattrs: learned.xattrs.clone(), ..Meta::root(stat.mode, stat.mtime_s) };
        let mut leaf = Leaf::new(meta, Node::File(file));
        if stat.n_links < 2 {
            return TreeNode::Leaf(leaf);
        }
        let identity = (stat.stamp.device, stat.stamp.inode, stat.stamp.ctime_ns);
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        TreeNode::Leaf(linked.entry(identity).or_insert_with(|| leaf.link()).clone())
    }

    /// An open directory's properties.
    pub(super) fn directory_meta(
        &self,
        directory: &OwnedFd,
        path: &TreePath,
    ) -> Result<Meta, PathError> {
        let error = |errno| self.error("look at", path, errno);
        let stat = files::stat_open(directory).map_err(error)?;
        let xattrs = files::xattrs(directory).map_err(error)?;
        Ok(Meta { xattrs, ..Meta::root(stat.mode, stat.mtime_s) })
    }
}

/// Puts directories into their parents, which come before them in the list.
fn assemble(mut found: Vec<Found>) -> Option<TreeNode> {
    while let Some(directory) = found.pop() {
        let children = directory.children;
        let is_part = !directory.excluded || !children.is_empty();
        let node = is_part.then(|| TreeNode::Dir(Arc::new(Dir { meta: directory.meta, children })));
        let Some(parent) = directory.parent.and_then(|at| found.get_mut(at)) else { return node };
        if let (Some(node), Some(name)) = (node, directory.path.name()) {
            parent.children.insert(name, node);
        }
    }
    None
}
