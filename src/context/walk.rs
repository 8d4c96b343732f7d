//! Reads a whole directory level by level, the directories of a level in parallel.
//!
//! Not recursive: a context can be nested as deep as paths can be long.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::pathio::PathError;
use crate::pool;
use crate::tree::patterns::DirectoryMatch;
use crate::tree::{
    Children, ContentHash, Dir, File, FileInDirectory, FileOrigin, Leaf, Meta, Node, TreeNode,
    TreePath,
};

use super::Context;
use super::files::{self, Stat};
use super::hash_cache::{DirectoryHashes, FileContent, Stamp};

/// Maximum number of files of a directory that are processed at a time.
const GROUP_LEN: usize = 4096;

/// A directory entry whose metadata were read. Not a directory.
pub(super) struct WalkedEntry {
    pub(super) name: Box<[u8]>,
    pub(super) path: TreePath,
    pub(super) place: FileInDirectory,
    pub(super) stat: Stat,
    /// Its cached content, if unchanged.
    pub(super) known: Option<FileContent>,
}

/// A finished entry, read unless it was cached.
pub(super) struct FinishedEntry {
    name: Box<[u8]>,
    pub(super) node: TreeNode,
    /// The content to cache.
    pub(super) file_content: Option<(Stamp, FileContent)>,
    /// True if it was not cached.
    pub(super) was_read: bool,
}

/// A directory that is queued for reading.
struct PendingDirectory {
    path: TreePath,
    /// True if the ignore file excludes it, so that only exceptions in it count.
    excluded: bool,
    ignore: DirectoryMatch,
    /// Index of its parent in the list of directories.
    parent: Option<usize>,
}

/// A directory that was read, without its subdirectories.
struct ReadDirectory {
    path: TreePath,
    excluded: bool,
    parent: Option<usize>,
    meta: Meta,
    children: Children,
}

/// Applies `work` to all items in parallel, or on the caller's thread if the system allows no more
/// threads. Rayon's global pool would panic then.
fn in_parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    static THREADS: OnceLock<Option<rayon::ThreadPool>> = OnceLock::new();
    let threads = THREADS.get_or_init(|| rayon::ThreadPoolBuilder::new().build().ok());
    match threads {
        Some(threads) => threads.install(|| items.into_par_iter().map(work).collect()),
        None => items.into_iter().map(work).collect(),
    }
}

impl Context {
    /// Reads the directory at `path` with all content that the ignore file includes. `None` if it
    /// is excluded without exceptions.
    pub(super) fn whole_directory(
        &self,
        path: &TreePath,
        excluded: bool,
        ignore: DirectoryMatch,
    ) -> Result<Option<TreeNode>, PathError> {
        let mut found: Vec<ReadDirectory> = Vec::new();
        let mut level =
            vec![PendingDirectory { path: path.clone(), excluded, ignore, parent: None }];
        while !level.is_empty() {
            let n_before = found.len();
            let results = in_parallel(level.iter().collect(), |todo| self.one_directory(todo));
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

    fn one_directory(
        &self,
        todo: &PendingDirectory,
    ) -> Result<(ReadDirectory, Vec<PendingDirectory>), PathError> {
        let path = &todo.path;
        let error = |errno| self.error("read the directory", path, errno);
        let directory = files::open_directory(&self.root, path).map_err(error)?;
        let meta = self.directory_meta(&directory, path)?;
        let (mut below, mut children) = (Vec::new(), Children::new());
        let mut directory_hashes = self.hashes.directory(path);
        let names = files::names(&directory).map_err(error)?;
        let names = names.iter().map(|name| &**name);
        let mut files =
            FileInDirectory::all(self.directory, path, names.clone()).zip(names).peekable();
        while files.peek().is_some() {
            let group = files.by_ref().take(GROUP_LEN);
            let seen =
                self.stat_entries(&directory, group, todo, &mut directory_hashes, &mut below)?;
            for leaf in self.leaves(&directory, seen)? {
                if let Some((stamp, file_content)) = &leaf.file_content {
                    self.hashes.add(
                        &mut directory_hashes,
                        &leaf.name,
                        (stamp, file_content),
                        leaf.was_read,
                    );
                }
                children.insert(&leaf.name, leaf.node);
            }
        }
        children.shrink();
        let kept = self.hashes.finish(path, &directory_hashes);
        kept.map_err(|error| PathError::new("remember the files of", path.as_path(), error))?;
        let (excluded, parent) = (todo.excluded, todo.parent);
        Ok((ReadDirectory { path: path.clone(), excluded, parent, meta, children }, below))
    }

    /// Reads the metadata of files of a directory. Returns the included files that are not
    /// directories, and adds directories to `below`.
    fn stat_entries<'a>(
        &self,
        directory: &OwnedFd,
        files: impl Iterator<Item = (FileInDirectory, &'a [u8])>,
        todo: &PendingDirectory,
        directory_hashes: &mut DirectoryHashes,
        below: &mut Vec<PendingDirectory>,
    ) -> Result<Vec<WalkedEntry>, PathError> {
        let mut seen = Vec::with_capacity(files.size_hint().0);
        for (place, name) in files {
            let path = todo.path.join(name);
            let stat = match files::stat(directory, name) {
                // Removed since getdents64(2).
                Err(Errno::NOENT) => continue,
                result => result.map_err(|errno| self.error("look at", &path, errno))?,
            };
            if stat.kind != FileType::Directory {
                if !self.ignore.excludes_in(&path, &todo.ignore) {
                    let known = directory_hashes.get(name, &stat.stamp);
                    seen.push(WalkedEntry { name: name.into(), path, place, stat, known });
                }
                continue;
            }
            let (excluded, ignore) = self.ignore.enter(&path, &todo.ignore);
            if !excluded || self.ignore.may_hold_exceptions_below(&path) {
                below.push(PendingDirectory { path, excluded, ignore, parent: None });
            }
        }
        Ok(seen)
    }

    fn leaves(
        &self,
        directory: &OwnedFd,
        seen: Vec<WalkedEntry>,
    ) -> Result<Vec<FinishedEntry>, PathError> {
        // Most directories are small or cached: distributing their files to threads costs more than
        // it saves.
        let needs_reading =
            |seen: &&WalkedEntry| seen.stat.kind == FileType::RegularFile && seen.known.is_none();
        if seen.iter().filter(needs_reading).nth(8).is_none() {
            return seen.into_iter().map(|seen| self.leaf(directory, seen)).collect();
        }
        let results = in_parallel(seen, |seen| self.leaf(directory, seen));
        results.into_iter().collect()
    }

    /// Makes the node of an entry of `directory` that is not a directory.
    pub(super) fn leaf(
        &self,
        directory: &OwnedFd,
        seen: WalkedEntry,
    ) -> Result<FinishedEntry, PathError> {
        let WalkedEntry { name, path, place, stat, known } = seen;
        let meta = Meta::root(stat.mode, stat.mtime_s);
        let node = match stat.kind {
            FileType::RegularFile => {
                self.check_length(&path, stat.stamp.size)?;
                let was_read = known.is_none();
                let (stat, file_content) = match known {
                    Some(file_content) => (stat, file_content),
                    None if self.is_stopped.load(Ordering::Relaxed) => {
                        return Err(self.error("read", &path, Errno::CANCELED));
                    }
                    None => files::read_content(directory, &TreePath::root().join(&name))
                        .map_err(|errno| self.error("read", &path, errno))?,
                };
                let node = self.file(place, &stat, &file_content);
                let file_content = Some((stat.stamp, file_content));
                return Ok(FinishedEntry { name, node, file_content, was_read });
            }
            FileType::Symlink => {
                let target = files::link_target(directory, &name);
                Node::Symlink(target.map_err(|errno| self.error("read the link", &path, errno))?)
            }
            FileType::Fifo => Node::Fifo,
            FileType::CharacterDevice => Node::CharDevice(stat.device),
            FileType::BlockDevice => Node::BlockDevice(stat.device),
            // A tar cannot store a socket. BuildKit makes an empty file of it.
            FileType::Socket | FileType::Unknown | FileType::Directory => Node::File(File {
                size: 0,
                content: ContentHash::of(b""),
                origin: FileOrigin::Inline([].into()),
            }),
        };
        let node = TreeNode::Leaf(Leaf::new(meta, node));
        Ok(FinishedEntry { name, node, file_content: None, was_read: false })
    }

    fn file(&self, place: FileInDirectory, stat: &Stat, file_content: &FileContent) -> TreeNode {
        let origin = FileOrigin::Directory(place);
        let file = File { size: stat.stamp.size, content: file_content.content, origin };
        let meta =
            Meta { xattrs: file_content.xattrs.clone(), ..Meta::root(stat.mode, stat.mtime_s) };
        let mut leaf = Leaf::new(meta, Node::File(file));
        if stat.n_links < 2 {
            return TreeNode::Leaf(leaf);
        }
        let identity = (stat.stamp.device, stat.stamp.inode, stat.stamp.ctime_ns);
        let mut linked = pool::lock(&self.linked);
        TreeNode::Leaf(linked.entry(identity).or_insert_with(|| leaf.link()).clone())
    }

    /// Returns the metadata of an open directory.
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

/// Inserts directories into their parents, which precede them in the list.
fn assemble(mut found: Vec<ReadDirectory>) -> Option<TreeNode> {
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
