//! Sources that are fetched: URLs and git repositories, told apart by their form alone.

use std::borrow::Cow;

use super::redacted;

/// What a download without a name in its URL is called.
const UNNAMED: &str = "__unnamed__";

/// A source that is fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// One file.
    Url(UrlSource),
    /// A commit of a repository.
    Git(GitSource),
}

/// A file to be downloaded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UrlSource {
    /// http or https, as written: it may hold credentials.
    pub url: String,
    /// What the file is called: the last name in the path.
    pub name: String,
}

/// A commit of a repository, or a directory of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GitSource {
    /// Where the repository is, as written, without query and fragment: it may hold credentials.
    pub remote: String,
    /// A branch, tag, full name of a reference, or commit; the default branch when there is none.
    pub reference: Option<String>,
    /// The directory of it that is meant, as written.
    pub subdir: Option<String>,
    /// The commit that it has to be, or the beginning of it.
    pub checksum: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched too.
    pub submodules: bool,
    /// Whether files have the commit's time and not that of the build.
    pub commit_time: bool,
    /// Whether the commit is asked for itself, and not the reference that it is behind.
    pub fetch_by_commit: bool,
}

/// Why a reference to a repository makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// Two values for one thing.
    #[error("{what} conflicts: \"{first}\" vs \"{second}\"")]
    Conflict {
        /// Of what.
        what: &'static str,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// Both a branch and a tag.
    #[error("branch conflicts with tag")]
    BranchAndTag,
    /// A name of the query that stands there twice.
    #[error("query \"{0}\" has multiple values")]
    Repeated(String),
    /// A name of the query without a value.
    #[error("query \"{0}\" has no value")]
    NoValue(String),
    /// A name of the query with a value that it cannot have.
    #[error("invalid {name} value: \"{value}\"")]
    BadValue {
        /// The name.
        name: String,
        /// The value.
        value: String,
    },
    /// A name that a query does not know.
    #[error("unexpected query \"{0}\"")]
    Unknown(String),
}

/// Reads a source of ADD; `None` when it is a path.
///
/// ```text
/// https://HOST/PATH.git[?QUERY][#REF[:SUBDIR]]    and http
/// git://HOST/PATH…   ssh://[USER@]HOST/PATH…   USER@HOST:PATH…
/// https://HOST/PATH                               and http: a file
/// ```
///
/// # Errors
/// [`RemoteError`] for a repository with a query that contradicts itself or is not known.
pub fn parse_remote(text: &str) -> Result<Option<Remote>, RemoteError> {
    let Some((address, query, fragment)) = repository(text) else {
        let is_url = has_scheme(text, "http") || has_scheme(text, "https");
        return Ok(is_url.then(|| {
            let url = text.to_owned();
            Remote::Url(UrlSource { name: file_name(&url), url })
        }));
    };
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
    Ok(Some(Remote::Git(source)))
}

/// The address, query and fragment of a repository; `None` when it is something else.
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

/// `user@host:path`.
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
                "ref" => agree("ref", &mut self.reference, value)?,
                "tag" => tag = Some(value),
                "branch" => branch = Some(value),
                "subdir" => agree("subdir", &mut self.subdir, value)?,
                "checksum" | "commit" => agree("commit", &mut self.checksum, value)?,
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
            agree("ref", &mut self.reference, full)?;
        }
        Ok(())
    }

    /// The repository for messages and keys: without credentials.
    #[must_use]
    pub fn shown(&self) -> String {
        redacted(&self.remote)
    }
}

/// Sets what may have been set before, to the same.
fn agree(what: &'static str, place: &mut Option<String>, value: String) -> Result<(), RemoteError> {
    match place {
        Some(first) if *first != value => {
            Err(RemoteError::Conflict { what, first: first.clone(), second: value })
        }
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// As Go's `strconv.ParseBool`; a name without a value is yes.
fn parse_bool(name: &str, value: &str) -> Result<bool, RemoteError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(RemoteError::BadValue { name: name.to_owned(), value: value.to_owned() }),
    }
}

/// The last name in the path of a URL.
fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let path = unescape(path);
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    // A name that is no name cannot be a file's.
    let is_name = !matches!(name, "" | "." | "..") && !name.contains('\0');
    if is_name { name.to_owned() } else { UNNAMED.to_owned() }
}

/// Resolves `%xx`; what is none, or no text then, stays.
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

    /// The source in one line.
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
    fn sources_are_told_apart_by_their_form() {
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
    fn queries_say_what_is_meant_and_must_not_contradict() {
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
