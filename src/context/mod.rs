//! Lists and hashes a build context under its ignore file. Never leaves the context's root.
//!
//! Only files that a step needs are read. Every file is opened relative to the root's descriptor
//! and without following links (openat2(2)), so that no link, not even one that appears during the
//! walk, leads outside. Links in a step's source are resolved by name inside the root.

mod copy_sources;
mod files;
pub mod git;
mod hash_cache;
mod ignore;
mod walk;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::diag;
use crate::limits;
use crate::pathio::{Context as _, PathError};
use crate::pool;
use crate::tree::{Leaf, Tree, TreeNode, TreePath};

pub use hash_cache::HashCache;
pub use ignore::{IgnoreError, IgnoreLine, IgnoreRules, parse_ignore};

/// Identifies a file with several names: device, inode, and ctime in nanoseconds (statx(2)).
type FileIdentity = (u64, u64, i64);

/// An opened context directory. Content that was read is kept for later steps.
#[derive(Debug)]
pub struct Context {
    root: OwnedFd,
    path: PathBuf,
    ignore: IgnoreRules,
    directory: u32,
    hashes: HashCache,
    /// Maximum size of a file in bytes.
    max_file_bytes: u64,
    /// Files and directories that were read completely, by path. Steps run on several threads.
    whole: Mutex<HashMap<TreePath, Option<TreeNode>>>,
    /// Files with several names, so that all of them share one leaf.
    linked: Mutex<HashMap<FileIdentity, Leaf>>,
    is_stopped: AtomicBool,
}

impl Context {
    /// Opens the directory at `path`. The origin of its files is
    /// [`crate::tree::FileOrigin::Directory`] with the number `directory`.
    ///
    /// # Errors
    /// The kernel's error, if it is not a directory or access is denied.
    pub fn open(
        path: &Path,
        ignore: IgnoreRules,
        directory: u32,
        hashes: HashCache,
    ) -> Result<Self, PathError> {
        let root = files::open_root(path).context("open the build context", path)?;
        let (whole, linked) = (Mutex::default(), Mutex::default());
        let (path, max_file_bytes) = (path.to_owned(), limits::MAX_UNPACKED_BYTES);
        let is_stopped = AtomicBool::new(false);
        Ok(Self {
            root,
            path,
            ignore,
            directory,
            hashes,
            max_file_bytes,
            whole,
            linked,
            is_stopped,
        })
    }

    /// Sets the maximum size of a file. The default is [`limits::MAX_UNPACKED_BYTES`].
    #[must_use]
    pub fn with_max_file(mut self, max_bytes: u64) -> Self {
        self.max_file_bytes = max_bytes;
        self
    }

    /// Makes a thread that hashes files end with an error, before its next file.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Returns the part of the context that these sources of a COPY can refer to, literal paths or
    /// patterns. Links in the path include their targets, ignored files are omitted, and root owns
    /// everything.
    ///
    /// A source without a match is not an error here.
    ///
    /// # Errors
    /// The kernel's error, for a matching file that cannot be read.
    pub fn tree(&self, sources: &[&str]) -> Result<Tree, PathError> {
        copy_sources::tree(self, sources)
    }

    /// Returns the line of the ignore file that excludes `path`. `None` if `path` does not exist.
    #[must_use]
    pub fn ignored_by(&self, path: &TreePath) -> Option<&IgnoreLine> {
        let line = self.ignore.excluding(path)?;
        files::open_in_root(&self.root, path).is_ok().then_some(line)
    }

    /// Suggests a path similar to the missing `path`: its first wrong name is replaced by the
    /// nearest one in that directory.
    #[must_use]
    pub fn nearest(&self, path: &TreePath) -> Option<TreePath> {
        let mut directory = TreePath::root();
        let mut names = path.names();
        let wrong = names.by_ref().find(|name| {
            let at = directory.join(name);
            let exists = files::open_in_root(&self.root, &at).is_ok();
            if exists {
                directory = at;
            }
            !exists
        })?;
        let siblings = files::names(files::open_directory(&self.root, &directory).ok()?).ok()?;
        let siblings = siblings.iter().filter(|name| !self.ignore.excludes(&directory.join(name)));
        let siblings = siblings.filter_map(|name| std::str::from_utf8(name).ok());
        let near = diag::nearest(std::str::from_utf8(wrong).ok()?, siblings)?;
        Some(names.fold(directory.join(near.as_bytes()), |path, name| path.join(name)))
    }

    /// Opens a regular file of this context for reading.
    ///
    /// # Errors
    /// The kernel's error; also for a link in the path, which
    /// [`crate::tree::FileOrigin::Directory`] never has.
    pub fn read(&self, path: &TreePath) -> Result<File, PathError> {
        files::open_file(&self.root, path)
            .map(File::from)
            .map_err(|error| self.error("read", path, error))
    }

    /// Returns the hashes of the files, for the next build.
    #[must_use]
    pub const fn hashes(&self) -> &HashCache {
        &self.hashes
    }

    /// Checks a file's size before it is hashed: a sparse file costs its author no space, and
    /// hashing a TiB takes a quarter of an hour.
    fn check_length(&self, path: &TreePath, n_bytes: u64) -> Result<(), PathError> {
        let limit = self.max_file_bytes;
        if n_bytes <= limit {
            return Ok(());
        }
        let text = format!(
            "it has {n_bytes} bytes, more than the limit of {limit}; exclude it in .dockerignore, or \
             raise the limit with --max-unpacked-size"
        );
        let error = io::Error::new(io::ErrorKind::FileTooLarge, text);
        Err(PathError::new("read", self.path.join(path.as_path()), error))
    }

    fn error(&self, verb: &'static str, path: &TreePath, source: rustix::io::Errno) -> PathError {
        PathError::new(verb, self.path.join(path.as_path()), source)
    }

    /// Returns the node of `path` if it was read before, alone or as part of a directory.
    fn remembered(&self, path: &TreePath) -> Option<Option<TreeNode>> {
        let whole = pool::lock(&self.whole);
        let mut directory = path.clone();
        loop {
            if let Some(node) = whole.get(&directory) {
                let below = path.below(&directory)?;
                return Some(node.as_ref().and_then(|node| node_below(node, &below)));
            }
            directory = directory.parent()?;
        }
    }

    fn remember(&self, path: &TreePath, node: Option<&TreeNode>) {
        let mut whole = pool::lock(&self.whole);
        whole.insert(path.clone(), node.cloned());
    }
}

fn node_below(node: &TreeNode, below: &TreePath) -> Option<TreeNode> {
    below.names().try_fold(node, |node, name| node.as_dir()?.children.get(name)).cloned()
}
