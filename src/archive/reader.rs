//! Reads all common kinds of tar: v7, ustar, GNU long names and numbers, PAX, sparse files.
//!
//! The `tar` crate defines the header's layout. The blocks are read here, because untrusted input
//! must be bounded, and because PAX sparse files and binary PAX values must be read correctly.

use std::fmt;
use std::io::{self, BufReader, Read};

use tar::Header;

use crate::limits::{
    MAX_ARCHIVE_PATH_BYTES, MAX_DIRECTORY_DEPTH, MAX_NAME_BYTES_OF_ARCHIVE, MAX_TAR_HEADER_BYTES,
};
use crate::tree::{Device, Meta};

use super::bounds::ArchiveBounds;
use super::content::ContentState;
use super::entry::{ArchiveEntry, ContentReader, EntryKind};
use super::header::{BLOCK, bytes, is_sealed, number};
use super::overrides::HeaderOverrides;
use super::sparse::{PaxSparse, SparseMap, SparseMapText};
use super::{ArchiveError, NOT_IN_ONE_PIECE};

const BUFFER_BYTES: usize = 256 * 1024;

/// A reader of a tar, one entry after the other.
pub struct TarReader<R: Read> {
    pub(super) source: BufReader<R>,
    pub(super) offset: u64,
    bounds: ArchiveBounds,
    n_entries: u64,
    /// The total size of all files so far, holes included.
    n_bytes: u64,
    /// The total size of all names, link targets and attributes so far.
    n_name_bytes: u64,
    pub(super) content: ContentState,
}

impl<R: Read> fmt::Debug for TarReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TarReader(at {})", self.offset)
    }
}

impl<R: Read> TarReader<R> {
    /// Reads the tar in `source` under the default bounds.
    pub fn new(source: R) -> Self {
        Self::bounded(source, ArchiveBounds::default())
    }

    /// Reads the tar in `source` under the given bounds.
    pub fn bounded(source: R, bounds: ArchiveBounds) -> Self {
        let source = BufReader::with_capacity(BUFFER_BYTES, source);
        let (n_entries, n_bytes, n_name_bytes) = (0, 0, 0);
        Self {
            source,
            offset: 0,
            bounds,
            n_entries,
            n_bytes,
            n_name_bytes,
            content: ContentState::default(),
        }
    }

    /// Returns the number of bytes read of the tar.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next entry, after skipping the unread rest of the previous one. `None` at the
    /// end.
    ///
    /// # Errors
    /// [`ArchiveError::Malformed`], `Truncated` or `UnknownKind` for a damaged tar, `Bounds` or
    /// `TooLarge` for one that is too large, `Read` for an error of the source.
    #[expect(clippy::should_implement_trait, reason = "an entry borrows the reader")]
    pub fn next(&mut self) -> Result<Option<ArchiveEntry<'_, R>>, ArchiveError> {
        self.skip_content()?;
        let mut extra = HeaderOverrides::default();
        let mut n_bytes = 0;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.as_old().linkflag[0];
            if !matches!(kind, b'g' | b'x' | b'X' | b'L' | b'K') {
                return self.entry(&header, extra).map(Some);
            }
            let at = self.offset;
            let content = self.header_content(&header, &mut n_bytes)?;
            match kind {
                // A global header applies to all entries: comments, or the owners on the machine
                // that made the archive.
                b'g' => {}
                b'L' => extra.path = Some(bytes(&content).to_vec()),
                b'K' => extra.link = Some(bytes(&content).to_vec()),
                _ => extra.read_pax(&content, at)?,
            }
        }
    }

    /// Reads the bytes after the end of the archive up to the end of the stream, so that a digest
    /// over the stream is complete.
    ///
    /// # Errors
    /// [`ArchiveError::Read`], the error of the source.
    pub fn drain(&mut self) -> Result<u64, ArchiveError> {
        io::copy(&mut self.source, &mut io::sink()).map_err(ArchiveError::Read)
    }

    /// Returns the next header; `None` when the archive or the stream ends.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes(), true)? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            // One block of zeros ends an archive as well as two: some writers omit the second.
            return Ok(None);
        }
        if !is_sealed(&header) {
            return Err(self.malformed("a header has a wrong checksum"));
        }
        self.n_entries += 1;
        self.check_bounds()?;
        Ok(Some(header))
    }

    /// Fills `block`; returns false if the stream ends before it and `may_end`.
    fn block(&mut self, block: &mut [u8; BLOCK], may_end: bool) -> Result<bool, ArchiveError> {
        let mut filled = 0;
        while let Some(space) = block.get_mut(filled..).filter(|space| !space.is_empty()) {
            match self.source.read(space) {
                Ok(0) if filled == 0 && may_end => return Ok(false),
                Ok(0) => return Err(ArchiveError::Truncated { at: self.offset }),
                Ok(n_read) => {
                    filled += n_read;
                    self.offset += length(n_read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        Ok(true)
    }

    /// Reads the content of a header that describes the next one; `n_bytes` is the total size of
    /// such headers.
    fn header_content(
        &mut self,
        header: &Header,
        n_bytes: &mut u64,
    ) -> Result<Vec<u8>, ArchiveError> {
        let size = self.unsigned(&header.as_old().size, "a header has an invalid size")?;
        *n_bytes = n_bytes.saturating_add(size);
        if *n_bytes > MAX_TAR_HEADER_BYTES {
            return Err(self.too_large("a header", MAX_TAR_HEADER_BYTES));
        }
        self.content = ContentState::plain(size);
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        self.skip_content()?;
        Ok(content)
    }

    fn read_to_end(&mut self, to: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let at = self.offset;
        ContentReader(self).read_to_end(to).map(drop).map_err(|error| from_io(error, at))
    }

    fn skip_content(&mut self) -> Result<(), ArchiveError> {
        let skip = self.content.stored + self.content.padding;
        self.content = ContentState::default();
        let n_skipped = io::copy(&mut self.source.by_ref().take(skip), &mut io::sink())
            .map_err(ArchiveError::Read)?;
        self.offset += n_skipped;
        if n_skipped < skip {
            return Err(ArchiveError::Truncated { at: self.offset });
        }
        Ok(())
    }

    fn entry(
        &mut self,
        header: &Header,
        extra: HeaderOverrides,
    ) -> Result<ArchiveEntry<'_, R>, ArchiveError> {
        let fields = header.as_old();
        let stored = match extra.size {
            Some(size) => size,
            None => self.unsigned(&fields.size, "an entry has an invalid size")?,
        };
        let path = extra.sparse.path().or(extra.path).unwrap_or_else(|| ustar_name(header));
        let link = extra.link.unwrap_or_else(|| bytes(&fields.linkname).to_vec());
        self.check_names(&path, &link, &extra.meta)?;
        let meta = self.meta(header, extra.meta, (extra.uid, extra.gid, extra.mtime_s))?;
        let flag = fields.linkflag[0];
        let kind = self.kind(header, flag, &path, link)?;
        // Only files have content: some writers set the size field of links and directories too.
        let is_file = kind == EntryKind::File;
        self.content = ContentState::plain(if is_file || flag == b'7' { stored } else { 0 });
        let mut content_at = self.offset;
        if is_file && let Some(map) = self.sparse_map(header, flag, extra.sparse)? {
            self.content.expand(map, self.offset)?;
            content_at = NOT_IN_ONE_PIECE;
        }
        let size = self.content.left;
        self.n_bytes = self.n_bytes.saturating_add(size);
        self.check_bounds()?;
        Ok(ArchiveEntry { path, kind, meta, size, content_at, reader: self })
    }

    fn check_bounds(&self) -> Result<(), ArchiveError> {
        // Includes the bytes of the entry that are still to be read; a missing rest is noticed
        // later.
        let n_read = self.offset.saturating_add(self.content.stored);
        Ok(self.bounds.check(self.n_entries, self.n_bytes, n_read)?)
    }

    /// Checks the sizes of the fields that callers keep in memory.
    fn check_names(&mut self, path: &[u8], link: &[u8], meta: &Meta) -> Result<(), ArchiveError> {
        if path.len().max(link.len()) > MAX_ARCHIVE_PATH_BYTES {
            return Err(self.too_large("a path", length(MAX_ARCHIVE_PATH_BYTES)));
        }
        let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        if names.count() > MAX_DIRECTORY_DEPTH {
            return Err(self.too_large("a depth", length(MAX_DIRECTORY_DEPTH)));
        }
        let xattrs: usize = meta.xattrs().map(|(name, value)| name.len() + value.len()).sum();
        let n_bytes = length(path.len() + link.len() + xattrs);
        self.n_name_bytes = self.n_name_bytes.saturating_add(n_bytes);
        if self.n_name_bytes > MAX_NAME_BYTES_OF_ARCHIVE {
            return Err(self.too_large("names and attributes", MAX_NAME_BYTES_OF_ARCHIVE));
        }
        Ok(())
    }

    fn kind(
        &self,
        header: &Header,
        flag: u8,
        path: &[u8],
        link: Vec<u8>,
    ) -> Result<EntryKind, ArchiveError> {
        Ok(match flag {
            // Before ustar, a directory was a file whose name ends in a slash.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink(link),
            b'2' => EntryKind::Symlink(link),
            b'3' => EntryKind::CharDevice(self.device(header)?),
            b'4' => EntryKind::BlockDevice(self.device(header)?),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                let kind = char::from(other);
                return Err(ArchiveError::UnknownKind { at: self.offset, kind });
            }
        })
    }

    fn device(&self, header: &Header) -> Result<Device, ArchiveError> {
        let wrong = || self.malformed("a device has an invalid number");
        let fields = header.as_ustar().map(|ustar| (&ustar.dev_major, &ustar.dev_minor));
        let fields = fields.or_else(|| header.as_gnu().map(|gnu| (&gnu.dev_major, &gnu.dev_minor)));
        let (major, minor) = fields.ok_or_else(wrong)?;
        let part = |field: &[u8]| number(field).and_then(|value| u32::try_from(value).ok());
        match (part(major), part(minor)) {
            (Some(major), Some(minor)) => Ok(Device { major, minor }),
            _ => Err(wrong()),
        }
    }

    fn meta(
        &self,
        header: &Header,
        meta: Meta,
        (uid, gid, mtime_s): (Option<u32>, Option<u32>, Option<i64>),
    ) -> Result<Meta, ArchiveError> {
        let fields = header.as_old();
        let id = |known: Option<u32>, field: &[u8]| {
            let read = || number(field).and_then(|id| u32::try_from(id).ok());
            known.or_else(read).ok_or_else(|| self.malformed("an owner is not a 32-bit number"))
        };
        let mode = number(&fields.mode).ok_or_else(|| self.malformed("a mode is not a number"))?;
        let mtime_s = mtime_s
            .or_else(|| number(&fields.mtime))
            .ok_or_else(|| self.malformed("a time is not a number"))?;
        Ok(Meta {
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            uid: id(uid, &fields.uid)?,
            gid: id(gid, &fields.gid)?,
            mtime_s,
            xattrs: meta.xattrs,
        })
    }

    /// Returns the map of a file with holes.
    fn sparse_map(
        &mut self,
        header: &Header,
        flag: u8,
        pax: PaxSparse,
    ) -> Result<Option<SparseMap>, ArchiveError> {
        let at = self.offset;
        if flag == b'S' {
            let mut map = SparseMap::from_gnu(header, at)?;
            while map.is_extended {
                let mut block = [0; BLOCK];
                self.block(&mut block, false)?;
                map.extend_gnu(&block, self.offset)?;
            }
            return Ok(Some(map));
        }
        if !pax.is_sparse() {
            return Ok(None);
        }
        if !pax.map_is_in_content() {
            return pax.map(at).map(Some);
        }
        let mut text = SparseMapText::default();
        while !text.is_complete() {
            let Some(left) = self.content.stored.checked_sub(length(BLOCK)) else {
                return Err(self.malformed("a sparse file has no complete map"));
            };
            let mut block = [0; BLOCK];
            self.block(&mut block, false)?;
            self.content.stored = left;
            text.push(&block, self.offset)?;
        }
        pax.map_from(&text, at).map(Some)
    }

    fn unsigned(&self, field: &[u8], what: &'static str) -> Result<u64, ArchiveError> {
        let value = number(field).and_then(|value| u64::try_from(value).ok());
        value.ok_or_else(|| self.malformed(what))
    }

    const fn malformed(&self, what: &'static str) -> ArchiveError {
        ArchiveError::Malformed { at: self.offset, what }
    }

    const fn too_large(&self, what: &'static str, limit: u64) -> ArchiveError {
        ArchiveError::TooLarge { at: self.offset, what, limit }
    }
}

/// Returns the name in the header itself.
fn ustar_name(header: &Header) -> Vec<u8> {
    let name = bytes(&header.as_old().name);
    match header.as_ustar().map(|ustar| bytes(&ustar.prefix)) {
        Some(prefix) if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_vec(),
    }
}

pub(super) fn length(n_bytes: usize) -> u64 {
    u64::try_from(n_bytes).expect("no buffer is longer than 2^64")
}

fn from_io(error: io::Error, at: u64) -> ArchiveError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return ArchiveError::Truncated { at };
    }
    ArchiveError::Read(error)
}
