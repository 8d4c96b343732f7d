//! Files of contexts that were written to directories, so that steps can mount them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};

use crate::executor::BuildError;
use crate::pathio::Context as _;
use crate::pool;
use crate::store::{LowerDirectory, WorkDirectory};

/// A directory of files, and the work directory that contains it.
pub(in crate::executor) type ContextDirectory = Arc<(WorkDirectory, LowerDirectory)>;

/// Parts of contexts that were written to directories for mounts of this build.
#[derive(Debug, Default)]
pub(in crate::executor) struct ContextDirectories {
    /// By digest of the selected files. Locked while a directory is written: another step may need
    /// the same one.
    directories: Mutex<BTreeMap<String, ContextDirectory>>,
}

impl ContextDirectories {
    /// Returns the directory with this digest; calls `write` for the first step that needs it.
    pub(in crate::executor) fn get_or_write(
        &self,
        digest: &str,
        write: impl FnOnce() -> Result<WorkDirectory, BuildError>,
    ) -> Result<ContextDirectory, BuildError> {
        // An entry is whole once it is there: a panic while one is made leaves none.
        let mut directories = pool::lock(&self.directories);
        if let Some(known) = directories.get(digest) {
            return Ok(Arc::clone(known));
        }
        let work = write()?;
        let path = work.path().join("fs");
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(&path, flags, Mode::empty()).context("open directory", &path)?;
        let made = Arc::new((work, Arc::new(directory)));
        directories.insert(digest.to_owned(), Arc::clone(&made));
        Ok(made)
    }
}
