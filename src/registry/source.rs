//! Where the bytes of an upload come from, and how they are had again after a broken connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};

/// As much of a stream is kept for another try: more than the buffers of a connection hold, so
/// that what the other side has not seen is usually still there.
const WINDOW_BYTES: usize = 4 << 20;
/// A stream is read in pieces of this size.
const PIECE_BYTES: usize = 128 << 10;

/// Why a source gave no good bytes.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    /// There are fewer or more than announced.
    Size {
        want: u64,
        got: u64,
    },
}

/// Bytes in order, with a place up to which they were read.
pub(super) trait Source {
    /// How many bytes come next, at most `most`. `None` when only their end will tell; never when
    /// `most` is small enough for a buffer.
    fn next_bytes(&mut self, most: u64) -> Result<Option<u64>, Failure>;

    /// Reads on; 0 bytes at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure>;

    /// How many bytes were read.
    fn position(&self) -> u64;

    /// Goes back to an earlier place; tells whether the bytes from there on can still be had.
    fn go_back(&mut self, position: u64) -> bool;
}

/// What opens a blob, always from its start.
pub(super) type Open<'a> = &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync);

/// A blob of known size that can be opened again.
pub(super) struct Blob<'a> {
    open: Open<'a>,
    reader: Option<Box<dyn Read + Send>>,
    size: u64,
    position: u64,
    progress: Progress<'a>,
}

/// Tells each byte's number once, however often it is sent.
struct Progress<'a> {
    told: u64,
    tell: &'a (dyn Fn(u64) + Sync),
}

impl Progress<'_> {
    fn at(&mut self, position: u64) {
        if let Some(more) = position.checked_sub(self.told).filter(|more| *more > 0) {
            (self.tell)(more);
            self.told = position;
        }
    }
}

impl<'a> Blob<'a> {
    pub(super) fn new(open: Open<'a>, size: u64, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        let progress = Progress { told: 0, tell: progress };
        Self { open, reader: None, size, position: 0, progress }
    }

    fn reader(&mut self) -> Result<&mut Box<dyn Read + Send>, Failure> {
        if self.reader.is_none() {
            let mut reader = (self.open)().map_err(Failure::Io)?;
            let mut passed = (&mut reader).take(self.position);
            let n_bytes = io::copy(&mut passed, &mut io::sink()).map_err(Failure::Io)?;
            if n_bytes < self.position {
                return Err(Failure::Size { want: self.size, got: n_bytes });
            }
            self.reader = Some(reader);
        }
        Ok(self.reader.as_mut().expect("it was just set"))
    }
}

impl Source for Blob<'_> {
    fn next_bytes(&mut self, most: u64) -> Result<Option<u64>, Failure> {
        Ok(Some((self.size - self.position).min(most)))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let size = self.size;
        let before = self.position;
        let reader = self.reader()?;
        let n_read = read(reader, buffer)?;
        let mut position = before.saturating_add(as_u64(n_read));
        if position == size {
            // Whoever asks for no more than there should be would not see that there is more.
            position = position.saturating_add(as_u64(read(reader, &mut [0])?));
        }
        let is_short = n_read == 0 && !buffer.is_empty() && position < size;
        if position > size || is_short {
            return Err(Failure::Size { want: size, got: position });
        }
        self.position = position;
        self.progress.at(position);
        Ok(n_read)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn go_back(&mut self, position: u64) -> bool {
        if position != self.position {
            self.reader = None;
        }
        self.position = position.min(self.position);
        true
    }
}

/// A stream of unknown length, of which the last bytes are kept.
pub(super) struct Stream<'a> {
    reader: &'a mut dyn Read,
    /// The bytes before `end`.
    kept: VecDeque<u8>,
    /// How many bytes the reader gave.
    end: u64,
    position: u64,
    progress: Progress<'a>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(reader: &'a mut dyn Read, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        let progress = Progress { told: 0, tell: progress };
        Self { reader, kept: VecDeque::new(), end: 0, position: 0, progress }
    }

    /// Bytes that are kept and not read yet.
    fn ahead(&self) -> usize {
        usize::try_from(self.end - self.position).expect("kept bytes fit into memory")
    }

    /// Reads one more piece into the window; tells whether there was one.
    fn fill(&mut self) -> Result<bool, Failure> {
        let mut piece = vec![0; PIECE_BYTES];
        let n_read = read(&mut self.reader, &mut piece)?;
        self.kept.extend(piece.iter().take(n_read));
        self.end = self.end.saturating_add(as_u64(n_read));
        let behind = self.kept.len() - self.ahead();
        let too_many = self.kept.len().saturating_sub(WINDOW_BYTES).min(behind);
        self.kept.drain(..too_many);
        Ok(n_read > 0)
    }
}

impl Source for Stream<'_> {
    fn next_bytes(&mut self, most: u64) -> Result<Option<u64>, Failure> {
        let is_small = most <= as_u64(WINDOW_BYTES);
        let wanted = if is_small { most } else { 1 };
        while as_u64(self.ahead()) < wanted {
            if !self.fill()? {
                // The end is seen: all that comes is here.
                return Ok(Some(as_u64(self.ahead())));
            }
        }
        Ok(is_small.then_some(most))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if self.ahead() == 0 {
            self.fill()?;
        }
        let from = self.kept.len() - self.ahead();
        let (front, back) = self.kept.as_slices();
        let slice = match front.get(from..) {
            Some(slice) if !slice.is_empty() => slice,
            _ => back.get(from - front.len()..).unwrap_or_default(),
        };
        let n_bytes = slice.len().min(buffer.len());
        let (source, target) = (slice.get(..n_bytes), buffer.get_mut(..n_bytes));
        let (source, target) = source.zip(target).expect("`n_bytes` is the shorter length");
        target.copy_from_slice(source);
        self.position = self.position.saturating_add(as_u64(n_bytes));
        self.progress.at(self.position);
        Ok(n_bytes)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn go_back(&mut self, position: u64) -> bool {
        let is_kept = position.saturating_add(as_u64(self.kept.len())) >= self.end;
        if is_kept {
            self.position = position.min(self.position);
        }
        is_kept
    }
}

/// The part of a source that one request carries. The source's own failure is kept apart: the HTTP
/// library hands back all errors in one type.
pub(super) struct Part<'a> {
    pub(super) source: &'a mut dyn Source,
    pub(super) left: u64,
    pub(super) failure: &'a RefCell<Option<Failure>>,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        match self.source.read(buffer) {
            Ok(n_read) => {
                self.left = self.left.saturating_sub(as_u64(n_read));
                Ok(n_read)
            }
            Err(failure) => {
                self.failure.replace(Some(failure));
                Err(io::Error::other("the source of the upload failed"))
            }
        }
    }
}

fn read(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(Failure::Io),
        }
    }
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).expect("a buffer is shorter than 2^64")
}
