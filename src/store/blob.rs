//! Blobs by digest, and drafts that become blobs.

use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use crate::oci::{Digest, Hasher};
use crate::pathio::holes::{self, ByteRun};
use crate::pathio::{self, Context as _, PathError};

use super::space::{self, SpaceGuard};
use super::work::ProcessDirectory;
use super::{Store, StoreError, guard};

/// A blob in the making: hashed while it is written, removed when dropped before it is published.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    space: SpaceGuard,
    /// Bytes of zeros that were left out, where they count as if they took space.
    zeros: Option<u64>,
    published: bool,
    _process: Arc<ProcessDirectory>,
}

impl Write for Draft {
    /// Leaves zeros out of the file: the content of sparse files and of bombs.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = match holes::first_run(bytes, self.n_bytes()) {
            ByteRun::Hole(n_bytes) => self.leave_out(n_bytes)?,
            ByteRun::Data(n_bytes) => {
                let data = bytes.get(..n_bytes).unwrap_or(bytes);
                self.space
                    .need(&self.file, u64::try_from(n_bytes).unwrap_or(u64::MAX))?
                    .map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
                self.file.write(data)?
            }
        };
        self.hasher.update(bytes.get(..n_bytes).unwrap_or_default());
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Draft {
    /// How many bytes were written.
    #[must_use]
    pub const fn n_bytes(&self) -> u64 {
        self.hasher.n_bytes()
    }

    fn leave_out(&mut self, n_zeros: usize) -> io::Result<usize> {
        let n_more = u64::try_from(n_zeros).unwrap_or(u64::MAX);
        if let Some(zeros) = &mut self.zeros {
            *zeros = zeros.saturating_add(n_more);
            space::check(&self.file, *zeros)?
                .map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
        }
        let end = self.n_bytes().saturating_add(n_more);
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end))?;
        Ok(n_zeros)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            let _gone = rustix::fs::unlink(&self.path);
        }
    }
}

/// A blob that is hashed while it is read. If it is not what its name says, its end is an error, and
/// it is removed from the store: whoever needs it makes it again.
#[derive(Debug)]
pub struct CheckedBlob {
    file: File,
    path: PathBuf,
    digest: Digest,
    /// `None` once the end was seen.
    hasher: Option<Hasher>,
}

impl CheckedBlob {
    /// Reads what is left, and checks the whole.
    ///
    /// # Errors
    /// The kernel's, with the path; [`StoreError::Corrupt`] inside of it.
    pub fn check(mut self) -> Result<(), PathError> {
        let path = self.path.clone();
        io::copy(&mut self, &mut io::sink()).map(drop).context("read", &path)
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        match hasher.finish() {
            got if got == self.digest => Ok(()),
            got => {
                let is_removed = rustix::fs::unlink(&self.path).is_ok();
                let want = self.digest;
                Err(io::Error::other(StoreError::Corrupt { want, got, is_removed }))
            }
        }
    }
}

impl Read for CheckedBlob {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.file.read(to)?;
        if n_bytes == 0 && !to.is_empty() {
            self.end()?;
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(to.get(..n_bytes).unwrap_or_default());
        }
        Ok(n_bytes)
    }
}

impl Store {
    fn blob_path(&self, digest: Digest) -> PathBuf {
        // Each use is one call on the map: a panic elsewhere leaves it whole.
        let own = self.own_blobs.lock().unwrap_or_else(PoisonError::into_inner);
        own.get(&digest).cloned().unwrap_or_else(|| self.shared_path(digest))
    }

    fn shared_path(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Starts a blob.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn draft(&self) -> Result<Draft, StoreError> {
        let process = self.process_directory()?;
        let path = process.fresh();
        let file = guard::create_file(&path)?;
        let (hasher, space) = (Hasher::new(), SpaceGuard::default());
        Ok(Draft { path, file, hasher, space, zeros: None, published: false, _process: process })
    }

    /// Starts a blob that must find space in the store even if it consists of zeros, which a draft
    /// otherwise leaves out: for a file whose sender decides when it ends.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn bounded_draft(&self) -> Result<Draft, StoreError> {
        let mut draft = self.draft()?;
        draft.zeros = Some(0);
        Ok(draft)
    }

    /// Gives the finished draft its name; that the blob is there already is success.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn publish(&self, mut draft: Draft) -> Result<(Digest, u64), StoreError> {
        let n_bytes = draft.n_bytes();
        let digest = std::mem::take(&mut draft.hasher).finish();
        let path = self.shared_path(digest);
        rustix::fs::fdatasync(&draft.file).context("write", &draft.path)?;
        pathio::rename(&draft.path, &path)?;
        draft.published = true;
        Ok((digest, n_bytes))
    }

    /// Makes the finished draft a blob for this process alone, which goes with the process.
    #[must_use]
    pub fn keep(&self, mut draft: Draft) -> (Digest, u64) {
        let n_bytes = draft.n_bytes();
        let digest = std::mem::take(&mut draft.hasher).finish();
        let mut own = self.own_blobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Vacant(free) = own.entry(digest) {
            free.insert(draft.path.clone());
            draft.published = true;
        }
        (digest, n_bytes)
    }

    /// Stores `bytes`.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.has_blob(digest) {
            return Ok(digest);
        }
        let mut draft = self.draft()?;
        draft.write_all(bytes).context("write", &draft.path)?;
        Ok(self.publish(draft)?.0)
    }

    /// Whether the blob is there.
    #[must_use]
    pub fn has_blob(&self, digest: Digest) -> bool {
        rustix::fs::access(self.blob_path(digest), rustix::fs::Access::EXISTS).is_ok()
    }

    /// Opens a blob to be read from its begin to its end, which checks it.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn open_checked_blob(&self, digest: Digest) -> Result<CheckedBlob, PathError> {
        let path = self.blob_path(digest);
        let file = guard::open_file(&path)?;
        Ok(CheckedBlob { file, path, digest, hasher: Some(Hasher::new()) })
    }

    /// Opens a blob that is not checked: whoever reads it hashes what it gets.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn open_blob(&self, digest: Digest) -> Result<File, PathError> {
        guard::open_file(&self.blob_path(digest))
    }

    /// Reads a small blob, such as a manifest, and checks it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not what its name says; the kernel's, with the path.
    pub fn read_blob(&self, digest: Digest, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        let file = guard::open_file(&path)?;
        file.take(max_bytes).read_to_end(&mut bytes).context("read", &path)?;
        match Digest::of(&bytes) {
            got if got == digest => Ok(bytes),
            // What a document names would be taken for unneeded if it were gone.
            got => Err(StoreError::Corrupt { want: digest, got, is_removed: false }),
        }
    }
}
