//! Addresses of registries (RFC 3986), parsed by the `url` crate, with a representation without
//! secrets.

use std::fmt;

use url::Position;

/// The transport protocol of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An absolute http or https address without user and fragment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    scheme: Scheme,
    /// Host and port as the user or server wrote them. Options and messages refer to this spelling,
    /// which the `url` crate would change (lower case, no default port).
    authority: String,
    /// Path and query. Starts with a slash.
    target: String,
}

impl Url {
    /// Returns the root address of `authority`.
    pub(super) fn root(scheme: Scheme, authority: &str) -> Self {
        Self { scheme, authority: authority.to_owned(), target: "/".to_owned() }
    }

    /// Parses an absolute address and drops user, password and fragment.
    ///
    /// `None` for anything that is not plain http or https; see [`is_plain`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let authority = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
        if authority.is_empty() || !authority.bytes().all(is_authority_byte) || !is_plain(text) {
            return None;
        }
        let target = target_of(&url::Url::parse(text).ok()?);
        Some(Self { scheme, authority: authority.to_owned(), target })
    }

    /// Resolves a reference, absolute or relative, against this address (RFC 3986, section 5.2), as
    /// in a `Location` header (RFC 9110, section 10.2.2).
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme.as_str()));
        }
        // A colon in the first segment ends a scheme (RFC 3986, section 4.2).
        if location.split(['/', '?', '#']).next()?.contains(':') {
            return Self::parse(location);
        }
        if !is_plain(location) {
            return None;
        }
        let joined = url::Url::parse(&self.for_wire()).ok()?.join(location).ok()?;
        Some(Self { target: target_of(&joined), ..self.clone() })
    }

    /// Appends `path`, which is not escaped, to the path.
    pub(super) fn below(&self, path: &str) -> Self {
        let target = format!("{}/{path}", self.path().trim_end_matches('/'));
        Self { target, ..self.clone() }
    }

    /// Adds a query member and escapes it.
    pub(super) fn with_query(mut self, name: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(&pair(name, value));
        self
    }

    /// Returns the whole address with its query, which may contain secrets: for requests only.
    pub(super) fn for_wire(&self) -> String {
        format!("{}://{}{}", self.scheme.as_str(), self.authority, self.target)
    }

    /// Returns host and port as they were written.
    pub(super) fn host(&self) -> &str {
        &self.authority
    }

    pub(super) const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns scheme, host and port in a normalized spelling (RFC 6454, section 4).
    pub(super) fn origin(&self) -> String {
        let authority = self.authority.to_ascii_lowercase();
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let port = match (has_port, self.scheme) {
            (true, _) => "",
            (false, Scheme::Http) => ":80",
            (false, Scheme::Https) => ":443",
        };
        format!("{}://{authority}{port}", self.scheme.as_str())
    }

    /// Returns whether a response from this address may refer to `other`: never from https to http.
    pub(super) fn may_lead_to(&self, other: &Self) -> bool {
        self.scheme <= other.scheme
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// Omits the query, which may contain a signature.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns path and query.
fn target_of(url: &url::Url) -> String {
    url[Position::BeforePath..Position::AfterQuery].to_owned()
}

/// Returns whether `text` has only characters that an address can contain unescaped.
///
/// The `url` crate follows <https://url.spec.whatwg.org/>, which repairs what it can: it drops tabs
/// and newlines, reads `\` as `/` and escapes the rest. A server's `Location` that needs a repair is
/// refused instead, so that other parsers cannot understand it differently.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

const fn is_authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']' | b'_' | b'%')
}

/// Formats `name=value`, escaped as in a query or a form (RFC 3986, section 3.4).
pub(super) fn pair(name: &str, value: &str) -> String {
    let mut text = format!("{name}=");
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Returns whether `authority` is a loopback address, for which plain http is the default.
pub(super) fn is_loopback(authority: &str) -> bool {
    let (name, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let name = if port.contains(']') { authority } else { name };
    name.eq_ignore_ascii_case("localhost")
        || name == "[::1]"
        || name.parse().is_ok_and(|address: std::net::Ipv4Addr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_against_the_request_address() {
        let base = Url::parse("https://reg.example:8443/v2/a/blobs/uploads/?x=1").unwrap();
        for (location, want) in [
            (
                "/v2/a/blobs/uploads/7?_state=s",
                "https://reg.example:8443/v2/a/blobs/uploads/7?_state=s",
            ),
            ("7?_state=s", "https://reg.example:8443/v2/a/blobs/uploads/7?_state=s"),
            ("?y=2", "https://reg.example:8443/v2/a/blobs/uploads/?y=2"),
            ("", "https://reg.example:8443/v2/a/blobs/uploads/?x=1"),
            ("//b.example/c#f", "https://b.example/c"),
            ("http://u:p@b.example", "http://b.example/"),
            ("HTTPS://b.example?q=http://c", "https://b.example/?q=http://c"),
            ("/x?next=https://c/", "https://reg.example:8443/x?next=https://c/"),
            ("../../d?y", "https://reg.example:8443/v2/a/d?y"),
            ("https://b.example:443/c", "https://b.example:443/c"),
        ] {
            assert_eq!(base.join(location).map(|url| url.for_wire()).as_deref(), Some(want));
        }
        for bad in [
            "ftp://b.example/",
            "https:///x",
            "/a b",
            "/a\r\nX: y",
            "http://a b/",
            "/é",
            "https:b",
            "///b",
        ] {
            assert_eq!(base.join(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_are_shown_without_query_and_user() {
        let url = Url::parse("http://user:secret@h:1/a?sig=secret").unwrap();
        assert_eq!(format!("{url} {url:?}"), "http://h:1/a http://h:1/a");
        assert_eq!(url.with_query("q", "a b&c").for_wire(), "http://h:1/a?sig=secret&q=a%20b%26c");
    }

    #[test]
    fn origins_are_normalized() {
        for (text, want) in [
            ("http://A.example/x", "http://a.example:80"),
            ("https://a.example:443", "https://a.example:443"),
            ("https://a.example", "https://a.example:443"),
            ("http://[::1]", "http://[::1]:80"),
            ("http://[::1]:5000/", "http://[::1]:5000"),
        ] {
            assert_eq!(Url::parse(text).unwrap().origin(), want);
        }
    }

    #[test]
    fn loopback_addresses_are_recognized() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:5"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1:5000", "127.0.0.1.example", "[::2]", "a:1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
