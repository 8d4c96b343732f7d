//! One entry of a tar that is read: what it is, and its content.

use std::fmt;
use std::io::{self, Read};

use crate::tree::{Device, Meta};

use super::reader::{TarReader, length};

/// The kind of file that an entry describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Another name of the file at this path.
    HardLink(Vec<u8>),
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// One entry; reading from it gives its content.
pub struct ArchiveEntry<'a, R: Read> {
    /// The name as the archive has it: nothing is cleaned or checked, but it is bounded.
    pub path: Vec<u8>,
    /// The kind of file.
    pub kind: EntryKind,
    /// Mode, owners, time, extended attributes (all that the archive has).
    pub meta: Meta,
    /// Length of the content, holes included.
    pub size: u64,
    /// Offset of the content in the tar, or `NOT_IN_ONE_PIECE` of the reader.
    pub content_at: u64,
    pub(super) reader: &'a mut TarReader<R>,
}

/// The next part of an entry's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A hole of this length, which the reader has moved over.
    Hole(u64),
    /// Bytes that the archive holds, this many until the next hole or the end.
    Stored(u64),
    /// Nothing more.
    End,
}

impl<R: Read> fmt::Debug for ArchiveEntry<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", String::from_utf8_lossy(&self.path), self.kind)
    }
}

/// Reads the content of the current entry.
pub(super) struct ContentReader<'a, R: Read>(pub(super) &'a mut TarReader<R>);

impl<R: Read> Read for ContentReader<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let TarReader { source, content, offset, .. } = &mut *self.0;
        let (run, is_stored) = content.next_run();
        let want = run.min(content.left).min(length(to.len()));
        let buffer = to.get_mut(..usize::try_from(want).unwrap_or(0)).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        let n_read = if is_stored {
            let n_read = source.read(buffer)?;
            if n_read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            content.stored -= length(n_read);
            *offset += length(n_read);
            n_read
        } else {
            buffer.fill(0);
            buffer.len()
        };
        content.left -= length(n_read);
        content.at += length(n_read);
        Ok(n_read)
    }
}

impl<R: Read> ArchiveEntry<'_, R> {
    /// Moves over a hole if one is next, and reports what comes otherwise. Without this call, holes
    /// are read as zeros.
    pub fn next_piece(&mut self) -> Piece {
        let content = &mut self.reader.content;
        let (run, is_stored) = content.next_run();
        let n_bytes = run.min(content.left);
        if n_bytes == 0 {
            return Piece::End;
        }
        if is_stored {
            return Piece::Stored(n_bytes);
        }
        content.left -= n_bytes;
        content.at += n_bytes;
        Piece::Hole(n_bytes)
    }
}

impl<R: Read> Read for ArchiveEntry<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        ContentReader(self.reader).read(to)
    }
}
