//! Detects the compression of a stream and decompresses it.

use std::fmt;
use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::limits::{XZ_MEMORY_BYTES, ZSTD_WINDOW_LOG_MAX};

use super::bounds::{ArchiveBounds, BoundedReader, CountingReader};

/// The buffer size for compressed input.
const BUFFER_BYTES: usize = 128 * 1024;

/// Number of leading bytes that identify the compression.
const MAGIC_BYTES: usize = 6;

/// The compression of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// No known compression.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// bzip2, as bzip2(1) writes it.
    Bzip2,
    /// The .xz format (<https://tukaani.org/xz/xz-file-format.txt>).
    Xz,
    /// zstd (RFC 8878).
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        })
    }
}

/// Returns the compression by the magic number at the start.
#[must_use]
pub fn detect(first_bytes: &[u8]) -> Compression {
    match first_bytes {
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame may precede the first data frame (RFC 8878, "Skippable Frames").
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Detects the compression of `source` by its first bytes and decompresses it; a stream may have
/// several members. Output beyond `bounds` ends with an error of kind `FileTooLarge`.
///
/// # Errors
/// The error of `source` for its first bytes, or of a decoder that cannot be set up.
pub fn decoder(
    source: Box<dyn Read + Send>,
    bounds: &ArchiveBounds,
) -> io::Result<(Compression, Box<dyn Read + Send>)> {
    let (mut source, n_packed) = CountingReader::new(source);
    let mut first = Vec::with_capacity(MAGIC_BYTES);
    let n_wanted = u64::try_from(MAGIC_BYTES).unwrap_or(u64::MAX);
    source.by_ref().take(n_wanted).read_to_end(&mut first)?;
    let compression = detect(&first);
    let whole = io::Cursor::new(first).chain(source);
    if compression == Compression::None {
        return Ok((compression, Box::new(BoundedReader::new(whole, *bounds, n_packed))));
    }
    let whole = BufReader::with_capacity(BUFFER_BYTES, whole);
    let decoded: Box<dyn Read + Send> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Compression::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, flags)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    };
    Ok((compression, Box::new(BoundedReader::new(decoded, *bounds, n_packed))))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn check(bytes: Vec<u8>, want: Compression) {
        let (found, mut decoded) =
            decoder(Box::new(io::Cursor::new(bytes)), &ArchiveBounds::default()).unwrap();
        let mut text = String::new();
        decoded.read_to_string(&mut text).unwrap();
        assert_eq!((found, &*text), (want, "first,second"));
    }

    #[test]
    fn every_compression_is_found_and_decoded_over_several_members() {
        check(b"first,second".to_vec(), Compression::None);
        let each = |pack: &dyn Fn(&[u8]) -> Vec<u8>| [pack(b"first,"), pack(b"second")].concat();
        let gzip = |bytes: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let bzip2 = |bytes: &[u8]| {
            let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let xz = |bytes: &[u8]| {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        check(each(&gzip), Compression::Gzip);
        check(each(&bzip2), Compression::Bzip2);
        check(each(&xz), Compression::Xz);
        check(each(&|bytes| zstd::encode_all(bytes, 1).unwrap()), Compression::Zstd);
    }

    #[test]
    fn stream_shorter_than_a_magic_number_is_passed_through() {
        for bytes in [&b""[..], b"B", b"\x1f\x8b"] {
            let (found, mut decoded) = decoder(Box::new(bytes), &ArchiveBounds::default()).unwrap();
            let mut rest = Vec::new();
            decoded.read_to_end(&mut rest).unwrap();
            assert_eq!((found, &*rest), (Compression::None, bytes));
        }
    }
}
