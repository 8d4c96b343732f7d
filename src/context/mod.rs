//! Lists and hashes a build context under its ignore file; never leaves its root.
//!
//! Only what a step asks for is read. Every file is opened relative to the root's descriptor and
//! without following links, so that no link, not even one that appears during the walk, can lead
//! outside; links named by a step are followed by name inside the root.

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
use std::sync::{Mutex, PoisonError};

use crate::diag;
use crate::limits;
use crate::pathio::{Context as _, PathError};
use crate::tree::{Leaf, Tree, TreeNode, TreePath};

pub use hash_cache::HashMemo;
pub use ignore::{IgnoreError, IgnoreLine, IgnoreRules, parse_ignore};

/// What tells that two names are one file: device, inode, and ctime in nanoseconds.
type Identity = (u64, u64, i64);

/// An opened context directory. What was read once is remembered for later steps.
#[derive(Debug)]
pub struct Context {
    root: OwnedFd,
    path: PathBuf,
    ignore: IgnoreRules,
    directory: u32,
    memo: HashMemo,
    /// A longer file is not read.
    max_file_bytes: u64,
    /// Files and directories that were read completely, by path. Steps run on several threads.
    whole: Mutex<HashMap<TreePath, Option<TreeNode>>>,
    /// Files with several names, so that all of them share one leaf.
    linked: Mutex<HashMap<Identity, Leaf>>,
}

impl Context {
    /// Opens the directory at `path`. Its files' origin will be [`crate::tree::FileOrigin::Directory`]
    /// with the number `directory`.
    ///
    /// # Errors
    /// The kernel's, when it is not a directory or may not be read.
    pub fn open(
        path: &Path,
        ignore: IgnoreRules,
        directory: u32,
        memo: HashMemo,
    ) -> Result<Self, PathError> {
        let root = files::open_root(path).context("open the build context", path)?;
        let (whole, linked) = (Mutex::default(), Mutex::default());
        let (path, max_file_bytes) = (path.to_owned(), limits::MAX_UNPACKED_BYTES);
        Ok(Self { root, path, ignore, directory, memo, max_file_bytes, whole, linked })
    }

    /// Sets how long a file may be. Without it, [`limits::MAX_UNPACKED_BYTES`] holds.
    #[must_use]
    pub fn with_max_file(mut self, max_bytes: u64) -> Self {
        self.max_file_bytes = max_bytes;
        self
    }

    /// The part of the context that these sources of a COPY can name, literal paths or patterns:
    /// links on the way bring their targets along, ignored files are absent, all belongs to root.
    ///
    /// A source that names nothing is no error here.
    ///
    /// # Errors
    /// The kernel's, for a file that is named and cannot be read.
    pub fn tree(&self, sources: &[&str]) -> Result<Tree, PathError> {
        copy_sources::tree(self, sources)
    }

    /// The line of the ignore file that excludes `path`, which exists.
    #[must_use]
    pub fn ignored_by(&self, path: &TreePath) -> Option<&IgnoreLine> {
        let line = self.ignore.excluding(path)?;
        files::open_in_root(&self.root, path).is_ok().then_some(line)
    }

    /// The path most like `path`, which does not exist: the first name of it that is wrong is
    /// replaced by the nearest one that its directory has.
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
    /// The kernel's; also when a link is on the way, which the path of a
    /// [`crate::tree::FileOrigin::Directory`] never has.
    pub fn read(&self, path: &TreePath) -> Result<File, PathError> {
        files::open_file(&self.root, path)
            .map(File::from)
            .map_err(|error| self.error("read", path, error))
    }

    /// What is remembered of the files for the next build.
    #[must_use]
    pub const fn memo(&self) -> &HashMemo {
        &self.memo
    }

    /// Checks before a file is hashed that it is no longer than any layer may be: a sparse file takes
    /// its author no space, and hashing a TiB takes a quarter of an hour.
    fn check_length(&self, path: &TreePath, n_bytes: u64) -> Result<(), PathError> {
        let limit = self.max_file_bytes;
        if n_bytes <= limit {
            return Ok(());
        }
        let text = format!(
            "it has {n_bytes} bytes, more than the limit of {limit}; name it in .dockerignore, or \
             raise the limit with --max-unpacked-size"
        );
        let error = io::Error::new(io::ErrorKind::FileTooLarge, text);
        Err(PathError::new("read", self.path.join(path.as_path()), error))
    }

    fn error(&self, verb: &'static str, path: &TreePath, source: rustix::io::Errno) -> PathError {
        PathError::new(verb, self.path.join(path.as_path()), source)
    }

    /// What was read before of `path`, alone or as part of a directory.
    fn remembered(&self, path: &TreePath) -> Option<Option<TreeNode>> {
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole.insert(path.clone(), node.cloned());
    }
}

fn node_below(node: &TreeNode, below: &TreePath) -> Option<TreeNode> {
    below.names().try_fold(node, |node, name| node.as_dir()?.children.get(name)).cloned()
}
