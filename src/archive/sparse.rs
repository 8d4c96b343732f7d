//! Files with holes: the old GNU format and the three PAX formats 0.0, 0.1 and 1.0 (GNU tar manual,
//! "Storing Sparse Files").

use tar::{GnuExtSparseHeader, Header};

use crate::limits::MAX_SPARSE_SEGMENTS as MAX_SEGMENTS;

use super::ArchiveError;
use super::header::{BLOCK, number};
use super::pax::decimal;

/// A stored segment of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SparseSegment {
    /// The offset in the file.
    pub(super) at: u64,
    /// The length in bytes.
    pub(super) n_bytes: u64,
}

/// The stored segments of a file, in order and without overlap.
#[derive(Debug, Default)]
pub(super) struct SparseMap {
    segments: Vec<SparseSegment>,
    /// The length of the file, holes included.
    pub(super) real_size: u64,
    /// True if another block of the GNU format follows.
    pub(super) is_extended: bool,
}

impl SparseSegment {
    /// Returns the end of the segment; `push` has checked it against overflow.
    pub(super) const fn end(self) -> u64 {
        self.at.saturating_add(self.n_bytes)
    }
}

const fn wrong(at: u64) -> ArchiveError {
    ArchiveError::Malformed { at, what: "a sparse file has an impossible map" }
}

impl SparseMap {
    fn push(&mut self, segment: SparseSegment, at: u64) -> Result<(), ArchiveError> {
        let after = self.segments.last().map_or(0, |last| last.end());
        let end = segment.at.checked_add(segment.n_bytes).ok_or_else(|| wrong(at))?;
        if segment.at < after || end > self.real_size || self.segments.len() >= MAX_SEGMENTS {
            return Err(wrong(at));
        }
        if segment.n_bytes > 0 {
            self.segments.push(segment);
        }
        Ok(())
    }

    fn push_gnu(&mut self, fields: &[tar::GnuSparseHeader], at: u64) -> Result<(), ArchiveError> {
        let unsigned = |field: &[u8]| number(field).and_then(|value| u64::try_from(value).ok());
        for field in fields.iter().filter(|field| !field.is_empty()) {
            match (unsigned(&field.offset), unsigned(&field.numbytes)) {
                (Some(start), Some(n_bytes)) => {
                    self.push(SparseSegment { at: start, n_bytes }, at)?;
                }
                _ => return Err(wrong(at)),
            }
        }
        Ok(())
    }

    /// Reads the segments in a header of type `S`.
    pub(super) fn from_gnu(header: &Header, at: u64) -> Result<Self, ArchiveError> {
        let gnu = header.as_gnu().ok_or_else(|| wrong(at))?;
        let real_size = number(&gnu.realsize).and_then(|size| u64::try_from(size).ok());
        let real_size = real_size.ok_or_else(|| wrong(at))?;
        let is_extended = gnu.isextended[0] == 1;
        let mut map = Self { segments: Vec::new(), real_size, is_extended };
        map.push_gnu(&gnu.sparse, at)?;
        Ok(map)
    }

    /// Reads the segments in a block that follows such a header.
    pub(super) fn extend_gnu(&mut self, block: &[u8; BLOCK], at: u64) -> Result<(), ArchiveError> {
        let mut extended = GnuExtSparseHeader::new();
        extended.as_mut_bytes().copy_from_slice(block);
        self.is_extended = extended.isextended[0] == 1;
        self.push_gnu(extended.sparse(), at)
    }

    /// Returns the total length of all segments.
    pub(super) fn stored_bytes(&self) -> Option<u64> {
        self.segments.iter().try_fold(0_u64, |sum, segment| sum.checked_add(segment.n_bytes))
    }

    /// Returns the segments, last first.
    pub(super) fn into_reversed(mut self) -> Vec<SparseSegment> {
        self.segments.reverse();
        self.segments
    }
}

/// The values of `GNU.sparse.*` records.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    path: Option<Vec<u8>>,
    real_size: Option<u64>,
    major: Option<u64>,
    numbers: Vec<u64>,
    is_sparse: bool,
}

impl PaxSparse {
    /// Reads the record `GNU.sparse.<name>`.
    pub(super) fn read(&mut self, name: &[u8], value: &[u8], at: u64) -> Result<(), ArchiveError> {
        let value_number = || decimal(value).ok_or_else(|| wrong(at));
        self.is_sparse = true;
        match name {
            b"name" => self.path = Some(value.to_vec()),
            b"size" | b"realsize" => self.real_size = Some(value_number()?),
            b"major" => self.major = Some(value_number()?),
            b"offset" | b"numbytes" => self.numbers.push(value_number()?),
            b"map" => {
                for text in value.split(|byte| *byte == b',') {
                    self.numbers.push(decimal(text).ok_or_else(|| wrong(at))?);
                }
            }
            // `minor` and `numblocks` are redundant.
            _ => {}
        }
        Ok(())
    }

    pub(super) const fn is_sparse(&self) -> bool {
        self.is_sparse
    }

    /// Returns whether the map precedes the content, as in format 1.0.
    pub(super) fn map_is_in_content(&self) -> bool {
        self.major == Some(1)
    }

    /// Returns the file's real name: that of the entry is synthetic.
    pub(super) fn path(&self) -> Option<Vec<u8>> {
        self.path.clone()
    }

    /// Returns the map of the formats 0.0 and 0.1.
    pub(super) fn map(&self, at: u64) -> Result<SparseMap, ArchiveError> {
        self.map_of(&self.numbers, at)
    }

    /// Returns the map of format 1.0.
    pub(super) fn map_from(
        &self,
        text: &SparseMapText,
        at: u64,
    ) -> Result<SparseMap, ArchiveError> {
        self.map_of(text.numbers.get(1..).unwrap_or_default(), at)
    }

    fn map_of(&self, numbers: &[u64], at: u64) -> Result<SparseMap, ArchiveError> {
        let real_size = self.real_size.ok_or_else(|| wrong(at))?;
        let mut map = SparseMap { segments: Vec::new(), real_size, is_extended: false };
        for pair in numbers.chunks(2) {
            let [start, n_bytes] = *pair else { return Err(wrong(at)) };
            map.push(SparseSegment { at: start, n_bytes }, at)?;
        }
        Ok(map)
    }
}

/// The map of format 1.0: a count, then pairs, one decimal number a line, padded to whole blocks.
#[derive(Debug, Default)]
pub(super) struct SparseMapText {
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl SparseMapText {
    /// Returns whether the count and all numbers that it announces were read.
    pub(super) fn is_complete(&self) -> bool {
        let have = u64::try_from(self.numbers.len()).unwrap_or(u64::MAX);
        self.numbers.first().is_some_and(|count| have > count.saturating_mul(2))
    }

    /// Parses the next block.
    pub(super) fn push(&mut self, block: &[u8; BLOCK], at: u64) -> Result<(), ArchiveError> {
        for byte in block {
            if self.is_complete() {
                return Ok(());
            }
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            self.numbers.push(decimal(&self.line).ok_or_else(|| wrong(at))?);
            self.line.clear();
            if self.numbers.len() > 2 * MAX_SEGMENTS + 1 {
                return Err(wrong(at));
            }
        }
        if self.line.len() > BLOCK { Err(wrong(at)) } else { Ok(()) }
    }
}
