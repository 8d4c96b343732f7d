//! Paths as text, and locations that are not paths.

/// Returns the shortest equivalent path (Go's `path.Clean`).
#[must_use]
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") | None if rooted => {}
                Some(&"..") | None => parts.push(".."),
                Some(_) => {
                    parts.pop();
                }
            },
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Joins two paths and cleans the result; an absolute second path is appended, as in Go.
#[must_use]
pub(crate) fn join(base: &str, path: &str) -> String {
    if base.is_empty() { clean(path) } else { clean(&format!("{base}/{path}")) }
}

/// Returns the directory of a file's path.
#[must_use]
pub(crate) fn parent(path: &str) -> String {
    let end = path.rfind('/').map_or(0, |at| at + 1);
    clean(path.get(..end).unwrap_or(""))
}

/// Returns whether a context is at a URL or in a git repository (buildx, `util/urlutil`).
#[must_use]
pub fn is_remote(location: &str) -> bool {
    let lower = location.to_ascii_lowercase();
    let url = ["https://", "http://", "git://", "ssh://", "git@", "github.com/"];
    if url.iter().any(|prefix| lower.starts_with(prefix)) {
        return true;
    }
    // The short form of ssh, `user@host:path`.
    let Some((user, rest)) = location.split_once('@') else { return false };
    let word = |text: &str| !text.is_empty() && !text.contains(['/', ' ', ':']);
    word(user) && rest.split_once(':').is_some_and(|(host, path)| word(host) && !path.is_empty())
}

/// Returns whether a URL is that of a git repository.
#[must_use]
pub(crate) fn is_git(location: &str) -> bool {
    let lower = location.to_ascii_lowercase();
    let (base, _) = lower.split_once('#').unwrap_or((&lower, ""));
    let scheme = ["git://", "ssh://", "git@", "github.com/"];
    let http = base.starts_with("http://") || base.starts_with("https://");
    match http {
        true => base.split('?').next().is_some_and(|path| path.ends_with(".git")),
        false => scheme.iter().any(|prefix| lower.starts_with(prefix)) || is_remote(location),
    }
}

/// Returns whether a context is not a path: a target, an image, a layout, a URL.
#[must_use]
pub(crate) fn is_special(location: &str) -> bool {
    let prefixes = ["cwd://", "target:", "docker-image:", "oci-layout://"];
    prefixes.iter().any(|prefix| location.starts_with(prefix)) || is_remote(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        let cases = [
            ("", "."),
            (".", "."),
            ("a/../b", "b"),
            ("../../a", "../../a"),
            ("a/../../b", "../b"),
            ("/../a//b/.", "/a/b"),
            ("./x/", "x"),
            ("/", "/"),
        ];
        for (path, expected) in cases {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!(
            (parent("a/b"), parent("b"), join("a", "../c")),
            ("a".into(), ".".into(), "c".into())
        );
    }
}
