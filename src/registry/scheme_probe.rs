//! Finds out whether a server speaks https or plain http, for registries that may do either.
//!
//! A request is sent as plain http, without credentials. A server of TLS does not understand it: it closes
//! the connection, sends an alert (RFC 8446, section 6), or status 400 as Go's does.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::url::Scheme;
use crate::pool;

/// Time limit for the connection and for each part of the response.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Length of the part of the status line with the status (RFC 9112, section 4).
const STATUS_BYTES: usize = "HTTP/1.1 200".len();

/// The protocols of servers, each asked once.
#[derive(Debug, Clone, Default)]
pub struct SchemeProbe(Arc<Mutex<BTreeMap<String, bool>>>);

impl SchemeProbe {
    /// Returns the protocol of `host`. https if it does not answer.
    pub(super) fn scheme(&self, host: &str) -> Scheme {
        let mut known = pool::lock(&self.0);
        let is_plain = match known.get(host) {
            Some(is_plain) => *is_plain,
            None => {
                let is_plain = is_plain(host);
                tracing::debug!(host, is_plain, "asked for the protocol");
                known.insert(host.to_owned(), is_plain);
                is_plain
            }
        };
        if is_plain { Scheme::Http } else { Scheme::Https }
    }
}

/// Returns whether the server answers plain http. Without a port, http and https have different ones, and
/// the one of https comes first.
fn is_plain(host: &str) -> bool {
    let port = host.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    match port {
        Some(_) => connect(host).and_then(|stream| answers_plainly(stream, host)).unwrap_or(false),
        None => {
            connect(&format!("{host}:443")).is_err()
                && connect(&format!("{host}:80"))
                    .and_then(|stream| answers_plainly(stream, host))
                    .unwrap_or(false)
        }
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIME_LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn answers_plainly(mut stream: TcpStream, host: &str) -> io::Result<bool> {
    stream.set_read_timeout(Some(TIME_LIMIT))?;
    stream.set_write_timeout(Some(TIME_LIMIT))?;
    let request = format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut start = [0; STATUS_BYTES];
    stream.read_exact(&mut start)?;
    Ok(start.starts_with(b"HTTP/") && !start.ends_with(b" 400"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn servers_are_told_apart_by_their_answer_to_plain_http() {
        for (answer, want) in [
            (&b"HTTP/1.1 401 Unauthorized\r\n\r\n"[..], Scheme::Http),
            (b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request", Scheme::Https),
            (b"\x15\x03\x01\x00\x02\x02\x46", Scheme::Https),
            (b"", Scheme::Https),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let host = listener.local_addr().unwrap().to_string();
            let scheme = pool::scope(|scope| {
                let answering = pool::start(scope, || {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut request = [0; 16];
                    stream.read_exact(&mut request).unwrap();
                    stream.write_all(answer).unwrap();
                });
                let scheme = SchemeProbe::default().scheme(&host);
                pool::join(answering.unwrap());
                scheme
            });
            assert_eq!(scheme, want, "{}", String::from_utf8_lossy(answer));
        }
        assert_eq!(SchemeProbe::default().scheme("127.0.0.1:1"), Scheme::Https);
    }
}
