//! Repositories that are known to have a blob.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::oci::{Digest, Reference};
use crate::pool;

/// The repositories of blobs: those that a registry confirmed, and those of uploads.
#[derive(Debug, Default)]
pub(super) struct BlobLocations {
    /// Repositories of a blob, by registry, the first one known first.
    known: Mutex<BTreeMap<(String, Digest), Vec<String>>>,
}

impl BlobLocations {
    /// Records that the repository of `name` has the blob.
    pub(super) fn note(&self, name: &Reference, digest: Digest) {
        let mut known = pool::lock(&self.known);
        let repositories = known.entry((name.registry().to_owned(), digest)).or_default();
        if !repositories.iter().any(|repository| repository == name.repository()) {
            repositories.push(name.repository().to_owned());
        }
    }

    /// Returns whether the repository of `name` is known to have the blob.
    pub(super) fn has(&self, name: &Reference, digest: Digest) -> bool {
        self.find(name, digest, |repository| repository == name.repository()).is_some()
    }

    /// Returns another repository of the registry of `name` that has the blob.
    pub(super) fn elsewhere(&self, name: &Reference, digest: Digest) -> Option<String> {
        self.find(name, digest, |repository| repository != name.repository())
    }

    fn find(
        &self,
        name: &Reference,
        digest: Digest,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let known = pool::lock(&self.known);
        let repositories = known.get(&(name.registry().to_owned(), digest))?;
        repositories.iter().find(|repository| is_wanted(repository)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_of_one_registry_are_known() {
        let locations = BlobLocations::default();
        let name = |text: &str| text.parse::<Reference>().unwrap();
        let digest = Digest::of(b"blob");
        let (app, cache) = (name("r.example/app:1"), name("r.example/cache:1"));
        assert_eq!(locations.elsewhere(&cache, digest), None);
        locations.note(&app, digest);
        locations.note(&app, digest);
        assert!(locations.has(&app, digest) && !locations.has(&cache, digest));
        assert_eq!(locations.elsewhere(&cache, digest).as_deref(), Some("app"));
        assert_eq!(locations.elsewhere(&app, digest), None);
        assert_eq!(locations.elsewhere(&name("other.example/app"), digest), None);
        assert_eq!(locations.elsewhere(&cache, Digest::of(b"another")), None);
    }
}
