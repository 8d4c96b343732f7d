//! Reading on a thread of its own, so that whoever uses the bytes does not wait for them.

use std::fmt;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::pool;

/// Bytes handed over at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces that wait to be used; with the two in hand, 1.5 MiB.
const N_PIECES: usize = 4;

/// Gives what another reader gives, which runs ahead by about a mebibyte.
pub struct ReadAhead {
    from: Origin,
    piece: Vec<u8>,
    n_used: usize,
    has_ended: bool,
}

enum Origin {
    /// A thread; an empty piece is the end.
    Thread(Receiver<io::Result<Vec<u8>>>),
    /// The reader itself: no thread could be started.
    Source(Box<dyn Read + Send>),
}

impl fmt::Debug for ReadAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadAhead")
    }
}

impl ReadAhead {
    /// Starts the thread that reads `source`; it ends with the source, or soon after this is dropped.
    #[must_use]
    pub fn new(source: Box<dyn Read + Send>) -> Self {
        let (full, pieces) = sync_channel(N_PIECES);
        let from = match pool::background_with(source, move |source| read_all(source, &full)) {
            Ok(()) => Origin::Thread(pieces),
            Err(source) => Origin::Source(source),
        };
        Self { from, piece: Vec::new(), n_used: 0, has_ended: false }
    }
}

fn read_all(mut source: Box<dyn Read + Send>, full: &SyncSender<io::Result<Vec<u8>>>) {
    let most = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = source.by_ref().take(most).read_to_end(&mut piece);
        let is_last = read.is_err() || piece.is_empty();
        // Nobody wants more when the other end is gone.
        if full.send(read.map(|_n_read| piece)).is_err() || is_last {
            return;
        }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let pieces = match &mut self.from {
            Origin::Thread(pieces) => pieces,
            Origin::Source(source) => return source.read(to),
        };
        if self.n_used == self.piece.len() && !self.has_ended {
            let ended_early = || io::Error::other("a reading thread ended early");
            self.piece = pieces.recv().map_err(|_gone| ended_early())??;
            self.n_used = 0;
            self.has_ended = self.piece.is_empty();
        }
        let n_read = self.piece.get(self.n_used..).unwrap_or_default().read(to)?;
        self.n_used += n_read;
        Ok(n_read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ahead_is_what_is_there() {
        for n_bytes in [0, 1, PIECE_BYTES, PIECE_BYTES * 9 + 5] {
            let bytes: Vec<u8> = (0..=255).cycle().take(n_bytes).collect();
            let mut read = Vec::new();
            let mut ahead = ReadAhead::new(Box::new(io::Cursor::new(bytes.clone())));
            ahead.read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{n_bytes}");
            assert_eq!(ahead.read(&mut [0; 8]).unwrap(), 0);
        }
    }

    #[test]
    fn an_error_comes_after_what_was_read_before_it() {
        struct Breaks;
        impl Read for Breaks {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
        let good = vec![7; PIECE_BYTES];
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
