//! Downloads of plain files, with the same connections and checks as pulls.

use std::io::Write;

use super::auth::Secret;
use super::http::{Method, Request, Response};
use super::url::Url;
use super::{Client, RegistryError};

/// Size of the copy buffer in bytes.
const BUFFER_BYTES: usize = 128 * 1024;

/// A file to download.
#[derive(Clone, Copy)]
pub struct Download<'a> {
    /// An http or https address. User and password in it are sent unless `authorization` is set.
    pub url: &'a str,
    /// The address for messages, without secrets.
    pub shown: &'a str,
    /// The value of the `Authorization` header. Sent to the host of `url` only.
    pub authorization: Option<&'a str>,
    /// The ETag of the caller's copy (RFC 9110, section 8.8.3). Without one the file is downloaded:
    /// its modification time alone does not prove that it is unchanged.
    pub etag: Option<&'a str>,
    /// Maximum size in bytes.
    pub max_bytes: u64,
}

/// Omits the secret from debug output.
impl std::fmt::Debug for Download<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("url", &self.shown).finish_non_exhaustive()
    }
}

/// Response headers that identify a version of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileHeaders {
    /// The `ETag` header, which identifies the version of the file (RFC 9110, section 8.8.3).
    pub etag: Option<String>,
    /// The `Last-Modified` header, unparsed.
    pub last_modified: Option<String>,
}

/// The result of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Downloaded {
    /// The caller's copy is current (status 304).
    Same,
    /// The file was written to the sink.
    New(FileHeaders),
}

impl Download<'_> {
    /// Downloads a file. `sink` opens the destination for one attempt, given the length if the
    /// server sends it. The last destination is complete when this returns [`Downloaded::New`].
    /// `should_continue` is called between reads and cancels the download by returning false.
    ///
    /// # Errors
    /// [`RegistryError::Status`], [`RegistryError::TooLarge`], [`RegistryError::WrongSize`];
    /// [`RegistryError::Local`] if `sink` fails or `should_continue` returns false; errors of the
    /// connection.
    pub fn run<S: Write>(
        &self,
        client: &Client,
        sink: &mut dyn FnMut(Option<u64>) -> Result<S, std::io::Error>,
        should_continue: &dyn Fn() -> bool,
    ) -> Result<(Downloaded, Option<S>), RegistryError> {
        let Some((url, given)) = parse(self.url) else {
            let why = format!("{} is not the address of a file", self.shown);
            return Err(RegistryError::Protocol { host: self.shown.to_owned(), why });
        };
        let secret = self.authorization.map(|value| Secret::verbatim(value.to_owned())).or(given);
        client.retry_policy.run(|| {
            let mut request = Request::new(Method::Get, url.clone())
                // With a content coding the bytes would differ from the file's (RFC 9110, section
                // 8.4).
                .header("accept-encoding", "identity");
            if let Some(etag) = self.etag {
                request = request.header("if-none-match", etag);
            }
            let mut response = client.http.send(&mut request, secret.as_ref())?;
            match response.status() {
                304 if self.etag.is_some() => return Ok((Downloaded::Same, None)),
                200 => {}
                _ => return Err(status_error(response, self)),
            }
            let headers = headers(&response);
            let local = |source| RegistryError::Local {
                verb: "store",
                what: self.shown.to_owned(),
                source,
            };
            let length = response.content_length();
            if length.is_some_and(|length| length > self.max_bytes) {
                return Err(too_large(self));
            }
            let mut out = sink(length).map_err(local)?;
            copy(&mut response, &mut out, self, should_continue)?;
            Ok((Downloaded::New(headers), Some(out)))
        })
    }
}

fn copy(
    response: &mut Response,
    out: &mut dyn Write,
    file: &Download<'_>,
    should_continue: &dyn Fn() -> bool,
) -> Result<(), RegistryError> {
    let local =
        |source| RegistryError::Local { verb: "store", what: file.shown.to_owned(), source };
    let stated = response.content_length();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut n_bytes = 0_u64;
    loop {
        if !should_continue() {
            return Err(local(std::io::Error::other("the build was cancelled")));
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

/// Makes an error that keeps the status: for a plain file, users know the meaning of 404.
fn status_error(response: Response, file: &Download<'_>) -> RegistryError {
    let (host, what, status) = (response.host(), file.shown.to_owned(), response.status());
    let retry_after = response.retry_after();
    let message = match status {
        401 | 403 => "it requires credentials, or rejected those it got",
        404 | 410 => "no such file",
        429 => "too many requests",
        500.. => "server error",
        _ => "it did not send the file",
    };
    RegistryError::Status { host, what, status, message: message.to_owned(), retry_after }
}

/// Returns the address to request, and the credentials that it contained.
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

/// Escapes characters that an address cannot contain, as browsers do (RFC 3986, section 2.1).
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
    fn addresses_are_escaped_and_credentials_removed() {
        let (url, secret) = parse("http://us%40er:p:w@h:1/a b/é%20?x={}").unwrap();
        assert_eq!(url.for_wire(), "http://h:1/a%20b/%C3%A9%20?x=%7B%7D");
        assert_eq!(secret.unwrap().for_wire(), Secret::basic("us@er", "p:w").for_wire());
        let (url, secret) = parse("https://h?a@b").unwrap();
        assert_eq!(url.for_wire(), "https://h/?a@b");
        assert!(secret.is_none());
        assert!(parse("ftp://h/").is_none());
    }
}
