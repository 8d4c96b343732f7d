//! Files with holes: GNU tar's own form and its three PAX forms (GNU tar manual, "Sparse Formats").

use tar::{GnuExtSparseHeader, Header};

use crate::limits::MAX_SPARSE_SEGMENTS as MAX_SEGMENTS;

use super::ArchiveError;
use super::header::{BLOCK, number};
use super::pax::decimal;

/// A piece of a file that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where in the file.
    pub(super) at: u64,
    /// How long.
    pub(super) n_bytes: u64,
}

/// All pieces of a file, in order and apart.
#[derive(Debug, Default)]
pub(super) struct Map {
    segments: Vec<Segment>,
    /// The file's length, holes included.
    pub(super) real_size: u64,
    /// Whether another block of GNU's form follows.
    pub(super) is_extended: bool,
}

impl Segment {
    /// Checked when it was read.
    pub(super) const fn end(self) -> u64 {
        self.at.saturating_add(self.n_bytes)
    }
}

const fn wrong(at: u64) -> ArchiveError {
    ArchiveError::Malformed { at, what: "a sparse file has an impossible map" }
}

impl Map {
    fn push(&mut self, segment: Segment, at: u64) -> Result<(), ArchiveError> {
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
                (Some(start), Some(n_bytes)) => self.push(Segment { at: start, n_bytes }, at)?,
                _ => return Err(wrong(at)),
            }
        }
        Ok(())
    }

    /// Reads the pieces in a header of kind `S`.
    pub(super) fn from_gnu(header: &Header, at: u64) -> Result<Self, ArchiveError> {
        let gnu = header.as_gnu().ok_or_else(|| wrong(at))?;
        let real_size = number(&gnu.realsize).and_then(|size| u64::try_from(size).ok());
        let real_size = real_size.ok_or_else(|| wrong(at))?;
        let is_extended = gnu.isextended[0] == 1;
        let mut map = Self { segments: Vec::new(), real_size, is_extended };
        map.push_gnu(&gnu.sparse, at)?;
        Ok(map)
    }

    /// Reads the pieces in a block that follows such a header.
    pub(super) fn extend_gnu(&mut self, block: &[u8; BLOCK], at: u64) -> Result<(), ArchiveError> {
        let mut extended = GnuExtSparseHeader::new();
        extended.as_mut_bytes().copy_from_slice(block);
        self.is_extended = extended.isextended[0] == 1;
        self.push_gnu(extended.sparse(), at)
    }

    /// The sum of all pieces.
    pub(super) fn stored_bytes(&self) -> Option<u64> {
        self.segments.iter().try_fold(0_u64, |sum, segment| sum.checked_add(segment.n_bytes))
    }

    /// The pieces, last first.
    pub(super) fn into_reversed(mut self) -> Vec<Segment> {
        self.segments.reverse();
        self.segments
    }
}

/// What `GNU.sparse.*` records say.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    path: Option<Vec<u8>>,
    real_size: Option<u64>,
    major: Option<u64>,
    numbers: Vec<u64>,
    is_sparse: bool,
}

impl PaxSparse {
    /// Takes the record `GNU.sparse.<name>`.
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
            // `minor` and `numblocks` repeat what is known otherwise.
            _ => {}
        }
        Ok(())
    }

    pub(super) const fn is_sparse(&self) -> bool {
        self.is_sparse
    }

    /// Form 1.0 puts the map in front of the content.
    pub(super) fn map_is_in_content(&self) -> bool {
        self.major == Some(1)
    }

    /// The file's own name: the entry's is made up.
    pub(super) fn path(&self) -> Option<Vec<u8>> {
        self.path.clone()
    }

    /// The map of the forms 0.0 and 0.1.
    pub(super) fn map(&self, at: u64) -> Result<Map, ArchiveError> {
        self.map_of(&self.numbers, at)
    }

    /// The map of form 1.0.
    pub(super) fn map_from(&self, text: &MapText, at: u64) -> Result<Map, ArchiveError> {
        self.map_of(text.numbers.get(1..).unwrap_or_default(), at)
    }

    fn map_of(&self, numbers: &[u64], at: u64) -> Result<Map, ArchiveError> {
        let real_size = self.real_size.ok_or_else(|| wrong(at))?;
        let mut map = Map { segments: Vec::new(), real_size, is_extended: false };
        for pair in numbers.chunks(2) {
            let [start, n_bytes] = *pair else { return Err(wrong(at)) };
            map.push(Segment { at: start, n_bytes }, at)?;
        }
        Ok(map)
    }
}

/// The map of form 1.0: a count, then pairs, one decimal number a line, in whole blocks.
#[derive(Debug, Default)]
pub(super) struct MapText {
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl MapText {
    /// Whether the count and all that it promises were read.
    pub(super) fn is_complete(&self) -> bool {
        let have = u64::try_from(self.numbers.len()).unwrap_or(u64::MAX);
        self.numbers.first().is_some_and(|count| have > count.saturating_mul(2))
    }

    /// Takes the next block.
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
