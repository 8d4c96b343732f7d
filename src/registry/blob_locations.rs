//! Repositories that are known to have a blob, or to lack it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};

use crate::oci::{DiffId, Digest, Reference};
use crate::pool;

/// The repositories of blobs: those that a registry confirmed, and those of uploads.
#[derive(Debug, Default)]
pub(super) struct BlobLocations {
    /// Repositories of a blob, by registry, the first one known first.
    known: Mutex<BTreeMap<(String, Digest), Vec<String>>>,
    /// Repositories, by full name, that lacked a blob when they were asked.
    lacking: Mutex<BTreeSet<(String, Digest)>>,
    sending: Arc<SendingLayers>,
}

/// The layers that are being sent, by registry.
#[derive(Debug, Default)]
struct SendingLayers {
    layers: Mutex<BTreeSet<(String, DiffId)>>,
    /// Notified when a layer is removed.
    ended: Condvar,
}

/// A lock that is held while a layer is sent to a registry. It is released on drop, by any thread.
#[derive(Debug)]
pub struct SendingLock {
    sending: Arc<SendingLayers>,
    key: (String, DiffId),
}

impl Drop for SendingLock {
    fn drop(&mut self) {
        pool::lock(&self.sending.layers).remove(&self.key);
        self.sending.ended.notify_all();
    }
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

    /// Records that the repository of `name` lacks the blob.
    pub(super) fn note_absent(&self, name: &Reference, digest: Digest) {
        pool::lock(&self.lacking).insert((name.name(), digest));
    }

    /// Returns whether the repository of `name` was just found to lack the blob; forgets that, as the
    /// caller is going to send it.
    pub(super) fn take_absent(&self, name: &Reference, digest: Digest) -> bool {
        pool::lock(&self.lacking).remove(&(name.name(), digest))
    }

    /// Locks a layer in the registry of `name`. Waits until no other thread sends it there.
    pub(super) fn lock(&self, name: &Reference, layer: DiffId) -> SendingLock {
        let key = (name.registry().to_owned(), layer);
        let mut layers = pool::lock(&self.sending.layers);
        while !layers.insert(key.clone()) {
            layers = pool::wait(&self.sending.ended, layers);
        }
        SendingLock { sending: Arc::clone(&self.sending), key }
    }

    /// Locks a layer in the registry of `name`, unless another thread sends it there.
    pub(super) fn try_lock(&self, name: &Reference, layer: DiffId) -> Option<SendingLock> {
        let key = (name.registry().to_owned(), layer);
        let is_free = pool::lock(&self.sending.layers).insert(key.clone());
        is_free.then(|| SendingLock { sending: Arc::clone(&self.sending), key })
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

    #[test]
    fn one_thread_at_a_time_sends_a_layer_to_a_registry() {
        let locations = BlobLocations::default();
        let name = |text: &str| text.parse::<Reference>().unwrap();
        let layer = DiffId::new(Digest::of(b"layer"));
        let held = locations.lock(&name("r.example/app:1"), layer);
        assert!(locations.try_lock(&name("r.example/cache:1"), layer).is_none());
        assert!(locations.try_lock(&name("other.example/app"), layer).is_some());
        pool::scope(|scope| {
            let waiting =
                pool::start(scope, || drop(locations.lock(&name("r.example/app:1"), layer)));
            // Another thread than the one that took it.
            pool::join(pool::start(scope, move || drop(held)).unwrap());
            pool::join(waiting.unwrap());
        });
        assert!(locations.try_lock(&name("r.example/app:1"), layer).is_some());
    }
}
