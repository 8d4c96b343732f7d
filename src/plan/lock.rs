//! What the inputs from elsewhere were: `rbuild.lock` as a value.

use std::collections::{BTreeMap, BTreeSet};

use crate::oci::{Digest, Platform, Reference};

use super::{GitSource, UrlSource, redacted};

/// An input that a build takes from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockInput {
    /// An image for a platform.
    Image {
        /// Its full name.
        name: String,
        /// As in `linux/amd64`.
        platform: String,
    },
    /// A file.
    Url {
        /// Its address, without credentials.
        url: String,
    },
    /// A commit of a repository.
    Git {
        /// The repository's address, without credentials.
        repository: String,
        /// The branch, tag or commit; the default branch when empty.
        reference: String,
    },
}

impl LockInput {
    /// The image `name` for `platform`.
    #[must_use]
    pub fn image(name: &Reference, platform: &Platform) -> Self {
        Self::Image { name: name.to_string(), platform: platform.to_string() }
    }

    /// A file to be downloaded.
    #[must_use]
    pub fn url(source: &UrlSource) -> Self {
        Self::Url { url: redacted(&source.url) }
    }

    /// What a reference to a repository stands for.
    #[must_use]
    pub fn git(source: &GitSource) -> Self {
        let reference = source.reference.clone().unwrap_or_default();
        Self::Git { repository: source.shown(), reference }
    }

    /// The image's or repository's name without what chooses a version of it.
    fn family(&self) -> &str {
        match self {
            Self::Image { name, .. } => {
                let rest = name.split('@').next().unwrap_or_default();
                match rest.rsplit_once(':') {
                    Some((family, tag)) if !tag.contains('/') => family,
                    _ => rest,
                }
            }
            Self::Url { url } => url.split(['?', '#']).next().unwrap_or_default(),
            Self::Git { repository, .. } => repository,
        }
    }
}

impl std::fmt::Display for LockInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Image { name, platform } => write!(f, "{name} for {platform}"),
            Self::Url { url } => f.write_str(url),
            Self::Git { repository, reference } if reference.is_empty() => f.write_str(repository),
            Self::Git { repository, reference } => write!(f, "{repository}#{reference}"),
        }
    }
}

/// What an input was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockedValue {
    /// The digest of an image's manifest, or of a file.
    Digest(Digest),
    /// The full name of a commit.
    Commit(String),
}

impl std::fmt::Display for LockedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Commit(commit) => f.write_str(commit),
        }
    }
}

/// Inputs and what they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// What it was made for: `rbuild lock --update` renews it for all of these.
    pub platforms: BTreeSet<Platform>,
    entries: BTreeMap<LockInput, LockedValue>,
}

impl Lock {
    /// What an image's manifest or a file has to be.
    #[must_use]
    pub fn digest(&self, input: &LockInput) -> Option<Digest> {
        match self.entries.get(input)? {
            LockedValue::Digest(digest) => Some(*digest),
            LockedValue::Commit(_) => None,
        }
    }

    /// Which commit is meant.
    #[must_use]
    pub fn commit(&self, input: &LockInput) -> Option<&str> {
        match self.entries.get(input)? {
            LockedValue::Commit(commit) => Some(commit),
            LockedValue::Digest(_) => None,
        }
    }

    /// Remembers what an input is; `value` is a commit for a repository, and else a digest.
    pub fn set(&mut self, input: LockInput, value: LockedValue) {
        debug_assert_eq!(
            matches!(input, LockInput::Git { .. }),
            matches!(value, LockedValue::Commit(_))
        );
        self.entries.insert(input, value);
    }

    /// Takes over what `other` says.
    pub fn extend(&mut self, other: &Self) {
        self.platforms.extend(other.platforms.iter().cloned());
        let entries = other.entries.iter().map(|(input, value)| (input.clone(), value.clone()));
        self.entries.extend(entries);
    }

    /// All inputs and what they were, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&LockInput, &LockedValue)> {
        self.entries.iter()
    }

    /// How many inputs it has.
    #[must_use]
    pub fn n_inputs(&self) -> usize {
        self.entries.len()
    }

    /// An input that `missing` may have been before the Dockerfile was changed: another version of
    /// the same image, file or repository.
    #[must_use]
    pub fn relative_of(&self, missing: &LockInput) -> Option<&LockInput> {
        let is_alike = |input: &&LockInput| {
            std::mem::discriminant(*input) == std::mem::discriminant(missing)
                && input.family() == missing.family()
        };
        self.entries.keys().find(is_alike)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_of_an_input_is_found() {
        let image =
            |name: &str| LockInput::image(&name.parse().unwrap(), &"linux/amd64".parse().unwrap());
        let mut lock = Lock::default();
        lock.set(image("busybox"), LockedValue::Digest(Digest::of(b"a")));
        for (missing, want) in [
            (image("busybox:1.36"), Some(image("busybox"))),
            (image("busybox-x"), None),
            (image("h:5000/busybox"), None),
        ] {
            assert_eq!(lock.relative_of(&missing), want.as_ref(), "{missing}");
        }
    }
}
