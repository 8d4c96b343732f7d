//! Removes credentials in URLs from text that is shown or stored.
//!
//! A Dockerfile may have `ADD https://user:password@host/file` (RFC 3986, 3.2.1 "User Information").
//! Logs, reports, records, lock files and error messages pass such text through this module.

use std::borrow::Cow;
use std::ops::Range;

/// The replacement of a password or token, as in Go's `URL.Redacted`.
const HIDDEN: &str = "xxxxx";

/// Returns the text with the passwords and tokens of all URLs in it replaced.
#[must_use]
pub fn redacted(text: &str) -> String {
    redacted_text(text).into_owned()
}

/// Returns the text as [`redacted`] does; it is borrowed if it has no credentials.
#[must_use]
pub fn redacted_text(text: &str) -> Cow<'_, str> {
    replaced(text, |_secret| Cow::Borrowed(HIDDEN))
}

/// Returns the text with the passwords and tokens of all URLs overwritten byte for byte, so that spans
/// in it stay valid.
#[must_use]
pub fn masked(text: &str) -> Cow<'_, str> {
    replaced(text, |secret| Cow::Owned("x".repeat(secret.len())))
}

fn replaced<'a>(text: &'a str, instead: impl Fn(&'a str) -> Cow<'static, str>) -> Cow<'a, str> {
    const MARK: &str = "://";
    let (mut shown, mut n_done) = (String::new(), 0);
    for (at, _) in text.match_indices(MARK) {
        let Some(before) = text.get(n_done..at) else { continue };
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let scheme = before.rsplit(|c| !is_scheme(c)).next().unwrap_or_default();
        let start = at + MARK.len();
        let Some(secret) = secret_in(scheme, text.get(start..).unwrap_or_default()) else {
            continue;
        };
        let (from, to) = (start + secret.start, start + secret.end);
        shown.push_str(text.get(n_done..from).unwrap_or_default());
        shown.push_str(&instead(text.get(from..to).unwrap_or_default()));
        n_done = to;
    }
    if n_done == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(text.get(n_done..).unwrap_or_default());
    Cow::Owned(shown)
}

/// Finds the password or token in what follows `scheme://`.
fn secret_in(scheme: &str, rest: &str) -> Option<Range<usize>> {
    let ends = |c: char| c.is_whitespace() || c.is_control() || "/?#\"'`<>\\".contains(c);
    let authority = rest.get(..rest.find(ends).unwrap_or(rest.len()))?;
    let (user, _host) = authority.rsplit_once('@')?;
    let secret = match user.split_once(':') {
        Some((name, _password)) => name.len() + 1..user.len(),
        // A lone user of http is often a token; the user of ssh is not secret.
        None if scheme.eq_ignore_ascii_case("ssh") => return None,
        None => 0..user.len(),
    };
    // A masked secret keeps its length.
    let is_visible = |text: &str| !is_variable(text) && text.bytes().any(|byte| byte != b'x');
    user.get(secret.clone()).is_some_and(is_visible).then_some(secret)
}

/// Returns whether the text is `$NAME` or `${NAME}`, which reveals nothing.
fn is_variable(text: &str) -> bool {
    let Some(name) = text.strip_prefix('$') else { return text.is_empty() };
    let name = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name);
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (text, want) in [
            ("https://u:p@h/x?y=a@b", "https://u:xxxxx@h/x?y=a@b"),
            ("https://token@h/x.git", "https://xxxxx@h/x.git"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("git@h:x", "git@h:x"),
            ("http://h/a@b", "http://h/a@b"),
            ("http://u:p@q@h", "http://u:xxxxx@h"),
            ("http://u:$P@h ${X}", "http://u:$P@h ${X}"),
            ("http://u:${P:-secret}@h", "http://u:xxxxx@h"),
        ] {
            assert_eq!(redacted(text), want);
        }
    }

    #[test]
    fn every_url_of_a_text_loses_its_credentials() {
        let text = "RUN curl 'https://u:p@h/x'\nADD git://t@h/y ftp://a:\u{e9}@h .\n# ://a:b@c";
        let want = "RUN curl 'https://u:xxxxx@h/x'\nADD git://xxxxx@h/y ftp://a:xxxxx@h .\n\
                    # ://a:xxxxx@c";
        assert_eq!(redacted_text(text), want);
        let masked = masked(text);
        assert_eq!(masked.len(), text.len());
        assert!(masked.contains("ftp://a:xx@h") && masked.contains("https://u:x@h"), "{masked}");
        assert_eq!(redacted_text(&masked), masked);
        assert!(matches!(redacted_text("no http://h here"), Cow::Borrowed(_)));
    }
}
