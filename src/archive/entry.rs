//! An entry of a tar being read: its metadata and its content.

use std::fmt;
use std::io::{self, Read};

use crate::tree::{Device, Meta};

use super::reader::{TarReader, length};

/// The type of file that an entry describes (POSIX pax(1), "ustar Interchange Format", typeflag).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, maybe sparse.
    File,
    /// A directory, which has no content.
    Directory,
    /// Another name of the file at this path.
    HardLink(Vec<u8>),
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A character device with its number.
    CharDevice(Device),
    /// A block device with its number.
    BlockDevice(Device),
    /// A named pipe (fifo(7)).
    Fifo,
}

/// An entry of a tar; reading from it returns its content.
pub struct ArchiveEntry<'a, R: Read> {
    /// The name as in the archive, neither cleaned nor checked, but bounded in length.
    pub path: Vec<u8>,
    /// The type of file.
    pub kind: EntryKind,
    /// Mode, owners, time, and all extended attributes in the archive.
    pub meta: Meta,
    /// The length of the content in bytes, holes included.
    pub size: u64,
    /// The offset of the content in the tar, or [`NOT_IN_ONE_PIECE`](super::NOT_IN_ONE_PIECE).
    pub content_at: u64,
    pub(super) reader: &'a mut TarReader<R>,
}

/// The next run of an entry's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentRun {
    /// A hole of this length, which the reader has skipped.
    Hole(u64),
    /// Stored bytes, this many until the next hole or the end.
    Stored(u64),
    /// The end of the content.
    End,
}

impl<R: Read> fmt::Debug for ArchiveEntry<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", String::from_utf8_lossy(&self.path), self.kind)
    }
}

/// A reader of the current entry's content.
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
    /// Skips a hole if one is next, and returns what comes next. Without this call, holes are read
    /// as zeros.
    pub fn next_run(&mut self) -> ContentRun {
        let content = &mut self.reader.content;
        let (run, is_stored) = content.next_run();
        let n_bytes = run.min(content.left);
        if n_bytes == 0 {
            return ContentRun::End;
        }
        if is_stored {
            return ContentRun::Stored(n_bytes);
        }
        content.left -= n_bytes;
        content.at += n_bytes;
        ContentRun::Hole(n_bytes)
    }
}

impl<R: Read> Read for ArchiveEntry<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        ContentReader(self.reader).read(to)
    }
}
