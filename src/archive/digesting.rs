//! Readers and writers that hash the bytes passing through them.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::oci::{Digest, Hasher};
use crate::pool;

/// A writer that forwards to a sink and hashes the bytes that the sink accepted.
#[derive(Debug)]
pub struct DigestWriter<W> {
    out: W,
    hasher: Hasher,
}

impl<W> DigestWriter<W> {
    /// Creates a writer to `out`.
    pub fn new(out: W) -> Self {
        Self { out, hasher: Hasher::new() }
    }

    /// Returns the number of bytes written.
    #[must_use]
    pub const fn n_bytes(&self) -> u64 {
        self.hasher.n_bytes()
    }

    /// Returns the sink, the digest, and the number of bytes.
    #[must_use]
    pub fn finish(self) -> (W, Digest, u64) {
        let n_bytes = self.hasher.n_bytes();
        (self.out, self.hasher.finish(), n_bytes)
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_written = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..n_written).unwrap_or(bytes));
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A reader that fails if the stream is not the expected one: at its end, or as soon as it is too
/// long.
#[derive(Debug)]
pub struct VerifyReader<R> {
    source: R,
    want: Digest,
    size: u64,
    hasher: Option<Hasher>,
}

/// A stream with another size or digest than expected; the inner error of a [`VerifyReader`]'s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The stream is too short or too long.
    #[error("size is at least {got} bytes, not {want}")]
    Size {
        /// The expected number of bytes.
        want: u64,
        /// The number of bytes read, or a lower bound of it.
        got: u64,
    },
    /// The stream has the right length but other bytes.
    #[error("digest is {got}, not {want}")]
    Digest {
        /// The expected digest.
        want: Digest,
        /// The digest of the bytes read.
        got: Digest,
    },
}

impl<R: Read> VerifyReader<R> {
    /// Creates a reader that expects `size` bytes with the digest `want`.
    pub fn new(source: R, want: Digest, size: u64) -> Self {
        Self { source, want, size, hasher: Some(Hasher::new()) }
    }

    fn check_end(&mut self) -> io::Result<()> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let n_bytes = hasher.n_bytes();
        if n_bytes != self.size {
            return Err(invalid(Mismatch::Size { want: self.size, got: n_bytes }));
        }
        let got = hasher.finish();
        if got != self.want {
            return Err(invalid(Mismatch::Digest { want: self.want, got }));
        }
        Ok(())
    }
}

fn invalid(mismatch: Mismatch) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, mismatch)
}

impl<R: Read> Read for VerifyReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        let n_read = self.source.read(to)?;
        if n_read == 0 {
            return self.check_end().map(|()| 0);
        }
        let Some(hasher) = &mut self.hasher else {
            let got = self.size.saturating_add(1);
            return Err(invalid(Mismatch::Size { want: self.size, got }));
        };
        hasher.update(to.get(..n_read).unwrap_or_default());
        if hasher.n_bytes() > self.size {
            let got = hasher.n_bytes();
            return Err(invalid(Mismatch::Size { want: self.size, got }));
        }
        Ok(n_read)
    }
}

/// The size of a chunk: large enough that the cost of waking the other thread is negligible.
const CHUNK_BYTES: usize = 256 * 1024;

/// Number of chunks in the queue; with the one being filled, 1.25 MiB.
const N_CHUNKS: usize = 4;

/// A writer that runs its sink on a separate thread, so the caller does not wait for it.
pub struct Pipelined<W> {
    chunk: Vec<u8>,
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    done: Receiver<io::Result<W>>,
    /// The sink itself, if no thread could be started.
    direct: Option<W>,
}

/// A SHA-256 hasher on a separate thread.
pub type PipelinedHasher = Pipelined<Hasher>;

impl<W> fmt::Debug for Pipelined<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipelined")
    }
}

impl Pipelined<Hasher> {
    /// Creates a hasher for everything written to it.
    #[must_use]
    pub fn hasher() -> Self {
        Self::new(Hasher::new())
    }

    /// Returns the digest of everything written, and the number of bytes.
    ///
    /// # Errors
    /// Only if the thread died.
    pub fn digest(self) -> io::Result<(Digest, u64)> {
        let hasher = self.finish()?;
        let n_bytes = hasher.n_bytes();
        Ok((hasher.finish(), n_bytes))
    }
}

impl<W: Write + Send + 'static> Pipelined<W> {
    /// Starts the thread that writes to `out`.
    #[must_use]
    pub fn new(out: W) -> Self {
        let (full, inbox) = sync_channel::<Vec<u8>>(N_CHUNKS);
        let (back, empty) = sync_channel::<Vec<u8>>(N_CHUNKS + 2);
        let (result, done) = sync_channel(1);
        let direct = pool::background_with(out, move |mut out| {
            let written = inbox.iter().try_for_each(|mut chunk| {
                out.write_all(&chunk)?;
                chunk.clear();
                // The receiver may be gone by now; the buffer is then freed.
                drop(back.try_send(chunk));
                Ok(())
            });
            // Drop the inbox first: a writer that waits for space must receive the error.
            drop(inbox);
            drop(result.send(written.and_then(|()| out.flush()).map(|()| out)));
        });
        let direct = direct.err();
        Self { chunk: Vec::with_capacity(CHUNK_BYTES), full: Some(full), empty, done, direct }
    }

    /// Waits until everything is written, and returns the sink.
    ///
    /// # Errors
    /// The error of the sink.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.chunk.is_empty() {
            self.send_chunk()?;
        }
        self.full = None;
        match self.direct.take() {
            Some(mut out) => out.flush().map(|()| out),
            None => self.result(),
        }
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        if let Some(out) = &mut self.direct {
            out.write_all(&self.chunk)?;
            self.chunk.clear();
            return Ok(());
        }
        let next = self.empty.try_recv().unwrap_or_else(|_none| Vec::with_capacity(CHUNK_BYTES));
        let chunk = std::mem::replace(&mut self.chunk, next);
        let sent = self.full.as_ref().is_some_and(|full| full.send(chunk).is_ok());
        if sent { Ok(()) } else { self.result().and(Err(ended_early())) }
    }

    fn result(&self) -> io::Result<W> {
        self.done.recv().unwrap_or_else(|_died| Err(ended_early()))
    }
}

fn ended_early() -> io::Error {
    io::Error::other("a writing thread ended early")
}

impl<W: Write + Send + 'static> Write for Pipelined<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let space = CHUNK_BYTES - self.chunk.len();
        let taken = bytes.get(..space).unwrap_or(bytes);
        self.chunk.extend_from_slice(taken);
        if self.chunk.len() == CHUNK_BYTES {
            self.send_chunk()?;
        }
        Ok(taken.len())
    }

    /// Does nothing: only [`Pipelined::finish`] flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelined_hash_equals_direct_hash() {
        for n_bytes in [0, 1, CHUNK_BYTES, CHUNK_BYTES * 9 + 5] {
            let bytes = vec![7; n_bytes];
            let mut hasher = PipelinedHasher::hasher();
            bytes.chunks(100_001).for_each(|chunk| hasher.write_all(chunk).unwrap());
            let want = (Digest::of(&bytes), u64::try_from(n_bytes).unwrap());
            assert_eq!(hasher.digest().unwrap(), want);
        }
    }

    #[test]
    fn error_of_a_pipelined_sink_reaches_the_writer() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = Pipelined::new(Full);
        let error = loop {
            if let Err(error) = sink.write_all(&[0; 100_000]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let mut sink = Pipelined::new(Full);
        sink.write_all(&[0; 10]).unwrap();
        assert_eq!(sink.finish().err().unwrap().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn stream_is_verified_at_its_end() {
        let read = |bytes: &[u8], want: &[u8], size| {
            let mut reader = VerifyReader::new(bytes, Digest::of(want), size);
            io::copy(&mut reader, &mut io::sink()).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"abc", b"abc", 3), Ok(3));
        assert_eq!(read(b"abc", b"abc", 4), Err("size is at least 3 bytes, not 4".to_owned()));
        assert_eq!(read(b"abcd", b"abc", 3), Err("size is at least 4 bytes, not 3".to_owned()));
        let error = read(b"abd", b"abc", 3).unwrap_err();
        let want = format!("digest is {}, not {}", Digest::of(b"abd"), Digest::of(b"abc"));
        assert_eq!(error, want);
    }
}
