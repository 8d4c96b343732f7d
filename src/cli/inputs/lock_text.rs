//! `rbuild.lock` as text.
//!
//! ```toml
//! version = 1
//! platforms = ["linux/amd64"]
//!
//! [[image]]
//! name = "docker.io/library/busybox:latest"
//! platform = "linux/amd64"
//! digest = "sha256:…"
//!
//! [[url]]
//! url = "https://example.org/file.tar"
//! digest = "sha256:…"
//!
//! [[git]]
//! repository = "https://example.org/app.git"
//! reference = "v1"
//! commit = "…"
//! ```
//!
//! Entries are sorted, so that a change of one input is a change of one line.

use serde::{Deserialize, Serialize};

use crate::oci::{Digest, Platform};
use crate::plan::{Lock, LockInput, LockedValue};

/// Version of the format. Others are refused.
const VERSION: u32 = 1;
/// Comment above the entries.
const HEAD: &str = "# What the inputs of the Dockerfile were. Written by `rbuild lock`; \
                    `rbuild lock --update` renews it.\n";

/// The reason why a text is not a valid lock file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Not TOML, or with other members than those above.
    #[error("line {line}: {reason}")]
    Form {
        /// Counts from 1.
        line: usize,
        /// Does not quote the line.
        reason: String,
    },
    /// A version that this rbuild does not support.
    #[error("version {found} is not supported, only version {VERSION}: use a newer rbuild")]
    Version {
        /// The version of the file.
        found: u32,
    },
    /// Not a commit id.
    #[error("`{text}` is not a full commit id")]
    Commit {
        /// The text of the entry.
        text: String,
    },
    /// A text that is not a platform.
    #[error(transparent)]
    Platform(#[from] crate::oci::PlatformError),
    /// Two entries for one input.
    #[error("{input} has two entries; was the file merged by hand?")]
    Twice {
        /// The input of both entries.
        input: LockInput,
    },
}

/// Parses a lock file.
///
/// # Errors
/// [`LockError`], which does not name the file.
pub(crate) fn parse(text: &str) -> Result<Lock, LockError> {
    let form = |error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        LockError::Form { line, reason: error.message().to_owned() }
    };
    // The version first: another version may have other members.
    let Version { version } = toml::from_str(text).map_err(form)?;
    if version != VERSION {
        return Err(LockError::Version { found: version });
    }
    let document: Document = toml::from_str(text).map_err(form)?;
    let mut lock = Lock::default();
    for platform in &document.platforms {
        lock.platforms.insert(platform.parse()?);
    }
    for ImageEntry { name, platform, digest } in document.image {
        add(&mut lock, LockInput::Image { name, platform }, LockedValue::Digest(digest))?;
    }
    for UrlEntry { url, digest } in document.url {
        add(&mut lock, LockInput::Url { url }, LockedValue::Digest(digest))?;
    }
    for GitEntry { repository, reference, commit } in document.git {
        let is_commit = matches!(commit.len(), 40 | 64)
            && commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_commit {
            return Err(LockError::Commit { text: commit });
        }
        add(&mut lock, LockInput::Git { repository, reference }, LockedValue::Commit(commit))?;
    }
    Ok(lock)
}

fn add(lock: &mut Lock, input: LockInput, value: LockedValue) -> Result<(), LockError> {
    if lock.digest(&input).is_some() || lock.commit(&input).is_some() {
        return Err(LockError::Twice { input });
    }
    lock.set(input, value);
    Ok(())
}

/// Returns the text of a lock file.
pub(crate) fn text(lock: &Lock) -> String {
    let platforms = lock.platforms.iter().map(Platform::to_string).collect();
    let mut document = Document { version: VERSION, platforms, ..Document::default() };
    for (input, value) in lock.iter() {
        match (input.clone(), value.clone()) {
            (LockInput::Image { name, platform }, LockedValue::Digest(digest)) => {
                document.image.push(ImageEntry { name, platform, digest });
            }
            (LockInput::Url { url }, LockedValue::Digest(digest)) => {
                document.url.push(UrlEntry { url, digest });
            }
            (LockInput::Git { repository, reference }, LockedValue::Commit(commit)) => {
                document.git.push(GitEntry { repository, reference, commit });
            }
            (LockInput::Image { .. } | LockInput::Url { .. }, LockedValue::Commit(_))
            | (LockInput::Git { .. }, LockedValue::Digest(_)) => {
                unreachable!("`set` is given a value of the input's kind")
            }
        }
    }
    let text = toml::to_string(&document).expect("texts and lists always serialize");
    format!("{HEAD}{text}")
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default)]
    platforms: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    image: Vec<ImageEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    url: Vec<UrlEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    git: Vec<GitEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageEntry {
    name: String,
    platform: String,
    digest: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UrlEntry {
    url: String,
    digest: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GitEntry {
    repository: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reference: String,
    commit: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, platform: &str) -> LockInput {
        LockInput::image(&name.parse().unwrap(), &platform.parse().unwrap())
    }

    fn example() -> Lock {
        let mut lock = Lock::default();
        let digest = |text: &str| LockedValue::Digest(Digest::of(text.as_bytes()));
        lock.platforms.insert("linux/arm64".parse().unwrap());
        lock.platforms.insert("linux/amd64".parse().unwrap());
        lock.set(image("busybox", "linux/arm64"), digest("b"));
        lock.set(image("busybox", "linux/amd64"), digest("a"));
        lock.set(LockInput::Url { url: "https://h/f".to_owned() }, digest("f"));
        let repository = "https://h/r.git".to_owned();
        for reference in ["main", ""] {
            let reference = reference.to_owned();
            let input = LockInput::Git { repository: repository.clone(), reference };
            lock.set(input, LockedValue::Commit("1".repeat(40)));
        }
        lock
    }

    #[test]
    fn lock_file_is_sorted_and_reads_back() {
        let lock = example();
        let text = super::text(&lock);
        insta::assert_snapshot!(text, @r#"
        # What the inputs of the Dockerfile were. Written by `rbuild lock`; `rbuild lock --update` renews it.
        version = 1
        platforms = ["linux/amd64", "linux/arm64"]

        [[image]]
        name = "docker.io/library/busybox:latest"
        platform = "linux/amd64"
        digest = "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"

        [[image]]
        name = "docker.io/library/busybox:latest"
        platform = "linux/arm64"
        digest = "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"

        [[url]]
        url = "https://h/f"
        digest = "sha256:252f10c83610ebca1a059c0bae8255eba2f95be4d1d7bcfa89d7248a82d9f111"

        [[git]]
        repository = "https://h/r.git"
        commit = "1111111111111111111111111111111111111111"

        [[git]]
        repository = "https://h/r.git"
        reference = "main"
        commit = "1111111111111111111111111111111111111111"
        "#);
        assert_eq!(parse(&text).unwrap(), lock);
        let empty = Lock::default();
        assert_eq!(parse(&super::text(&empty)).unwrap(), empty);
    }

    #[test]
    fn invalid_lock_files_are_refused_with_a_reason() {
        let image = "[[image]]\nname = \"a\"\nplatform = \"b\"\ndigest = ";
        let hex = "0".repeat(64);
        for (text, want) in [
            (String::new(), "missing field `version`"),
            ("version = 2\nother = 1\n".to_owned(), "version 2"),
            ("version = 1\nother = 1\n".to_owned(), "unknown field `other`"),
            (format!("version = 1\n{image}\"sha256:0\"\n"), "sha256"),
            (
                format!("version = 1\n{image}\"sha256:{hex}\"\n{image}\"sha256:{hex}\"\n"),
                "a for b has two entries",
            ),
            (
                "version = 1\n[[git]]\nrepository = \"a\"\ncommit = \"--upload\"\n".to_owned(),
                "`--upload` is not a full commit id",
            ),
            ("version = 1\nplatforms = [\"x/y/z/w\"]\n".to_owned(), "x/y/z/w"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
