//! Locked inputs: `rbuild.lock` as a value.

use std::collections::{BTreeMap, BTreeSet};

use crate::oci::{Digest, Platform, Reference};

use super::{GitSource, UrlSource, redacted};

/// An external input of a build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockInput {
    /// An image for a platform.
    Image {
        /// Full name of the image.
        name: String,
        /// Platform, as in `linux/amd64`.
        platform: String,
    },
    /// A file that is downloaded.
    Url {
        /// Address of the file, without credentials.
        url: String,
    },
    /// A commit of a repository.
    Git {
        /// Address of the repository, without credentials.
        repository: String,
        /// Branch, tag or commit; empty for the default branch.
        reference: String,
    },
}

impl LockInput {
    /// Returns the input for the image `name` and a platform.
    #[must_use]
    pub fn image(name: &Reference, platform: &Platform) -> Self {
        Self::Image { name: name.to_string(), platform: platform.to_string() }
    }

    /// Returns the input for a downloaded file.
    #[must_use]
    pub fn url(source: &UrlSource) -> Self {
        Self::Url { url: redacted(&source.url) }
    }

    /// Returns the input for a reference to a repository.
    #[must_use]
    pub fn git(source: &GitSource) -> Self {
        let reference = source.reference.clone().unwrap_or_default();
        Self::Git { repository: source.shown(), reference }
    }

    /// Returns the name without the part that selects a version: tag, digest, query or reference.
    fn name_without_version(&self) -> &str {
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

/// The identity of an input at the time of locking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockedValue {
    /// Digest of a file, or of an image's manifest.
    Digest(Digest),
    /// Full hash of a commit.
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

/// The inputs of builds and their identities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// Platforms that were locked; `rbuild lock --update` renews all of them.
    pub platforms: BTreeSet<Platform>,
    entries: BTreeMap<LockInput, LockedValue>,
}

impl Lock {
    /// Returns the digest that an image's manifest or a file must have.
    #[must_use]
    pub fn digest(&self, input: &LockInput) -> Option<Digest> {
        match self.entries.get(input)? {
            LockedValue::Digest(digest) => Some(*digest),
            LockedValue::Commit(_) => None,
        }
    }

    /// Returns the commit that a reference to a repository must resolve to.
    #[must_use]
    pub fn commit(&self, input: &LockInput) -> Option<&str> {
        match self.entries.get(input)? {
            LockedValue::Commit(commit) => Some(commit),
            LockedValue::Digest(_) => None,
        }
    }

    /// Sets the identity of an input: a commit for a repository, otherwise a digest.
    pub fn set(&mut self, input: LockInput, value: LockedValue) {
        debug_assert_eq!(
            matches!(input, LockInput::Git { .. }),
            matches!(value, LockedValue::Commit(_))
        );
        self.entries.insert(input, value);
    }

    /// Adds the platforms and inputs of `other`, which win over those here.
    pub fn extend(&mut self, other: &Self) {
        self.platforms.extend(other.platforms.iter().cloned());
        let entries = other.entries.iter().map(|(input, value)| (input.clone(), value.clone()));
        self.entries.extend(entries);
    }

    /// Iterates over all inputs and their identities, sorted.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&LockInput, &LockedValue)> {
        self.entries.iter()
    }

    /// Returns the number of inputs.
    #[must_use]
    pub fn n_inputs(&self) -> usize {
        self.entries.len()
    }

    /// Finds another version of the image, file or repository `missing`, which the Dockerfile may have
    /// named before.
    #[must_use]
    pub fn other_version_of(&self, missing: &LockInput) -> Option<&LockInput> {
        let is_alike = |input: &&LockInput| {
            std::mem::discriminant(*input) == std::mem::discriminant(missing)
                && input.name_without_version() == missing.name_without_version()
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
            assert_eq!(lock.other_version_of(&missing), want.as_ref(), "{missing}");
        }
    }
}
