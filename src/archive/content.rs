//! The content of one entry: how much is left, and which parts of it are holes.

use super::ArchiveError;
use super::header::BLOCK;
use super::reader::length;
use super::sparse::{self, Segment};

/// What is still to come of the current entry.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Bytes of the entry that the reader gives, holes included.
    pub(super) left: u64,
    /// Bytes in the archive, without padding.
    pub(super) stored: u64,
    /// Zero bytes up to the next block.
    pub(super) padding: u64,
    /// Where the stored bytes belong; `None` for a file in one piece.
    segments: Option<Vec<Segment>>,
    /// Position in the expanded file.
    pub(super) at: u64,
}

impl Content {
    pub(super) fn plain(size: u64) -> Self {
        let block = length(BLOCK);
        // A size near 2^64 wraps to a small padding; the stream ends long before.
        let padding = (block - size % block) % block;
        let stored = size.min(u64::MAX - block);
        Self { left: size, stored, padding, segments: None, at: 0 }
    }

    /// Makes it the content of a file with holes.
    pub(super) fn expand(&mut self, map: sparse::Map, at: u64) -> Result<(), ArchiveError> {
        if map.stored_bytes() != Some(self.stored) {
            let what = "a sparse file's map and size differ";
            return Err(ArchiveError::Malformed { at, what });
        }
        self.left = map.real_size;
        self.segments = Some(map.into_reversed());
        Ok(())
    }

    /// How many bytes come next, and whether they are in the archive or a hole.
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
