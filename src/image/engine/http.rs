//! Minimal HTTP/1.1 client (RFC 9112) for an engine's socket: one request per connection.

use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::limits::{MAX_ENGINE_BODY_BYTES, MAX_ENGINE_HEAD_BYTES};

/// Time limit for each read and write. The engine unpacks whole images before it responds.
const IO_TIMEOUT: Duration = Duration::from_secs(600);
/// Size of a chunk in bytes.
const CHUNK_BYTES: usize = 128 << 10;

/// The status and body of the engine's response.
pub(super) struct EngineResponse {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Requests the document at `path`.
pub(super) fn get(socket: &Path, path: &str) -> io::Result<EngineResponse> {
    let mut stream = connect(socket)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")?;
    read_response(stream)
}

/// Sends a tar of unknown length.
pub(super) fn post_tar(
    socket: &Path,
    path: &str,
    fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<EngineResponse> {
    let mut stream = connect(socket)?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    let mut body = BufWriter::with_capacity(CHUNK_BYTES, Chunks(&stream));
    let sent = fill(&mut body).and_then(|()| body.flush());
    // The rest of the buffer belongs to an incomplete body.
    let (_chunks, _rest) = body.into_parts();
    match sent.and_then(|()| stream.write_all(b"0\r\n\r\n")) {
        Ok(()) => read_response(stream),
        // The engine may have sent the reason before it closed the connection.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            read_response(stream).or(Err(error))
        }
        Err(error) => {
            let said = stream.shutdown(std::net::Shutdown::Both);
            said.and(Err(error))
        }
    }
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    Ok(stream)
}

/// Writes each buffer as a chunk (RFC 9112, section 7.1).
struct Chunks<'a>(&'a UnixStream);

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An empty chunk would end the body.
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

fn read_response(stream: UnixStream) -> io::Result<EngineResponse> {
    let mut reader = BufReader::new(stream);
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = reader.by_ref().take(MAX_ENGINE_HEAD_BYTES);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| bad("its response is not HTTP"))?;
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
    Ok(EngineResponse { status, body })
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
        left = left.checked_sub(size).ok_or_else(|| bad("its response is too long"))?;
        reader.by_ref().take(size).read_to_end(body)?;
        line.clear();
        reader.by_ref().take(MAX_ENGINE_HEAD_BYTES).read_line(&mut line)?;
    }
}
