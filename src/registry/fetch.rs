//! Downloads of plain files, with the same connections and care as pulls.

use std::io::Write;

use super::auth::Secret;
use super::http::{Method, Request, Response};
use super::url::Url;
use super::{Client, RegistryError};

/// A download is written in pieces of this size.
const BUFFER_BYTES: usize = 128 * 1024;

/// A file to download.
#[derive(Clone, Copy)]
pub struct Download<'a> {
    /// http or https. User and password in it are sent unless `authorization` says otherwise.
    pub url: &'a str,
    /// What messages call it; without secrets.
    pub shown: &'a str,
    /// The value of the Authorization header, for the host of `url` and no other.
    pub authorization: Option<&'a str>,
    /// The ETag of the file that the caller has. Without one the file is downloaded: its time
    /// alone does not tell whether it changed.
    pub etag: Option<&'a str>,
    /// More bytes than this are refused.
    pub max_bytes: u64,
}

/// Without the secret.
impl std::fmt::Debug for Download<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("url", &self.shown).finish_non_exhaustive()
    }
}

/// What a server says of a file beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileHeaders {
    /// Its version.
    pub etag: Option<String>,
    /// When it changed, as the server writes it.
    pub last_modified: Option<String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Downloaded {
    /// What the caller has is what the server has.
    Same,
    /// The bytes were written to the sink.
    New(FileHeaders),
}

impl Client {
    /// Downloads a file. `sink` makes what the bytes of one try are written to, and is given the
    /// length if the server says it; what it made last is whole when this returns
    /// [`Downloaded::New`]. `goes_on` is asked between pieces.
    ///
    /// # Errors
    /// [`RegistryError`]; also when `goes_on` says no.
    pub fn download<S: Write>(
        &self,
        file: &Download<'_>,
        sink: &mut dyn FnMut(Option<u64>) -> Result<S, std::io::Error>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(Downloaded, Option<S>), RegistryError> {
        let Some((url, given)) = parse(file.url) else {
            let why = format!("{} is no address of a file", file.shown);
            return Err(RegistryError::Protocol { host: file.shown.to_owned(), why });
        };
        let secret = file.authorization.map(|value| Secret::verbatim(value.to_owned())).or(given);
        self.schedule.run(|| {
            let mut request = Request::new(Method::Get, url.clone())
                // Compressed on the way, the file would be another one.
                .header("accept-encoding", "identity");
            if let Some(etag) = file.etag {
                request = request.header("if-none-match", etag);
            }
            let mut response = self.http.send(&mut request, secret.as_ref())?;
            match response.status() {
                304 if file.etag.is_some() => return Ok((Downloaded::Same, None)),
                200 => {}
                _ => return Err(status_error(response, file)),
            }
            let headers = headers(&response);
            let local = |source| RegistryError::Local {
                verb: "store",
                what: file.shown.to_owned(),
                source,
            };
            let length = response.content_length();
            if length.is_some_and(|length| length > file.max_bytes) {
                return Err(too_large(file));
            }
            let mut out = sink(length).map_err(local)?;
            copy(&mut response, &mut out, file, goes_on)?;
            Ok((Downloaded::New(headers), Some(out)))
        })
    }
}

fn copy(
    response: &mut Response,
    out: &mut dyn Write,
    file: &Download<'_>,
    goes_on: &dyn Fn() -> bool,
) -> Result<(), RegistryError> {
    let local =
        |source| RegistryError::Local { verb: "store", what: file.shown.to_owned(), source };
    let stated = response.content_length();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut n_bytes = 0_u64;
    loop {
        if !goes_on() {
            return Err(local(std::io::Error::other("the build was stopped")));
        }
        let n_read = response.read(&mut buffer)?;
        let bytes = buffer.get(..n_read).expect("a reader reads at most what fits");
        if bytes.is_empty() {
            break;
        }
        n_bytes = n_bytes.saturating_add(u64::try_from(n_read).unwrap_or(u64::MAX));
        if n_bytes > file.max_bytes {
            return Err(too_large(file));
        }
        out.write_all(bytes).map_err(local)?;
    }
    match stated {
        Some(want) if want != n_bytes => {
            Err(RegistryError::WrongSize { what: file.shown.to_owned(), want, got: n_bytes })
        }
        _ => Ok(()),
    }
}

fn too_large(file: &Download<'_>) -> RegistryError {
    RegistryError::TooLarge { what: file.shown.to_owned(), max_bytes: file.max_bytes }
}

fn headers(response: &Response) -> FileHeaders {
    let header = |name| response.header(name).map(str::to_owned);
    FileHeaders { etag: header("etag"), last_modified: header("last-modified") }
}

/// Says the status: of a plain file, people know what 404 means.
fn status_error(response: Response, file: &Download<'_>) -> RegistryError {
    let (host, what, status) = (response.host(), file.shown.to_owned(), response.status());
    let retry_after = response.retry_after();
    let message = match status {
        401 | 403 => "it wants credentials, or others than it got",
        404 | 410 => "there is no such file",
        429 => "it is asked too often",
        500.. => "it has a problem of its own",
        _ => "it does not give the file",
    };
    RegistryError::Status { host, what, status, message: message.to_owned(), retry_after }
}

/// The address as it is sent, and the credentials that stand in it.
fn parse(text: &str) -> Option<(Url, Option<Secret>)> {
    let rest = text.split_once("://")?.1;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let user = rest.get(..end)?.rsplit_once('@').map(|(user, _)| user);
    let secret = user.filter(|user| !user.is_empty()).map(|user| {
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        Secret::basic(&unescape(user), &unescape(password))
    });
    Some((Url::parse(&escape(text))?, secret))
}

/// Escapes what may not stand in an address, as browsers do.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn unescape(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(part.get(2..).unwrap_or_default().bytes());
            }
            None => {
                bytes.push(b'%');
                bytes.extend(part.bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_escaped_and_their_credentials_taken_out() {
        let (url, secret) = parse("http://us%40er:p:w@h:1/a b/é%20?x={}").unwrap();
        assert_eq!(url.for_wire(), "http://h:1/a%20b/%C3%A9%20?x=%7B%7D");
        assert_eq!(secret.unwrap().for_wire(), Secret::basic("us@er", "p:w").for_wire());
        let (url, secret) = parse("https://h?a@b").unwrap();
        assert_eq!(url.for_wire(), "https://h/?a@b");
        assert!(secret.is_none());
        assert!(parse("ftp://h/").is_none());
    }
}
