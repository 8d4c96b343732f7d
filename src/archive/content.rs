//! The content of one entry: how much is left, and which parts of it are holes.

use super::ArchiveError;
use super::header::BLOCK;
use super::reader::length;
use super::sparse::{SparseMap, SparseSegment};

/// The unread rest of the current entry.
#[derive(Debug, Default)]
pub(super) struct ContentState {
    /// The number of bytes that the reader still returns, holes included.
    pub(super) left: u64,
    /// The number of bytes left in the archive, without padding.
    pub(super) stored: u64,
    /// The number of zero bytes up to the next block.
    pub(super) padding: u64,
    /// The positions of the stored bytes, last first; `None` for a file without holes.
    segments: Option<Vec<SparseSegment>>,
    /// The position in the expanded file.
    pub(super) at: u64,
}

impl ContentState {
    pub(super) fn plain(size: u64) -> Self {
        let block = length(BLOCK);
        // A size near 2^64 wraps to a small padding; the stream ends long before.
        let padding = (block - size % block) % block;
        let stored = size.min(u64::MAX - block);
        Self { left: size, stored, padding, segments: None, at: 0 }
    }

    /// Turns it into the content of a file with holes.
    pub(super) fn expand(&mut self, map: SparseMap, at: u64) -> Result<(), ArchiveError> {
        if map.stored_bytes() != Some(self.stored) {
            let what = "a sparse file's map and size differ";
            return Err(ArchiveError::Malformed { at, what });
        }
        self.left = map.real_size;
        self.segments = Some(map.into_reversed());
        Ok(())
    }

    /// Returns the length of the next run of bytes, and whether it is stored in the archive or a
    /// hole.
    pub(super) fn next_run(&mut self) -> (u64, bool) {
        let Some(segments) = &mut self.segments else { return (self.left, true) };
        while segments.last().is_some_and(|segment| segment.end() <= self.at) {
            segments.pop();
        }
        match segments.last() {
            Some(segment) if segment.at <= self.at => (segment.end() - self.at, true),
            Some(segment) => (segment.at - self.at, false),
            None => (self.left, false),
        }
    }
}
