//! Addresses: as much of RFC 3986 as a registry client needs, and a form without secrets.

use std::fmt;

/// How a host is spoken to.
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

/// An absolute http or https address, without user and fragment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    scheme: Scheme,
    /// Host and port, as written.
    authority: String,
    /// Starts with a slash; the query included.
    target: String,
}

impl Url {
    /// The root of `authority`.
    pub(super) fn root(scheme: Scheme, authority: &str) -> Self {
        Self { scheme, authority: authority.to_owned(), target: "/".to_owned() }
    }

    /// Reads an absolute address; `None` when it is none. User and password are dropped.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end)?;
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_%".contains(&byte);
        if authority.is_empty() || !authority.bytes().all(good) {
            return None;
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        is_target(&target).then(|| Self { scheme, authority: authority.to_owned(), target })
    }

    /// The address that `location`, absolute or relative, means in an answer of this one.
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme.as_str()));
        }
        let location = location.split('#').next().unwrap_or_default();
        let path = self.path();
        let target = match location.bytes().next() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{path}{location}"),
            Some(_) => format!("{}/{location}", path.rsplit_once('/').map_or("", |(dir, _)| dir)),
            None => self.target.clone(),
        };
        is_target(&target).then(|| Self { target, ..self.clone() })
    }

    /// The same address one directory down; `path` is not escaped.
    pub(super) fn below(&self, path: &str) -> Self {
        let target = format!("{}/{path}", self.path().trim_end_matches('/'));
        Self { target, ..self.clone() }
    }

    /// The same address with one more query member, escaped.
    pub(super) fn with_query(mut self, name: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(&pair(name, value));
        self
    }

    /// The whole address, query included: for the wire, never for people.
    pub(super) fn for_wire(&self) -> String {
        format!("{}://{}{}", self.scheme.as_str(), self.authority, self.target)
    }

    /// Host and port, as written.
    pub(super) fn host(&self) -> &str {
        &self.authority
    }

    pub(super) const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Scheme, host and port in one spelling: who is spoken to.
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

    /// Whether an answer of this address may send us to `other`: never from https to http.
    pub(super) fn may_lead_to(&self, other: &Self) -> bool {
        self.scheme <= other.scheme
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// Without the query, which may hold a signature.
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

fn is_target(target: &str) -> bool {
    target.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

/// `name=value`, escaped as in a query or a form.
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

/// Whether `authority` is this machine: such registries are spoken to in plain http.
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
    fn locations_are_resolved_against_the_address_that_sent_them() {
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
        ] {
            assert_eq!(base.join(location).map(|url| url.for_wire()).as_deref(), Some(want));
        }
        for bad in ["ftp://b.example/", "https:///x", "/a b", "/a\r\nX: y", "http://a b/", "/é"] {
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
    fn origin_has_one_spelling() {
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
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:5"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1:5000", "127.0.0.1.example", "[::2]", "a:1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
