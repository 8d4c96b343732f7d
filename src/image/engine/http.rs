//! The little of HTTP/1.1 that an engine's socket needs (RFC 9112): one request a connection.

use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::limits::{MAX_ENGINE_BODY_BYTES, MAX_ENGINE_HEAD_BYTES};

/// An engine may take so long to say something: it unpacks whole images first.
const PATIENCE: Duration = Duration::from_secs(600);
/// Bytes that are sent as one chunk.
const CHUNK_BYTES: usize = 128 << 10;

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Asks for a document.
pub(super) fn get(socket: &Path, path: &str) -> io::Result<Answer> {
    let mut stream = connect(socket)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")?;
    answer(stream)
}

/// Sends a tar, whose length need not be known.
pub(super) fn post_tar(
    socket: &Path,
    path: &str,
    fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Answer> {
    let mut stream = connect(socket)?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    let mut body = BufWriter::with_capacity(CHUNK_BYTES, Chunks(&stream));
    let sent = fill(&mut body).and_then(|()| body.flush());
    // What is still in the buffer belongs to a body that is not complete.
    let (_chunks, _rest) = body.into_parts();
    match sent.and_then(|()| stream.write_all(b"0\r\n\r\n")) {
        Ok(()) => answer(stream),
        // The engine may have said why it no longer listens.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => answer(stream).or(Err(error)),
        Err(error) => {
            let said = stream.shutdown(std::net::Shutdown::Both);
            said.and(Err(error))
        }
    }
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Writes each piece as a chunk (RFC 9112, 7.1).
struct Chunks<'a>(&'a UnixStream);

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An empty chunk would be the end.
        if !bytes.is_empty() {
            write!(self.0, "{:x}\r\n", bytes.len())?;
            self.0.write_all(bytes)?;
            self.0.write_all(b"\r\n")?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn answer(stream: UnixStream) -> io::Result<Answer> {
    let mut reader = BufReader::new(stream);
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = reader.by_ref().take(MAX_ENGINE_HEAD_BYTES);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| bad("it does not speak HTTP"))?;
    let (mut length, mut is_chunked) = (None, false);
    loop {
        line.clear();
        head.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse::<u64>().ok(),
            "transfer-encoding" => is_chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if is_chunked {
        read_chunks(&mut reader, &mut body)?;
    } else {
        let limit = length.unwrap_or(MAX_ENGINE_BODY_BYTES).min(MAX_ENGINE_BODY_BYTES);
        reader.take(limit).read_to_end(&mut body)?;
    }
    Ok(Answer { status, body })
}

fn read_chunks(reader: &mut BufReader<UnixStream>, body: &mut Vec<u8>) -> io::Result<()> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut left = MAX_ENGINE_BODY_BYTES;
    loop {
        let mut line = String::new();
        reader.by_ref().take(MAX_ENGINE_HEAD_BYTES).read_line(&mut line)?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let size =
            u64::from_str_radix(size, 16).map_err(|_no_number| bad("a chunk has no size"))?;
        if size == 0 {
            return Ok(());
        }
        left = left.checked_sub(size).ok_or_else(|| bad("its answer is too long"))?;
        reader.by_ref().take(size).read_to_end(body)?;
        line.clear();
        reader.by_ref().take(MAX_ENGINE_HEAD_BYTES).read_line(&mut line)?;
    }
}
