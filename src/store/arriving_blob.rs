//! Blobs that are read while they arrive: a layer is hashed and unpacked during its download.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex};

use crate::oci::{Digest, Hasher};
use crate::pathio::holes::{self, ByteRun};
use crate::pathio::{Context as _, PathError};
use crate::pool;

use super::blob::DraftFile;
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
    shared: Arc<SharedBlob>,
}

/// The part of the blob that its readers share.
#[derive(Debug)]
struct SharedBlob {
    /// Open for reading.
    file: File,
    arrived: Mutex<Arrived>,
    changed: Condvar,
}

/// The parts of a blob that have arrived.
#[derive(Debug, Default)]
struct Arrived {
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
        pool::lock(&self.shared.arrived).add(offset, end);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Tells the readers that no more parts will come.
    pub fn end(&self) {
        pool::lock(&self.shared.arrived).has_ended = true;
        self.shared.changed.notify_all();
    }

    /// Returns a reader of the blob, which waits for bytes that have not arrived. Reading fails if they do
    /// not arrive before the blob is ended.
    #[must_use]
    pub fn reader(&self) -> ArrivingReader {
        ArrivingReader { shared: Arc::clone(&self.shared), at: 0, n_bytes: self.n_bytes }
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

impl Drop for ArrivingBlob {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads a blob while it arrives.
#[derive(Debug)]
pub struct ArrivingReader {
    shared: Arc<SharedBlob>,
    at: u64,
    n_bytes: u64,
}

impl Read for ArrivingReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut arrived = pool::lock(&self.shared.arrived);
        while arrived.prefix <= self.at && self.at < self.n_bytes {
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
        let file = private_files::open_file(draft.path())?;
        draft.file().set_len(n_bytes).context("set the length of", draft.path())?;
        let (arrived, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(SharedBlob { file, arrived, changed });
        Ok(ArrivingBlob { draft, n_bytes, space: Mutex::default(), shared })
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
