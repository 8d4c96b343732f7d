//! Sources of an upload's bytes, and how they are read again after a broken connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};

/// Bytes of a stream that are kept for a retry. More than the buffers of a connection hold, so
/// unacknowledged bytes are usually still there.
const WINDOW_BYTES: usize = 4 << 20;
/// Size of one read of a stream, bytes.
const PIECE_BYTES: usize = 128 << 10;

/// The reason why a source failed.
#[derive(Debug)]
pub(super) enum SourceError {
    Io(io::Error),
    /// The source has fewer or more bytes than announced.
    Size {
        want: u64,
        got: u64,
    },
}

/// A sequence of bytes with a read position that can move back.
pub(super) trait UploadSource {
    /// Returns the number of bytes that follow, at most `max`. `None` if that is unknown before
    /// the end, never if `max` fits into the buffer.
    fn next_bytes(&mut self, max: u64) -> Result<Option<u64>, SourceError>;

    /// Reads the next bytes. Returns 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError>;

    /// Returns the number of bytes read.
    fn position(&self) -> u64;

    /// Moves back to an earlier position. Returns whether the bytes from there on are available.
    fn go_back(&mut self, position: u64) -> bool;
}

/// Opens a blob at its start.
pub(super) type OpenBlob<'a> = &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync);

/// A blob of known size that can be opened repeatedly.
pub(super) struct ReopenableBlob<'a> {
    open: OpenBlob<'a>,
    reader: Option<Box<dyn Read + Send>>,
    size: u64,
    position: u64,
    progress: ProgressCounter<'a>,
}

/// Reports each byte once, however often it is sent.
struct ProgressCounter<'a> {
    reported: u64,
    report: &'a (dyn Fn(u64) + Sync),
}

impl ProgressCounter<'_> {
    fn at(&mut self, position: u64) {
        if let Some(more) = position.checked_sub(self.reported).filter(|more| *more > 0) {
            (self.report)(more);
            self.reported = position;
        }
    }
}

impl<'a> ReopenableBlob<'a> {
    pub(super) fn new(open: OpenBlob<'a>, size: u64, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        let progress = ProgressCounter { reported: 0, report: progress };
        Self { open, reader: None, size, position: 0, progress }
    }

    fn reader(&mut self) -> Result<&mut Box<dyn Read + Send>, SourceError> {
        if self.reader.is_none() {
            let mut reader = (self.open)().map_err(SourceError::Io)?;
            let mut skipped = (&mut reader).take(self.position);
            let n_bytes = io::copy(&mut skipped, &mut io::sink()).map_err(SourceError::Io)?;
            if n_bytes < self.position {
                return Err(SourceError::Size { want: self.size, got: n_bytes });
            }
            self.reader = Some(reader);
        }
        Ok(self.reader.as_mut().expect("it was just set"))
    }
}

impl UploadSource for ReopenableBlob<'_> {
    fn next_bytes(&mut self, max: u64) -> Result<Option<u64>, SourceError> {
        Ok(Some((self.size - self.position).min(max)))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let size = self.size;
        let before = self.position;
        let reader = self.reader()?;
        let n_read = read(reader, buffer)?;
        let mut position = before.saturating_add(as_u64(n_read));
        if position == size {
            // A caller that requests no more than the expected size would not notice excess bytes.
            position = position.saturating_add(as_u64(read(reader, &mut [0])?));
        }
        let is_short = n_read == 0 && !buffer.is_empty() && position < size;
        if position > size || is_short {
            return Err(SourceError::Size { want: size, got: position });
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

/// A stream of unknown length, whose last bytes are kept for a retry.
pub(super) struct BufferedStream<'a> {
    reader: &'a mut dyn Read,
    /// The bytes before `end`.
    window: VecDeque<u8>,
    /// Number of bytes read from the reader.
    end: u64,
    position: u64,
    progress: ProgressCounter<'a>,
}

impl<'a> BufferedStream<'a> {
    pub(super) fn new(reader: &'a mut dyn Read, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        let progress = ProgressCounter { reported: 0, report: progress };
        // A deque that grows by itself takes twice its length, and in time uses all of that.
        let window = VecDeque::with_capacity(WINDOW_BYTES + PIECE_BYTES);
        Self { reader, window, end: 0, position: 0, progress }
    }

    /// Returns the number of bytes that are buffered but not read yet.
    fn ahead(&self) -> usize {
        usize::try_from(self.end - self.position).expect("kept bytes fit into memory")
    }

    /// Reads more bytes into the window. Returns false at the end.
    fn fill(&mut self) -> Result<bool, SourceError> {
        let mut piece = vec![0; PIECE_BYTES];
        let n_read = read(&mut self.reader, &mut piece)?;
        self.window.extend(piece.iter().take(n_read));
        self.end = self.end.saturating_add(as_u64(n_read));
        let behind = self.window.len() - self.ahead();
        let too_many = self.window.len().saturating_sub(WINDOW_BYTES).min(behind);
        self.window.drain(..too_many);
        Ok(n_read > 0)
    }
}

impl UploadSource for BufferedStream<'_> {
    fn next_bytes(&mut self, max: u64) -> Result<Option<u64>, SourceError> {
        let is_small = max <= as_u64(WINDOW_BYTES);
        let wanted = if is_small { max } else { 1 };
        while as_u64(self.ahead()) < wanted {
            if !self.fill()? {
                // At the end: all remaining bytes are in the window.
                return Ok(Some(as_u64(self.ahead())));
            }
        }
        Ok(is_small.then_some(max))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        if self.ahead() == 0 {
            self.fill()?;
        }
        let from = self.window.len() - self.ahead();
        let (front, back) = self.window.as_slices();
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
        let is_kept = position.saturating_add(as_u64(self.window.len())) >= self.end;
        if is_kept {
            self.position = position.min(self.position);
        }
        is_kept
    }
}

/// The range of a source that one request sends. A failure of the source is kept separately: the
/// HTTP library returns all errors as one type.
pub(super) struct RequestRange<'a> {
    pub(super) source: &'a mut dyn UploadSource,
    pub(super) left: u64,
    pub(super) failure: &'a RefCell<Option<SourceError>>,
}

impl Read for RequestRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let max = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..max).unwrap_or_default();
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

fn read(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, SourceError> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(SourceError::Io),
        }
    }
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).expect("a buffer is shorter than 2^64")
}
