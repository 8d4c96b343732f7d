//! Bounds on the expansion of an archive, and a reader that holds it to that.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits;

/// Bytes of headers and padding of one entry, on average: more than an honest archive has.
const TAR_BYTES_FOR_EACH_ENTRY: u64 = 4096;

/// Bounds on what an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveBounds {
    /// Bytes of all its files together, holes included.
    pub max_bytes: u64,
    /// Its entries, directories that it only implies included.
    pub max_entries: u64,
    /// Bytes for each packed byte, above [`limits::EXPANSION_FLOOR_BYTES`]; `None` where the caller
    /// said how large archives may be.
    pub max_expansion: Option<u64>,
}

/// An archive that holds more than it may; the inner error of what a bounded reader returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// Too many bytes.
    #[error(
        "the archive unpacks to more than {limit} bytes; if that is right, allow more with --max-unpacked-size"
    )]
    Bytes {
        /// The bound.
        limit: u64,
    },
    /// Too many entries.
    #[error(
        "the archive has more than {limit} entries; if that is right, allow more with --max-unpacked-size (one entry for each 32 KiB)"
    )]
    Entries {
        /// The bound.
        limit: u64,
    },
    /// Too many bytes for its own length.
    #[error(
        "the archive unpacks to over {limit} times its {packed} bytes, as only bombs do; if that is right, set --max-unpacked-size"
    )]
    Expansion {
        /// The bound.
        limit: u64,
        /// Bytes of it that were read.
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
    /// The bounds where the caller said how many bytes an archive may unpack to.
    #[must_use]
    pub const fn up_to(max_bytes: u64) -> Self {
        let n_entries = max_bytes / limits::BYTES_FOR_EACH_ENTRY;
        let max_entries =
            if n_entries > limits::MIN_ENTRIES { n_entries } else { limits::MIN_ENTRIES };
        Self { max_bytes, max_entries, max_expansion: None }
    }

    /// Checks the number of entries and their bytes so far, holes included; `n_read` bytes of the
    /// tar were read for them.
    ///
    /// # Errors
    /// [`TooLarge`].
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

    /// Bytes of a tar with all that it may hold.
    const fn max_tar_bytes(&self) -> u64 {
        self.max_bytes.saturating_add(self.max_entries.saturating_mul(TAR_BYTES_FOR_EACH_ENTRY))
    }
}

/// Counts what is read of a packed stream.
#[derive(Debug)]
pub(super) struct Counted<R> {
    source: R,
    n_bytes: Arc<AtomicU64>,
}

impl<R: Read> Counted<R> {
    pub(super) fn new(source: R) -> (Self, Arc<AtomicU64>) {
        let n_bytes = Arc::new(AtomicU64::new(0));
        (Self { source, n_bytes: Arc::clone(&n_bytes) }, n_bytes)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_read = self.source.read(to)?;
        self.n_bytes.fetch_add(u64::try_from(n_read).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(n_read)
    }
}

/// Passes on what a packed stream unpacks to, and fails where that is more than it may be. It
/// counts everything: also what follows the end of the tar, or a second member of the stream.
pub(super) struct Bounded<R> {
    unpacked: R,
    bounds: ArchiveBounds,
    n_unpacked: u64,
    n_packed: Arc<AtomicU64>,
}

impl<R: Read> Bounded<R> {
    pub(super) const fn new(unpacked: R, bounds: ArchiveBounds, n_packed: Arc<AtomicU64>) -> Self {
        Self { unpacked, bounds, n_unpacked: 0, n_packed }
    }
}

impl<R: Read> Read for Bounded<R> {
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
    fn archives_that_hold_more_than_they_may_are_refused() {
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
