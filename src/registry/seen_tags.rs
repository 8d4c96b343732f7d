//! Tags as their registries last showed them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::oci::{Digest, Reference};
use crate::pool;

use super::Client;

/// Age up to which an answer counts as one of now. Of two builds that push a tag within it, either may be
/// the last.
const RECENT: Duration = Duration::from_secs(5);

/// The answer of a registry about a tag.
#[derive(Debug, Clone, Copy)]
pub struct SeenTag {
    /// Digest of the manifest or index; `None` if the registry had no such tag.
    pub digest: Option<Digest>,
    at: Instant,
}

impl SeenTag {
    /// Returns whether the answer is only a few seconds old.
    #[must_use]
    pub fn is_recent(&self) -> bool {
        self.at.elapsed() <= RECENT
    }
}

/// The last answer about each tag.
#[derive(Debug, Default)]
pub(super) struct SeenTags(Mutex<BTreeMap<String, SeenTag>>);

impl SeenTags {
    /// Records the answer about `name`, unless it refers to a digest.
    pub(super) fn note(&self, name: &Reference, digest: Option<Digest>) {
        if name.tag().is_some() && name.digest().is_none() {
            let seen = SeenTag { digest, at: Instant::now() };
            pool::lock(&self.0).insert(name.to_string(), seen);
        }
    }
}

impl Client {
    /// Returns the last answer of the registry itself, not of a mirror, about the tag of `name`.
    #[must_use]
    pub fn seen_tag(&self, name: &Reference) -> Option<SeenTag> {
        pool::lock(&self.seen_tags.0).get(&name.to_string()).copied()
    }
}
