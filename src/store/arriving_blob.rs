//! Blobs that are read while they arrive or are written: a layer is hashed and unpacked during its
//! download, and sent during its compression.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use crate::oci::{Digest, Hasher};
use crate::pathio::holes::{self, ByteRun};
use crate::pathio::{Context as _, PathError};
use crate::pool;

use super::blob::{BlobDraft, DraftFile};
use super::free_space::SpaceGuard;
use super::{Store, StoreError, private_files};

/// Size in bytes of the parts in which the blob is hashed.
const HASH_BYTES: usize = 256 << 10;

/// An unfinished blob of known size, written in parts and in any order. It is removed if it is dropped
/// before it is published.
#[derive(Debug)]
pub struct ArrivingBlob {
    draft: DraftFile,
    n_bytes: u64,
    space: Mutex<SpaceGuard>,
    shared: SharedEnd,
}

/// An unfinished blob that is written from its start. It is removed if it is dropped before it is
/// published.
#[derive(Debug)]
pub(super) struct GrowingBlob {
    draft: BlobDraft,
    shared: SharedEnd,
}

/// The part of the blob that its readers share.
#[derive(Debug)]
struct SharedBlob {
    /// Open for reading.
    file: File,
    arrived: Mutex<Arrived>,
    changed: Condvar,
}

impl SharedBlob {
    /// Returns what the readers of the draft at `path` share. Its length may be unknown.
    fn open(path: &Path, n_bytes: Option<u64>) -> Result<Arc<Self>, PathError> {
        let file = private_files::open_file(path)?;
        let arrived = Mutex::new(Arrived { n_bytes, ..Arrived::default() });
        Ok(Arc::new(Self { file, arrived, changed: Condvar::new() }))
    }

    fn change(&self, change: impl FnOnce(&mut Arrived)) {
        change(&mut pool::lock(&self.arrived));
        self.changed.notify_all();
    }
}

/// Tells the readers on drop that no more parts will come.
#[derive(Debug)]
struct SharedEnd(Arc<SharedBlob>);

impl SharedEnd {
    fn reader(&self) -> ArrivingReader {
        ArrivingReader { shared: Arc::clone(&self.0), at: 0 }
    }
}

impl Drop for SharedEnd {
    fn drop(&mut self) {
        self.0.change(|arrived| arrived.has_ended = true);
    }
}

/// The parts of a blob that have arrived.
#[derive(Debug, Default)]
struct Arrived {
    /// Length of the blob, once it is known.
    n_bytes: Option<u64>,
    /// All bytes before this offset have arrived.
    prefix: u64,
    /// Parts beyond the prefix, with their ends.
    ahead: BTreeMap<u64, u64>,
    has_ended: bool,
}

impl Arrived {
    /// Adds the part from `start` to `end`.
    fn add(&mut self, start: u64, end: u64) {
        if start > self.prefix {
            match self.ahead.range_mut(..=start).next_back() {
                Some((_, known)) if *known >= start => *known = end.max(*known),
                _ => drop(self.ahead.insert(start, end)),
            }
            return;
        }
        self.prefix = self.prefix.max(end);
        while let Some(first) = self.ahead.first_entry()
            && *first.key() <= self.prefix
        {
            self.prefix = self.prefix.max(first.remove());
        }
    }
}

impl ArrivingBlob {
    /// Writes a part, without zeros that can be a hole (lseek(2)).
    ///
    /// # Errors
    /// Kind `InvalidInput` if the part exceeds the size; `StorageFull`; otherwise that of pwrite(2).
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if end > self.n_bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (mut at, mut left) = (offset, bytes);
        while !left.is_empty() {
            let run = holes::first_run(left, at);
            let (ByteRun::Hole(n_run) | ByteRun::Data(n_run)) = run;
            let (bytes, rest) = left.split_at_checked(n_run).unwrap_or((left, &[]));
            let n_run = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if let ByteRun::Data(_) = run {
                let file = self.draft.file();
                pool::lock(&self.space)
                    .need(file, n_run)?
                    .map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
                file.write_all_at(bytes, at)?;
            }
            (at, left) = (at.saturating_add(n_run), rest);
        }
        self.shared.0.change(|arrived| arrived.add(offset, end));
        Ok(())
    }

    /// Tells the readers that no more parts will come.
    pub fn end(&self) {
        self.shared.0.change(|arrived| arrived.has_ended = true);
    }

    /// Returns a reader of the blob, which waits for bytes that have not arrived. Reading fails if they do
    /// not arrive before the blob is ended.
    #[must_use]
    pub fn reader(&self) -> ArrivingReader {
        self.shared.reader()
    }

    /// Returns the digest of the blob; waits for all its bytes.
    ///
    /// # Errors
    /// That of the reader.
    pub fn hash(&self) -> io::Result<Digest> {
        let (mut reader, mut hasher) = (self.reader(), Hasher::new());
        let mut buffer = vec![0; HASH_BYTES];
        loop {
            let n_read = reader.read(&mut buffer)?;
            if n_read == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(buffer.get(..n_read).unwrap_or_default());
        }
    }
}

impl GrowingBlob {
    /// Returns a reader of the blob, which waits for bytes that are not written yet. Reading fails if the
    /// blob is dropped before it is complete.
    pub(super) fn reader(&self) -> ArrivingReader {
        self.shared.reader()
    }

    /// Returns the draft, with which the blob ends.
    pub(super) fn complete(self) -> BlobDraft {
        self.shared.0.change(|arrived| arrived.n_bytes = Some(arrived.prefix));
        self.draft
    }
}

impl Write for GrowingBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = self.draft.write(bytes)?;
        self.shared.0.change(|arrived| arrived.prefix = self.draft.n_bytes());
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.flush()
    }
}

/// Reads a blob while it arrives or is written.
#[derive(Debug)]
pub struct ArrivingReader {
    shared: Arc<SharedBlob>,
    at: u64,
}

impl Read for ArrivingReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut arrived = pool::lock(&self.shared.arrived);
        while arrived.prefix <= self.at && arrived.n_bytes != Some(self.at) {
            if arrived.has_ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            arrived = pool::wait(&self.shared.changed, arrived);
        }
        let n_more = usize::try_from(arrived.prefix - self.at).unwrap_or(usize::MAX).min(to.len());
        drop(arrived);
        let part = to.get_mut(..n_more).unwrap_or_default();
        self.shared.file.read_exact_at(part, self.at)?;
        self.at += u64::try_from(n_more).unwrap_or_default();
        Ok(n_more)
    }
}

impl Store {
    /// Returns an empty blob of `n_bytes`, whose parts arrive in any order.
    ///
    /// # Errors
    /// [`StoreError::Io`] if its file cannot be created.
    pub fn arriving_blob(&self, n_bytes: u64) -> Result<ArrivingBlob, StoreError> {
        let draft = self.draft_file()?;
        draft.file().set_len(n_bytes).context("set the length of", draft.path())?;
        let shared = SharedEnd(SharedBlob::open(draft.path(), Some(n_bytes))?);
        Ok(ArrivingBlob { draft, n_bytes, space: Mutex::default(), shared })
    }

    /// Returns an empty blob of unknown length.
    pub(super) fn growing_blob(&self) -> Result<GrowingBlob, StoreError> {
        let draft = self.draft()?;
        let shared = SharedEnd(SharedBlob::open(draft.path(), None)?);
        Ok(GrowingBlob { draft, shared })
    }

    /// Makes a blob that has arrived a blob of the store. `digest` is the caller's, from
    /// [`ArrivingBlob::hash`].
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be synced or renamed.
    pub fn publish_arrived(&self, mut blob: ArrivingBlob, digest: Digest) -> Result<(), PathError> {
        self.publish_file(&mut blob.draft, digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_grows_when_the_gap_before_a_part_is_filled() {
        let mut arrived = Arrived::default();
        for (start, end, prefix) in
            [(10, 20, 0), (20, 25, 0), (40, 50, 0), (0, 5, 5), (5, 10, 25), (25, 45, 50)]
        {
            arrived.add(start, end);
            assert_eq!(arrived.prefix, prefix, "{start}..{end}");
        }
        assert!(arrived.ahead.is_empty());
    }
}
