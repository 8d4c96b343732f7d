//! Blobs: files named by the SHA-256 of their content. A draft becomes one when it is complete.

use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::oci::{Digest, Hasher};
use crate::pathio::holes::{self, ByteRun};
use crate::pathio::{self, Context as _, PathError};
use crate::pool;

use super::free_space::{self, SpaceGuard};
use super::work_directory::ProcessDirectory;
use super::{Store, StoreError, private_files};

/// The file of an unfinished blob, removed if it is dropped before it is published.
#[derive(Debug)]
pub(super) struct DraftFile {
    path: PathBuf,
    file: File,
    published: bool,
    _process: Arc<ProcessDirectory>,
}

impl DraftFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file, which is open for writing only.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        if !self.published {
            let _gone = rustix::fs::unlink(&self.path);
        }
    }
}

/// An unfinished blob: hashed while it is written, and removed if it is dropped before it is
/// published.
#[derive(Debug)]
pub struct BlobDraft {
    file: DraftFile,
    hasher: Hasher,
    space: SpaceGuard,
    /// Number of zeros that were left out, if they count as used space.
    zeros: Option<u64>,
}

impl Write for BlobDraft {
    /// Writes zeros as holes (lseek(2)): they are the content of sparse files and of decompression
    /// bombs.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = match holes::first_run(bytes, self.n_bytes()) {
            ByteRun::Hole(n_bytes) => self.leave_hole(n_bytes)?,
            ByteRun::Data(n_bytes) => {
                let data = bytes.get(..n_bytes).unwrap_or(bytes);
                self.space
                    .need(&self.file.file, u64::try_from(n_bytes).unwrap_or(u64::MAX))?
                    .map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
                self.file.file.write(data)?
            }
        };
        self.hasher.update(bytes.get(..n_bytes).unwrap_or_default());
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.file.flush()
    }
}

impl BlobDraft {
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Returns the number of bytes that were written, holes included.
    #[must_use]
    pub const fn n_bytes(&self) -> u64 {
        self.hasher.n_bytes()
    }

    fn leave_hole(&mut self, n_zeros: usize) -> io::Result<usize> {
        let n_more = u64::try_from(n_zeros).unwrap_or(u64::MAX);
        if let Some(zeros) = &mut self.zeros {
            *zeros = zeros.saturating_add(n_more);
            free_space::check(&self.file.file, *zeros)?
                .map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
        }
        let end = self.n_bytes().saturating_add(n_more);
        self.file.file.set_len(end)?;
        self.file.file.seek(SeekFrom::Start(end))?;
        Ok(n_zeros)
    }
}

/// Reads a blob and hashes it. If its content does not match its digest, reading its end fails, and
/// the blob is removed from the store, so that it can be rebuilt.
#[derive(Debug)]
pub struct CheckedBlob {
    file: File,
    path: PathBuf,
    digest: Digest,
    /// `None` after the end was read.
    hasher: Option<Hasher>,
}

impl CheckedBlob {
    /// Reads the rest of the blob and checks its digest.
    ///
    /// # Errors
    /// [`PathError`], whose source is [`StoreError::Corrupt`] if the digest is wrong.
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
        let private = pool::lock(&self.private_blobs);
        private.get(&digest).cloned().unwrap_or_else(|| self.shared_path(digest))
    }

    fn shared_path(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Returns an empty draft.
    ///
    /// # Errors
    /// [`StoreError::Io`] if its file cannot be created.
    pub fn draft(&self) -> Result<BlobDraft, StoreError> {
        let (hasher, space) = (Hasher::new(), SpaceGuard::default());
        Ok(BlobDraft { file: self.draft_file()?, hasher, space, zeros: None })
    }

    pub(super) fn draft_file(&self) -> Result<DraftFile, StoreError> {
        let process = self.work.process()?;
        let path = process.fresh_path();
        let file = private_files::create_file(&path)?;
        Ok(DraftFile { path, file, published: false, _process: process })
    }

    /// Returns an empty draft in which zeros count as used space, although they are written as holes:
    /// for files whose length their sender decides.
    ///
    /// # Errors
    /// [`StoreError::Io`] if its file cannot be created.
    pub fn bounded_draft(&self) -> Result<BlobDraft, StoreError> {
        let mut draft = self.draft()?;
        draft.zeros = Some(0);
        Ok(draft)
    }

    /// Makes the finished draft a blob; returns its digest and length. It replaces an existing blob
    /// with the same content.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be synced or renamed.
    pub fn publish(&self, mut draft: BlobDraft) -> Result<(Digest, u64), StoreError> {
        let n_bytes = draft.n_bytes();
        let digest = std::mem::take(&mut draft.hasher).finish();
        self.publish_file(&mut draft.file, digest)?;
        Ok((digest, n_bytes))
    }

    /// Makes the file of a finished draft the blob with this digest.
    pub(super) fn publish_file(
        &self,
        file: &mut DraftFile,
        digest: Digest,
    ) -> Result<(), PathError> {
        rustix::fs::fdatasync(&file.file).context("write", &file.path)?;
        pathio::rename(&file.path, &self.shared_path(digest))?;
        file.published = true;
        Ok(())
    }

    /// Makes the finished draft a blob that only this process knows, removed when the process ends;
    /// returns its digest and length.
    #[must_use]
    pub fn keep_private(&self, mut draft: BlobDraft) -> (Digest, u64) {
        let n_bytes = draft.n_bytes();
        let digest = std::mem::take(&mut draft.hasher).finish();
        if let Entry::Vacant(free) = pool::lock(&self.private_blobs).entry(digest) {
            free.insert(draft.file.path.clone());
            draft.file.published = true;
        }
        (digest, n_bytes)
    }

    /// Stores `bytes` as a blob, unless it exists.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be written; its source may be [`super::NoSpace`].
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.has_blob(digest) {
            return Ok(digest);
        }
        let mut draft = self.draft()?;
        draft.write_all(bytes).context("write", &draft.file.path.clone())?;
        Ok(self.publish(draft)?.0)
    }

    /// Returns whether the blob exists.
    #[must_use]
    pub fn has_blob(&self, digest: Digest) -> bool {
        rustix::fs::access(self.blob_path(digest), rustix::fs::Access::EXISTS).is_ok()
    }

    /// Opens a blob that is checked while it is read from beginning to end.
    ///
    /// # Errors
    /// [`PathError`] if it cannot be opened.
    pub fn open_checked_blob(&self, digest: Digest) -> Result<CheckedBlob, PathError> {
        let path = self.blob_path(digest);
        let file = private_files::open_file(&path)?;
        Ok(CheckedBlob { file, path, digest, hasher: Some(Hasher::new()) })
    }

    /// Opens a blob without checking it: the caller must hash what it reads.
    ///
    /// # Errors
    /// [`PathError`] if it cannot be opened.
    pub fn open_blob(&self, digest: Digest) -> Result<File, PathError> {
        private_files::open_file(&self.blob_path(digest))
    }

    /// Reads and checks a blob of at most `max_bytes`, such as a manifest.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if its content does not match its digest; [`StoreError::Io`].
    pub fn read_blob(&self, digest: Digest, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        let file = private_files::open_file(&path)?;
        file.take(max_bytes).read_to_end(&mut bytes).context("read", &path)?;
        match Digest::of(&bytes) {
            got if got == digest => Ok(bytes),
            // Not removed: `prune` would then remove the blobs that only this document references.
            got => Err(StoreError::Corrupt { want: digest, got, is_removed: false }),
        }
    }

    /// Returns the digests of all blobs, in no particular order.
    pub(super) fn blobs(&self) -> Result<Vec<Digest>, StoreError> {
        let directory = self.root.join("blobs/sha256");
        let mut blobs = Vec::new();
        for entry in std::fs::read_dir(&directory).context("list", &directory)? {
            let name = entry.context("list", &directory)?.file_name();
            blobs.extend(format!("sha256:{}", name.display()).parse::<Digest>().ok());
        }
        Ok(blobs)
    }
}
