//! Bounds on the expansion of an archive, and a reader that enforces them.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits;

/// The average number of bytes of headers and padding of an entry: more than an honest archive has.
const TAR_BYTES_FOR_EACH_ENTRY: u64 = 4096;

/// The bounds on the contents of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveBounds {
    /// Maximum total size of its files in bytes, holes included.
    pub max_bytes: u64,
    /// Maximum number of entries, implied directories included.
    pub max_entries: u64,
    /// Maximum number of unpacked bytes for each packed byte, above
    /// [`limits::EXPANSION_FLOOR_BYTES`]. `None` if the user has set the size of archives.
    pub max_expansion: Option<u64>,
}

/// An archive that exceeds its bounds; the inner error of a bounded reader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// The files have too many bytes in total.
    #[error(
        "the archive unpacks to more than {limit} bytes; if this is intended, raise the limit with --max-unpacked-size"
    )]
    Bytes {
        /// The bound in bytes.
        limit: u64,
    },
    /// The archive has too many entries.
    #[error(
        "the archive has more than {limit} entries; if this is intended, raise the limit with --max-unpacked-size (one entry for each 32 KiB)"
    )]
    Entries {
        /// The maximum number of entries.
        limit: u64,
    },
    /// The archive expands too much for its packed length.
    #[error(
        "the archive unpacks to over {limit} times its {packed} bytes, like a decompression bomb; if this is intended, set --max-unpacked-size"
    )]
    Expansion {
        /// The maximum number of unpacked bytes for each packed byte.
        limit: u64,
        /// The number of packed bytes read so far.
        packed: u64,
    },
}

impl Default for ArchiveBounds {
    fn default() -> Self {
        let max_expansion = Some(limits::MAX_EXPANSION);
        Self { max_expansion, ..Self::up_to(limits::MAX_UNPACKED_BYTES) }
    }
}

impl ArchiveBounds {
    /// Returns the bounds for a maximum number of unpacked bytes that the user has set.
    #[must_use]
    pub const fn up_to(max_bytes: u64) -> Self {
        let n_entries = max_bytes / limits::BYTES_FOR_EACH_ENTRY;
        let max_entries =
            if n_entries > limits::MIN_ENTRIES { n_entries } else { limits::MIN_ENTRIES };
        Self { max_bytes, max_entries, max_expansion: None }
    }

    /// Checks the number of entries and their total size so far, holes included; `n_read` bytes of
    /// the tar were read for them.
    ///
    /// # Errors
    /// The variant of [`TooLarge`] for the exceeded bound.
    pub fn check(&self, n_entries: u64, n_bytes: u64, n_read: u64) -> Result<(), TooLarge> {
        if n_entries > self.max_entries {
            return Err(TooLarge::Entries { limit: self.max_entries });
        }
        if n_bytes > self.max_bytes {
            return Err(TooLarge::Bytes { limit: self.max_bytes });
        }
        self.check_expansion(n_bytes, n_read)
    }

    fn check_expansion(&self, n_bytes: u64, packed: u64) -> Result<(), TooLarge> {
        let Some(limit) = self.max_expansion else { return Ok(()) };
        let is_bomb = n_bytes > limits::EXPANSION_FLOOR_BYTES.max(packed.saturating_mul(limit));
        if is_bomb { Err(TooLarge::Expansion { limit, packed }) } else { Ok(()) }
    }

    /// Returns the size of a tar that uses up all bounds.
    const fn max_tar_bytes(&self) -> u64 {
        self.max_bytes.saturating_add(self.max_entries.saturating_mul(TAR_BYTES_FOR_EACH_ENTRY))
    }
}

/// A reader that counts the bytes of a packed stream.
#[derive(Debug)]
pub(super) struct CountingReader<R> {
    source: R,
    n_bytes: Arc<AtomicU64>,
}

impl<R: Read> CountingReader<R> {
    pub(super) fn new(source: R) -> (Self, Arc<AtomicU64>) {
        let n_bytes = Arc::new(AtomicU64::new(0));
        (Self { source, n_bytes: Arc::clone(&n_bytes) }, n_bytes)
    }
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_read = self.source.read(to)?;
        self.n_bytes.fetch_add(u64::try_from(n_read).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(n_read)
    }
}

/// A reader of an unpacked stream that fails beyond its bounds. It counts everything, including
/// bytes after the end of the tar and further members of the stream.
pub(super) struct BoundedReader<R> {
    unpacked: R,
    bounds: ArchiveBounds,
    n_unpacked: u64,
    n_packed: Arc<AtomicU64>,
}

impl<R: Read> BoundedReader<R> {
    pub(super) const fn new(unpacked: R, bounds: ArchiveBounds, n_packed: Arc<AtomicU64>) -> Self {
        Self { unpacked, bounds, n_unpacked: 0, n_packed }
    }
}

impl<R: Read> Read for BoundedReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_read = self.unpacked.read(to)?;
        let more = u64::try_from(n_read).unwrap_or(u64::MAX);
        self.n_unpacked = self.n_unpacked.saturating_add(more);
        let too_large = |error| io::Error::new(io::ErrorKind::FileTooLarge, error);
        if self.n_unpacked > self.bounds.max_tar_bytes() {
            return Err(too_large(TooLarge::Bytes { limit: self.bounds.max_bytes }));
        }
        let packed = self.n_packed.load(Ordering::Relaxed);
        self.bounds.check_expansion(self.n_unpacked, packed).map_err(too_large)?;
        Ok(n_read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn archives_of_any_honest_size_are_within_the_default_bounds() {
        let bounds = ArchiveBounds::default();
        for (n_entries, n_bytes, n_read) in [
            (500_000, 40 * GIB, 20 * GIB),
            // A preallocated file of zeros.
            (1, 4 * GIB, 4096),
            (1, 100 * GIB, 100 * GIB / 1_032),
            (4_194_304, 128 * GIB, 64 * GIB),
        ] {
            assert_eq!(bounds.check(n_entries, n_bytes, n_read), Ok(()), "{n_bytes}");
        }
    }

    #[test]
    fn archives_beyond_the_bounds_are_refused() {
        let bounds = ArchiveBounds::default();
        let limit = 4_194_304;
        assert_eq!(bounds.check(limit + 1, 0, GIB), Err(TooLarge::Entries { limit }));
        let limit = 128 * GIB;
        assert_eq!(bounds.check(1, limit + 1, limit), Err(TooLarge::Bytes { limit }));
        let packed = 600;
        let error = TooLarge::Expansion { limit: 1_100, packed };
        assert_eq!(bounds.check(1, 4 * GIB + 1, packed), Err(error));
        assert_eq!(ArchiveBounds::up_to(5 * GIB).check(1, 4 * GIB + 1, packed), Ok(()));
    }
}
