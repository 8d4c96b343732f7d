//! Files with the file hashes of build contexts, one for each context directory. Their content is
//! opaque here: `context` writes and reads it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::oci::Digest;
use crate::pathio::{self, Context as _, PathError};

use super::{Store, StoreError, private_files};

type Result<T> = std::result::Result<T, StoreError>;

/// The hash caches of a store, `memo/<SHA-256 of the directory's path>`.
#[derive(Debug, Clone, Copy)]
pub struct HashCaches<'a> {
    pub(super) store: &'a Store,
}

impl HashCaches<'_> {
    fn path(self, directory: &Path) -> PathBuf {
        let name = Digest::of(directory.as_os_str().as_bytes()).hex();
        self.store.root().join("memo").join(name)
    }

    /// Opens the hash cache of a context directory; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be opened.
    pub fn open(self, directory: &Path) -> Result<Option<File>> {
        match private_files::open_file(&self.path(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    /// Replaces the hash cache of a context directory by the bytes that `write` writes.
    ///
    /// The file is not synced. A crash may leave a damaged one, which its reader detects; only time
    /// is lost.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be written.
    pub fn replace(
        self,
        directory: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let process = self.store.work.process()?;
        let draft = process.fresh_path();
        let mut file = BufWriter::new(private_files::create_file(&draft)?);
        write(&mut file).and_then(|()| file.flush()).context("write", &draft)?;
        Ok(pathio::rename(&draft, &self.path(directory))?)
    }

    /// Removes the hash cache of a context directory. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be removed.
    pub fn remove(self, directory: &Path) -> Result<bool> {
        let path = self.path(directory);
        match rustix::fs::unlink(&path) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(PathError::new("remove", path, error).into()),
        }
    }
}
