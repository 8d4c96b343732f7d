//! Image names (<https://pkg.go.dev/github.com/distribution/reference>; `grammar/reference.ebnf`).

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// The registry of Docker Hub in full names.
pub(super) const DOCKER_IO: &str = "docker.io";

/// Maximum length of a repository name with its registry (`NameTotalLengthMax` of
/// distribution/reference).
const MAX_NAME_BYTES: usize = 255;
/// Maximum length of a tag (distribution-spec, "Pulling manifests").
const MAX_TAG_BYTES: usize = 128;

/// A full image name: registry, repository, and tag or digest.
///
/// ```
/// let name: rbuild::oci::Reference = "busybox".parse()?;
/// assert_eq!(name.to_string(), "docker.io/library/busybox:latest");
/// assert_eq!(name.familiar(), "busybox:latest");
/// # Ok::<(), rbuild::oci::ReferenceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is not an image name, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image name: {why}")]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

impl Reference {
    /// Returns the registry's host and port, `docker.io` if the name has none.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the path in the registry, including an implied `library/`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag. `None` only if there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest. It takes precedence over the tag.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns the reference for a registry request: the digest, or else the tag.
    #[must_use]
    pub fn selector(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Returns the same repository with `digest` and without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Returns the repository's full name, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns the short name that users write, without `docker.io/library/` where that means the same
    /// (docker's "familiar name").
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let path = full.strip_prefix("docker.io/");
        let official = full.strip_prefix("docker.io/library/");
        let same = |short: &&str| short.parse::<Self>().as_ref() == Ok(self);
        let short = [official, path].into_iter().flatten().find(same);
        short.map_or(full.clone(), str::to_owned)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = |why| ReferenceError { text: text.chars().take(300).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let parsed = digest.parse();
                let bad = |_bad: super::DigestError| {
                    let is_other = is_other_digest(digest);
                    let wrong = "after `@` there must be sha256:<64 hex digits>";
                    error(if is_other { "only sha256 digests are supported" } else { wrong })
                };
                (rest, Some(parsed.map_err(bad)?))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if is_id(text) {
            return Err(error("64 hexadecimal digits are an image ID"));
        }
        if name.is_empty() {
            return Err(error("the name is empty"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(error("a tag is 1 to 128 letters, digits, `_`, `.` or `-`"));
        }
        let (registry, path) = split_registry(name);
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(error("a repository name must be lower case"));
        }
        let good = path.split('/').all(is_path_component) && is_host(registry);
        let short = registry == DOCKER_IO && !path.contains('/');
        let repository = if short { format!("library/{path}") } else { path.to_owned() };
        // The implied parts count: the full name is stored and parsed again.
        if !good || registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(error(
                "the format is [host[:port]/]path[:tag][@digest], with a lower-case path",
            ));
        }
        let tag = tag.map(str::to_owned);
        let tag = if digest.is_none() { tag.or_else(|| Some("latest".to_owned())) } else { tag };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// Returns whether the text looks like an image ID, which `ParseNormalizedNamed` of
/// distribution/reference refuses.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns whether the text is a digest of another algorithm (`digestPat` of
/// distribution/reference).
fn is_other_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    algorithm != "sha256"
        && algorithm.split(['-', '_', '+', '.']).all(is_word)
        && hex.len() >= 32
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Splits off the registry: the part before the first slash, if it looks like a host
/// (`splitDockerDomain` of distribution/reference).
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", path)) => (DOCKER_IO, path),
        Some((host, path))
            if host == "localhost"
                || host.contains(['.', ':'])
                || host.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (host, path)
        }
        _ => (DOCKER_IO, name),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let good_port = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let ipv6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let good_name = match ipv6 {
        Some(address) => {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        }
        None => name.split('.').all(label),
    };
    good_port && good_name
}

/// Returns whether a path component is valid: `[a-z0-9]+` joined by `.`, `_`, `__` or any number of
/// `-` (distribution-spec, "Pulling manifests").
fn is_path_component(part: &str) -> bool {
    let alphanumeric =
        |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    alphanumeric(part.bytes().next())
        && alphanumeric(part.bytes().next_back())
        && separators
            .into_iter()
            .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=MAX_TAG_BYTES).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed() {
        let digest = Digest::of(b"");
        for (text, want) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.36", "docker.io/library/busybox:1.36".to_owned()),
            ("bitnami/redis", "docker.io/bitnami/redis:latest".to_owned()),
            ("index.docker.io/library/x", "docker.io/library/x:latest".to_owned()),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest".to_owned()),
            ("localhost/x:y", "localhost/x:y".to_owned()),
            ("[::1]:5000/x", "[::1]:5000/x:latest".to_owned()),
            ("ghcr.io/a_b/c--d.e:V1", "ghcr.io/a_b/c--d.e:V1".to_owned()),
            (&"0f".repeat(31), format!("docker.io/library/{}:latest", "0f".repeat(31))),
            (&format!("{}:1", "0f".repeat(32)), format!("docker.io/library/{}:1", "0f".repeat(32))),
            (&format!("x@{digest}"), format!("docker.io/library/x@{digest}")),
            (&format!("x:t@{digest}"), format!("docker.io/library/x:t@{digest}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), want);
        }
    }

    #[test]
    fn familiar_names_mean_the_same() {
        for (text, want) in [
            ("docker.io/library/busybox", "busybox:latest"),
            ("docker.io/bitnami/redis:7", "bitnami/redis:7"),
            ("docker.io/library/a/b", "library/a/b:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest"),
            ("docker.io/library/a.b/c", "library/a.b/c:latest"),
            ("docker.io/localhost/c", "docker.io/localhost/c:latest"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ] {
            let name: Reference = text.parse().unwrap();
            assert_eq!(name.familiar(), want);
            assert_eq!(want.parse(), Ok(name));
        }
    }

    #[test]
    fn invalid_references_are_explained() {
        for (text, why) in [
            ("", "the name is empty"),
            ("x:", "a tag is 1 to 128 letters, digits, `_`, `.` or `-`"),
            ("Busybox", "a repository name must be lower case"),
            ("a//b", "the format is [host[:port]/]path[:tag][@digest], with a lower-case path"),
            ("a b", "the format is [host[:port]/]path[:tag][@digest], with a lower-case path"),
            (&"0f".repeat(32), "64 hexadecimal digits are an image ID"),
            (&format!("x@sha512:{}", "0f".repeat(64)), "only sha256 digests are supported"),
            ("x@sha512:12", "after `@` there must be sha256:<64 hex digits>"),
            ("x@sha256:12", "after `@` there must be sha256:<64 hex digits>"),
        ] {
            let want = ReferenceError { text: text.to_owned(), why };
            assert_eq!(text.parse::<Reference>(), Err(want));
        }
    }
}
