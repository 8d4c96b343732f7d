//! Compresses layers for a sink.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use zstd::stream::raw;
use zstd::stream::zio;
use zstd::zstd_safe::CParameter;

use super::gzip::GzipWriter;
use crate::pool;

/// The compression of a layer's tar, with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// The tar itself, uncompressed.
    None,
    /// gzip with one member for each 512 KiB.
    Gzip {
        /// The level of libdeflate, 0 to 12.
        level: u32,
    },
    /// A single zstd frame.
    Zstd {
        /// The level of zstd, 1 to 22; its default is 3.
        level: i32,
    },
}

impl Packing {
    /// gzip, which every registry and engine reads, at level 4: a little smaller than zlib's usual
    /// 6, in half the time.
    pub const GZIP: Self = Self::Gzip { level: 4 };
    /// zstd at its default level, 3.
    pub const ZSTD: Self = Self::Zstd { level: 3 };
}

/// Version of the gzip writer. It must be increased when the same content and level give other bytes:
/// the store does not reuse blobs of other versions.
pub const GZIP_VERSION: u32 = 2;

/// The number of input bytes for a zstd worker at a time. zstd's own default, 8 MiB at level 3,
/// needs 120 MB with two workers. The output depends on it.
const ZSTD_JOB_BYTES: u32 = 4 << 20;

/// A compressing writer. Dropping it without [`PackWriter::finish`] leaves a truncated stream.
pub trait PackWriter<W>: Write {
    /// Writes the buffered rest and the end of the stream, and returns the sink.
    ///
    /// # Errors
    /// The error of the sink.
    fn finish(self: Box<Self>) -> io::Result<W>;
}

impl<W> fmt::Debug for dyn PackWriter<W> + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PackWriter")
    }
}

/// Returns a writer that compresses into `out` on up to `jobs` threads. The bytes depend on the
/// content and the level only: not on `jobs`, the machine, or the sizes of the writes.
///
/// # Errors
/// The error of zstd, if there is not enough memory.
pub fn packer<'a, W: Write + Send + 'a>(
    out: W,
    packing: Packing,
    jobs: NonZeroUsize,
) -> io::Result<Box<dyn PackWriter<W> + Send + 'a>> {
    Ok(match packing {
        Packing::None => Box::new(UncompressedWriter(out)),
        Packing::Gzip { level } => Box::new(GzipWriter::new(out, level, jobs)),
        Packing::Zstd { level } => {
            let mut encoder = raw::Encoder::new(level)?;
            // Without workers zstd splits its input at other offsets, which changes the output.
            let n_workers = u32::try_from(jobs.get()).unwrap_or(1);
            encoder.set_parameter(CParameter::NbWorkers(n_workers))?;
            encoder.set_parameter(CParameter::JobSize(ZSTD_JOB_BYTES))?;
            Box::new(ZstdWriter { writer: zio::Writer::new(out, encoder), has_begun: false })
        }
    })
}

struct UncompressedWriter<W>(W);

impl<W: Write> Write for UncompressedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> PackWriter<W> for UncompressedWriter<W> {
    fn finish(mut self: Box<Self>) -> io::Result<W> {
        self.0.flush()?;
        Ok(self.0)
    }
}

struct ZstdWriter<'a, W: Write> {
    writer: zio::Writer<W, raw::Encoder<'a>>,
    /// True once zstd has started its threads.
    has_begun: bool,
}

impl<W: Write> ZstdWriter<'_, W> {
    /// Writes the first bytes. zstd starts its threads on this call, and reports a thread that
    /// cannot be started as lack of memory. If not all can be started, a single one does the work.
    fn begin(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = pool::start_with_retries(|| {
            let error = match self.writer.write(bytes) {
                Err(error) if error.get_ref().is_some_and(|inner| inner.is::<zstd::Error>()) => {
                    error
                }
                written => return written,
            };
            self.writer.operation_mut().set_parameter(CParameter::NbWorkers(1))?;
            Err(io::Error::new(io::ErrorKind::WouldBlock, error))
        })?;
        self.has_begun = true;
        Ok(n_bytes)
    }
}

impl<W: Write> Write for ZstdWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_begun { self.writer.write(bytes) } else { self.begin(bytes) }
    }

    /// Does nothing: ending a block early would change the output.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> PackWriter<W> for ZstdWriter<'_, W> {
    fn finish(mut self: Box<Self>) -> io::Result<W> {
        self.writer.finish()?;
        let (mut out, _encoder) = self.writer.into_inner();
        out.flush()?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::archive::{Compression, decoder};
    use crate::oci::Digest;

    /// Bytes that compress about as well as a layer does.
    fn sample(n_bytes: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut bytes = Vec::with_capacity(n_bytes + 16);
        while bytes.len() < n_bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let word = state >> 12;
            bytes.extend_from_slice(word.to_string().as_bytes());
            if word.is_multiple_of(3) {
                bytes.extend_from_slice(b"/usr/share/doc/");
            }
            if word.is_multiple_of(7) {
                bytes.extend_from_slice(&state.to_le_bytes());
            }
        }
        bytes.truncate(n_bytes);
        bytes
    }

    fn random(n_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; n_bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn pack(bytes: &[u8], packing: Packing, jobs: usize, piece: usize) -> Vec<u8> {
        let mut out = packer(Vec::new(), packing, NonZeroUsize::new(jobs).unwrap()).unwrap();
        for chunk in bytes.chunks(piece) {
            out.write_all(chunk).unwrap();
            out.flush().unwrap();
        }
        out.finish().unwrap()
    }

    #[test]
    fn packed_bytes_are_the_same_for_any_number_of_threads_and_any_cut() {
        // Members of the second half are stored.
        let bytes = [sample(2_000_000), random(1_500_000)].concat();
        for packing in [Packing::None, Packing::GZIP, Packing::ZSTD, Packing::Gzip { level: 1 }] {
            let want = pack(&bytes, packing, 1, 65_536);
            for (jobs, piece) in [(1, 1_000_000), (2, 777), (8, 3_500_000)] {
                assert!(pack(&bytes, packing, jobs, piece) == want, "{packing:?} {jobs} {piece}");
            }
        }
    }

    #[test]
    fn packed_bytes_unpack_to_the_input() {
        for n_bytes in [0, 1, 524_287, 524_288, 524_289, 1_700_000] {
            let bytes = sample(n_bytes);
            for (packing, want) in
                [(Packing::GZIP, Compression::Gzip), (Packing::ZSTD, Compression::Zstd)]
            {
                let packed = pack(&bytes, packing, 3, 4096);
                let (found, mut decoded) = decoder(
                    Box::new(io::Cursor::new(packed)),
                    &crate::archive::ArchiveBounds::default(),
                )
                .unwrap();
                let mut unpacked = Vec::new();
                decoded.read_to_end(&mut unpacked).unwrap();
                assert!(found == want && unpacked == bytes, "{packing:?} {n_bytes}");
            }
        }
    }

    #[test]
    fn bytes_that_do_not_compress_grow_by_little() {
        let bytes = random(1_000_000);
        let packed = pack(&bytes, Packing::GZIP, 2, 4096);
        assert!(packed.len() < 1_001_000, "{}", packed.len());
    }

    #[test]
    fn gzip_bytes_are_pinned() {
        // A commit that changes a digest increases the version.
        assert_eq!(GZIP_VERSION, 2);
        let mut uneven = random(1_300_000);
        uneven.iter_mut().step_by(40).for_each(|byte| *byte = 0);
        for (bytes, want) in [
            (sample(1_300_000), "6443b4675ac40baccc068abe44de70c4ff3b5c51a625ba224403f17bff711584"),
            (uneven, "1bd570587bea209fcf730f91b5afbf75e063734d598c0c257284b8daa2ca129a"),
        ] {
            let packed = pack(&bytes, Packing::GZIP, 2, 4096);
            assert_eq!(Digest::of(&packed).hex(), want);
        }
    }
}
