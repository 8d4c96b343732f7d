//! Reads ahead on a separate thread, so the consumer of the bytes does not wait for them.

use std::fmt;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::pool;

/// The size of a chunk in bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// Number of chunks in the queue; with the two in use, 1.5 MiB.
const N_CHUNKS: usize = 4;

/// A reader that runs about a mebibyte ahead of its consumer.
pub struct ReadAhead {
    from: ChunkSource,
    chunk: Vec<u8>,
    n_used: usize,
    has_ended: bool,
}

enum ChunkSource {
    /// A thread; an empty chunk is the end.
    Thread(Receiver<io::Result<Vec<u8>>>),
    /// The reader itself, if no thread could be started.
    Source(Box<dyn Read + Send>),
}

impl fmt::Debug for ReadAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadAhead")
    }
}

impl ReadAhead {
    /// Starts the thread that reads `source`. It ends with the source, or soon after this value is
    /// dropped.
    #[must_use]
    pub fn new(source: Box<dyn Read + Send>) -> Self {
        let (full, chunks) = sync_channel(N_CHUNKS);
        let from = match pool::background_with(source, move |source| read_all(source, &full)) {
            Ok(()) => ChunkSource::Thread(chunks),
            Err(source) => ChunkSource::Source(source),
        };
        Self { from, chunk: Vec::new(), n_used: 0, has_ended: false }
    }
}

fn read_all(mut source: Box<dyn Read + Send>, full: &SyncSender<io::Result<Vec<u8>>>) {
    let most = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = source.by_ref().take(most).read_to_end(&mut chunk);
        let is_last = read.is_err() || chunk.is_empty();
        // The receiver is gone if the consumer was dropped.
        if full.send(read.map(|_n_read| chunk)).is_err() || is_last {
            return;
        }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let chunks = match &mut self.from {
            ChunkSource::Thread(chunks) => chunks,
            ChunkSource::Source(source) => return source.read(to),
        };
        if self.n_used == self.chunk.len() && !self.has_ended {
            let ended_early = || io::Error::other("a reading thread ended early");
            self.chunk = chunks.recv().map_err(|_gone| ended_early())??;
            self.n_used = 0;
            self.has_ended = self.chunk.is_empty();
        }
        let n_read = self.chunk.get(self.n_used..).unwrap_or_default().read(to)?;
        self.n_used += n_read;
        Ok(n_read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_ahead_returns_the_same_bytes() {
        for n_bytes in [0, 1, CHUNK_BYTES, CHUNK_BYTES * 9 + 5] {
            let bytes: Vec<u8> = (0..=255).cycle().take(n_bytes).collect();
            let mut read = Vec::new();
            let mut ahead = ReadAhead::new(Box::new(io::Cursor::new(bytes.clone())));
            ahead.read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{n_bytes}");
            assert_eq!(ahead.read(&mut [0; 8]).unwrap(), 0);
        }
    }

    #[test]
    fn error_comes_after_the_bytes_before_it() {
        struct Breaks;
        impl Read for Breaks {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
        let good = vec![7; CHUNK_BYTES];
        let mut ahead = ReadAhead::new(Box::new(io::Cursor::new(good.clone()).chain(Breaks)));
        let mut read = Vec::new();
        let error = ahead.read_to_end(&mut read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(read == good);
    }

    #[test]
    fn an_endless_source_ends_with_its_reader() {
        let mut ahead = ReadAhead::new(Box::new(io::repeat(1)));
        let mut some = [0; 10];
        ahead.read_exact(&mut some).unwrap();
        assert_eq!(some, [1; 10]);
    }
}
