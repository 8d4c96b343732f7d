//! How layers are packed for a sink.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use zstd::stream::raw;
use zstd::stream::zio;
use zstd::zstd_safe::CParameter;

use super::gzip::GzipWriter;
use crate::pool;

/// How a layer's tar is packed, and how hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// As it is.
    None,
    /// gzip members.
    Gzip {
        /// 0 to 12: libdeflate's.
        level: u32,
    },
    /// One zstd frame.
    Zstd {
        /// 1 to 22; 3 is zstd's own default.
        level: i32,
    },
}

impl Packing {
    /// gzip, what every registry and engine reads, at level 4: a little smaller than zlib's usual 6,
    /// in half the time.
    pub const GZIP: Self = Self::Gzip { level: 4 };
    /// zstd at level 3.
    pub const ZSTD: Self = Self::Zstd { level: 3 };
}

/// Bytes of input that one zstd worker takes at a time. zstd's own choice, 8 MiB at level 3, needs
/// 120 MB with two workers. The output depends on it.
const ZSTD_JOB_BYTES: u32 = 4 << 20;

/// Packs what is written to it. Dropping it instead of finishing leaves a torn stream.
pub trait PackWriter<W>: Write {
    /// Writes what is held back and the end of the stream, and gives the sink back.
    ///
    /// # Errors
    /// The sink's.
    fn finish(self: Box<Self>) -> io::Result<W>;
}

impl<W> fmt::Debug for dyn PackWriter<W> + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PackWriter")
    }
}

/// Packs into `out` on up to `jobs` threads. The bytes depend on the content and the level only:
/// not on `jobs`, not on the machine, not on how the content is cut into writes.
///
/// # Errors
/// zstd's, when there is no memory.
pub fn packer<'a, W: Write + Send + 'a>(
    out: W,
    packing: Packing,
    jobs: NonZeroUsize,
) -> io::Result<Box<dyn PackWriter<W> + Send + 'a>> {
    Ok(match packing {
        Packing::None => Box::new(Plain(out)),
        Packing::Gzip { level } => Box::new(GzipWriter::new(out, level, jobs)),
        Packing::Zstd { level } => {
            let mut encoder = raw::Encoder::new(level)?;
            // With no worker at all zstd cuts its jobs elsewhere, and the bytes differ.
            let n_workers = u32::try_from(jobs.get()).unwrap_or(1);
            encoder.set_parameter(CParameter::NbWorkers(n_workers))?;
            encoder.set_parameter(CParameter::JobSize(ZSTD_JOB_BYTES))?;
            Box::new(Zstd { writer: zio::Writer::new(out, encoder), has_begun: false })
        }
    })
}

struct Plain<W>(W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> PackWriter<W> for Plain<W> {
    fn finish(mut self: Box<Self>) -> io::Result<W> {
        self.0.flush()?;
        Ok(self.0)
    }
}

struct Zstd<'a, W: Write> {
    writer: zio::Writer<W, raw::Encoder<'a>>,
    /// True once zstd has its threads.
    has_begun: bool,
}

impl<W: Write> Zstd<'_, W> {
    /// Writes the first bytes. zstd starts its threads then, and says of one that does not start that
    /// there is not enough memory: if not all can be started, one does the work.
    fn begin(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = pool::patiently(|| {
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

impl<W: Write> Write for Zstd<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_begun { self.writer.write(bytes) } else { self.begin(bytes) }
    }

    /// Does nothing: a frame's block that ends early would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> PackWriter<W> for Zstd<'_, W> {
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
        let bytes = sample(3_000_000);
        for packing in [Packing::None, Packing::GZIP, Packing::ZSTD, Packing::Gzip { level: 1 }] {
            let want = pack(&bytes, packing, 1, 65_536);
            for (jobs, piece) in [(1, 1_000_000), (2, 777), (8, 3_000_000)] {
                assert!(pack(&bytes, packing, jobs, piece) == want, "{packing:?} {jobs} {piece}");
            }
        }
    }

    #[test]
    fn what_is_packed_can_be_unpacked() {
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
        let mut bytes = vec![0; 1_000_000];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let packed = pack(&bytes, Packing::GZIP, 2, 4096);
        assert!(packed.len() < 1_001_000, "{}", packed.len());
    }

    #[test]
    fn gzip_bytes_are_pinned() {
        let packed = pack(&sample(1_300_000), Packing::GZIP, 2, 4096);
        assert_eq!(
            Digest::of(&packed).hex(),
            "6443b4675ac40baccc068abe44de70c4ff3b5c51a625ba224403f17bff711584"
        );
    }
}
