//! Sources that are fetched: URLs and git repositories, distinguished by their syntax alone
//! (<https://docs.docker.com/reference/dockerfile/#adding-files-from-a-git-repository>).

use std::borrow::Cow;

use super::redacted;

/// Name of a downloaded file whose URL has none, as in BuildKit.
const UNNAMED: &str = "__unnamed__";

/// A source that is fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// A file to download.
    Url(UrlSource),
    /// Files of a commit.
    Git(GitSource),
}

/// A file to be downloaded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UrlSource {
    /// http or https URL as written; it may contain credentials.
    pub url: String,
    /// File name: the last component of the URL's path.
    pub name: String,
}

/// A commit of a repository, or a directory of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GitSource {
    /// Address as written, without query and fragment; it may contain credentials.
    pub remote: String,
    /// Branch, tag, full reference name or commit; `None` for the default branch.
    pub reference: Option<String>,
    /// Directory of the repository to use, as written.
    pub subdir: Option<String>,
    /// Required commit, possibly abbreviated.
    pub checksum: Option<String>,
    /// True if `.git` is kept.
    pub keep_git_dir: Option<bool>,
    /// True if submodules are fetched too.
    pub submodules: bool,
    /// True if files get the time of the commit, not that of the checkout.
    pub commit_time: bool,
    /// True if the commit is fetched by its hash, not through a reference.
    pub fetch_by_commit: bool,
}

/// The reason why a reference to a repository is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// Two different values for one setting.
    #[error("{what} conflicts: \"{first}\" vs \"{second}\"")]
    Conflict {
        /// Name of the setting.
        what: &'static str,
        /// Value that came first.
        first: String,
        /// Value that differs from it.
        second: String,
    },
    /// Both a branch and a tag.
    #[error("branch conflicts with tag")]
    BranchAndTag,
    /// A repeated name in the query.
    #[error("query \"{0}\" has multiple values")]
    Repeated(String),
    /// A name in the query without a value.
    #[error("query \"{0}\" has no value")]
    NoValue(String),
    /// A name in the query with an invalid value.
    #[error("invalid {name} value: \"{value}\"")]
    BadValue {
        /// Name in the query.
        name: String,
        /// Value as written, unescaped.
        value: String,
    },
    /// An unknown name in the query.
    #[error("unexpected query \"{0}\"")]
    Unknown(String),
}

/// Parses a source of ADD; returns `None` for a path.
///
/// ```text
/// https://HOST/PATH.git[?QUERY][#REF[:SUBDIR]]    and http
/// git://HOST/PATH…   ssh://[USER@]HOST/PATH…   USER@HOST:PATH…
/// https://HOST/PATH                               and http: a file
/// ```
///
/// # Errors
/// Any [`RemoteError`], for a repository with an invalid query.
pub fn parse_remote(text: &str) -> Result<Option<Remote>, RemoteError> {
    let Some((address, query, fragment)) = repository(text) else {
        let is_url = has_scheme(text, "http") || has_scheme(text, "https");
        return Ok(is_url.then(|| {
            let url = text.to_owned();
            Remote::Url(UrlSource { name: file_name(&url), url })
        }));
    };
    git_source(address, query, fragment).map(|source| Some(Remote::Git(source)))
}

/// Parses the address of a repository that need not end with `.git`, with query and fragment as in
/// [`parse_remote`].
///
/// # Errors
/// Any [`RemoteError`], for an invalid query.
pub fn parse_repository(text: &str) -> Result<GitSource, RemoteError> {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    git_source(address, query, fragment)
}

fn git_source(address: &str, query: &str, fragment: &str) -> Result<GitSource, RemoteError> {
    let mut source = GitSource {
        remote: address.to_owned(),
        reference: None,
        subdir: None,
        checksum: None,
        keep_git_dir: None,
        submodules: true,
        commit_time: false,
        fetch_by_commit: false,
    };
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    (source.reference, source.subdir) = (some(reference), some(subdir));
    source.read_query(query)?;
    Ok(source)
}

/// Splits a repository into address, query and fragment; returns `None` for anything else.
fn repository(text: &str) -> Option<(&str, &str, &str)> {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_http = has_scheme(text, "http") || has_scheme(text, "https");
    let is_git = match is_http {
        true => address.ends_with(".git"),
        false => has_scheme(text, "git") || has_scheme(text, "ssh") || is_scp_like(address),
    };
    is_git.then_some((address, query, fragment))
}

fn has_scheme(text: &str, scheme: &str) -> bool {
    text.split_once("://").is_some_and(|(found, _)| found.eq_ignore_ascii_case(scheme))
}

/// Returns whether the address has the form `user@host:path` (git-clone(1), "GIT URLS").
fn is_scp_like(address: &str) -> bool {
    let Some((user, rest)) = address.split_once('@') else { return false };
    let Some((host, _path)) = rest.split_once(':') else { return false };
    let word = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    word(user, b"-_") && word(host, b"-.")
}

impl GitSource {
    fn read_query(&mut self, query: &str) -> Result<(), RemoteError> {
        let (mut tag, mut branch) = (None, None);
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (unescape(name).into_owned(), unescape(value).into_owned());
            let may_be_empty = matches!(name.as_str(), "submodules" | "keep-git-dir");
            if value.is_empty() && !may_be_empty {
                return Err(RemoteError::NoValue(name));
            }
            match name.as_str() {
                _ if seen.contains(&name) => return Err(RemoteError::Repeated(name)),
                "ref" => set_once("ref", &mut self.reference, value)?,
                "tag" => tag = Some(value),
                "branch" => branch = Some(value),
                "subdir" => set_once("subdir", &mut self.subdir, value)?,
                "checksum" | "commit" => set_once("commit", &mut self.checksum, value)?,
                "keep-git-dir" => self.keep_git_dir = Some(parse_bool(&name, &value)?),
                "submodules" => self.submodules = parse_bool(&name, &value)?,
                "fetch-by-commit" => self.fetch_by_commit = parse_bool(&name, &value)?,
                "mtime" => {
                    self.commit_time = match value.as_str() {
                        "commit" => true,
                        "checkout" => false,
                        _ => return Err(RemoteError::BadValue { name, value }),
                    }
                }
                _ => return Err(RemoteError::Unknown(name)),
            }
            seen.push(name);
        }
        if tag.is_some() && branch.is_some() {
            return Err(RemoteError::BranchAndTag);
        }
        for (value, prefix) in [(tag, "refs/tags/"), (branch, "refs/heads/")] {
            let Some(value) = value else { continue };
            let full = match value.starts_with(prefix) {
                true => value,
                false => format!("{prefix}{value}"),
            };
            set_once("ref", &mut self.reference, full)?;
        }
        Ok(())
    }

    /// Returns the address without credentials, for messages and keys.
    #[must_use]
    pub fn shown(&self) -> String {
        redacted(&self.remote)
    }
}

/// Sets a value that may only be set again to the same.
fn set_once(
    what: &'static str,
    setting: &mut Option<String>,
    value: String,
) -> Result<(), RemoteError> {
    match setting {
        Some(first) if *first != value => {
            Err(RemoteError::Conflict { what, first: first.clone(), second: value })
        }
        _ => {
            *setting = Some(value);
            Ok(())
        }
    }
}

/// Parses a boolean as Go's `strconv.ParseBool` does (<https://pkg.go.dev/strconv#ParseBool>); an empty
/// value is true.
fn parse_bool(name: &str, value: &str) -> Result<bool, RemoteError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(RemoteError::BadValue { name: name.to_owned(), value: value.to_owned() }),
    }
}

/// Returns the last name in the path of a URL.
fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let path = unescape(path);
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    // These cannot be file names.
    let is_name = !matches!(name, "" | "." | "..") && !name.contains('\0');
    if is_name { name.to_owned() } else { UNNAMED.to_owned() }
}

/// Decodes `%xx`; invalid escapes stay, and so does text that is not UTF-8 after decoding.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Formats a source in one line.
    fn line(text: &str) -> String {
        match parse_remote(text) {
            Ok(None) => "path".to_owned(),
            Err(error) => error.to_string(),
            Ok(Some(Remote::Url(source))) => format!("file {}", source.name),
            Ok(Some(Remote::Git(git))) => {
                let mut line = format!("git {}", git.remote);
                for (name, value) in
                    [("ref", &git.reference), ("dir", &git.subdir), ("sum", &git.checksum)]
                {
                    line.extend(value.iter().map(|value| format!(" {name}={value}")));
                }
                line.extend(git.keep_git_dir.map(|keep| format!(" keep={keep}")));
                line.push_str(if git.submodules { "" } else { " flat" });
                line.push_str(if git.commit_time { " commit-time" } else { "" });
                line
            }
        }
    }

    #[test]
    fn sources_are_distinguished_by_their_syntax() {
        for (text, want) in [
            ("a/b.git", "path"),
            ("./.git", "path"),
            (".git", "path"),
            ("custom.example/a/b.git", "path"),
            ("ftp://h/x", "path"),
            ("a@b", "path"),
            ("https://example.com/", "file __unnamed__"),
            ("https://example.com", "file __unnamed__"),
            ("https://example.com/foo", "file foo"),
            ("HTTP://example.com/a/b.txt?x=/y#z", "file b.txt"),
            ("http://example.com/a%20b/c%2Bd", "file c+d"),
            ("http://example.com/a/../", "file __unnamed__"),
            ("https://example.com/foo.git.bar", "file foo.git.bar"),
            ("https://example.com/foo.git/", "file foo.git"),
            ("http://github.com/docker/docker.git:#branch", "file docker.git:"),
            ("https://example.com/foo.git", "git https://example.com/foo.git"),
            ("https://u:p@example.com/f.git", "git https://u:p@example.com/f.git"),
            ("https://example.com/f.git#r/1.2", "git https://example.com/f.git ref=r/1.2"),
            ("https://example.com/f.git#a/b:c/d", "git https://example.com/f.git ref=a/b dir=c/d"),
            ("https://example.com/f.git#:d", "git https://example.com/f.git dir=d"),
            ("git://example.com/foo", "git git://example.com/foo"),
            ("ssh://git@example.com:22/foo#v1", "git ssh://git@example.com:22/foo ref=v1"),
            ("git@example.com:a/b", "git git@example.com:a/b"),
            ("git@example.com:a/b.git#v1:d", "git git@example.com:a/b.git ref=v1 dir=d"),
        ] {
            assert_eq!(line(text), want, "{text}");
        }
    }

    #[test]
    fn queries_set_options_and_must_not_conflict() {
        for (query, want) in [
            ("?ref=v1&subdir=/d", "ref=v1 dir=/d"),
            ("?tag=v1", "ref=refs/tags/v1"),
            ("?tag=refs/tags/v1", "ref=refs/tags/v1"),
            ("?branch=b%2Fc&checksum=abc", "ref=refs/heads/b/c sum=abc"),
            ("?commit=abc&keep-git-dir&submodules=false", "sum=abc keep=true flat"),
            ("?keep-git-dir=0&mtime=commit", "keep=false commit-time"),
            ("?mtime=checkout&fetch-by-commit=1", ""),
            ("?ref=v1#v1", "ref=v1"),
            ("?ref=v1#v2", "ref conflicts: \"v2\" vs \"v1\""),
            ("?tag=v1#v1", "ref conflicts: \"v1\" vs \"refs/tags/v1\""),
            ("?subdir=a#v1:b", "subdir conflicts: \"b\" vs \"a\""),
            ("?tag=a&branch=b", "branch conflicts with tag"),
            ("?commit=a&checksum=b", "commit conflicts: \"a\" vs \"b\""),
            ("?ref=a&ref=a", "query \"ref\" has multiple values"),
            ("?ref=", "query \"ref\" has no value"),
            ("?mtime=now", "invalid mtime value: \"now\""),
            ("?submodules=yes", "invalid submodules value: \"yes\""),
            ("?depth=1", "unexpected query \"depth\""),
        ] {
            let line = line(&format!("https://h/x.git{query}"));
            let line = line.strip_prefix("git https://h/x.git").unwrap_or(&line);
            assert_eq!(line.trim_start(), want, "{query}");
        }
    }
}
