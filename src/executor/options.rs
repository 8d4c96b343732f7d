//! What a build is given.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::archive::Packing;
use crate::context::IgnoreRules;
use crate::dockerfile::ir;
use crate::oci::{Annotation, Reference};
use crate::plan::{self, Remote};
use crate::registry::Client;
use crate::store::{LayerOptions, Store};
use crate::tree::Tree;

use super::{CacheFrom, CacheTo, Event, Lent, LockedInputs, StepNumbers, Stop};

/// Where the sources of COPY are.
#[derive(Debug, Clone)]
pub struct ContextSource {
    /// The directory.
    pub path: PathBuf,
    /// What of it is not there for the build.
    pub ignore: IgnoreRules,
    /// Whether the directory is the same in the next build, so that its files' hashes are remembered.
    pub lasting: bool,
    /// The files with their owners, if it is an archive's and not simply a directory.
    pub tree: Option<Tree>,
}

/// Where the files of a context are.
#[derive(Debug, Clone)]
pub enum ContextFiles {
    /// On this machine.
    Directory(ContextSource),
    /// Somewhere else; no ignore file counts there.
    Remote(Remote),
}

/// Limits of what is built. Sizes are those of uncompressed layers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// Of all layers together, the base's too.
    pub image_bytes: Option<u64>,
    /// Of each layer that an instruction of the Dockerfile made.
    pub layer_bytes: Option<u64>,
}

/// What a build is to do.
#[derive(Debug)]
pub struct BuildOptions {
    /// The Dockerfile.
    pub dockerfile: ir::Dockerfile,
    /// The context.
    pub context: ContextSource,
    /// The named contexts that are files, by the names in the request.
    pub contexts: BTreeMap<String, ContextFiles>,
    /// Arguments, target, platform, labels.
    pub request: plan::Request,
    /// Names for the result.
    pub tags: Vec<Reference>,
    /// Annotations of its documents in the store, and so of all that goes out.
    pub annotations: Vec<Annotation>,
    /// Whether the result is an index even for a single platform.
    pub always_index: bool,
    /// Caches elsewhere that are read first.
    pub cache_from: Vec<CacheFrom>,
    /// Caches elsewhere that are written last.
    pub cache_to: Vec<CacheTo>,
    /// Whether earlier results are not used.
    pub no_cache: bool,
    /// Whether what a failed RUN leaves is kept with the error, for others to look at.
    pub keep_failed: bool,
    /// Whether registries are asked even for images that are in the store.
    pub pull: bool,
    /// SOURCE_DATE_EPOCH: the time in config and history.
    pub epoch_s: Option<i64>,
    /// Whether later file times in new layers become the epoch too.
    pub clamp: bool,
    /// Secrets and agents for `RUN --mount`.
    pub lent: Lent,
    /// Seconds since 1970.
    pub now_s: i64,
    /// How many threads may work at once.
    pub jobs: NonZeroUsize,
    /// How large the image and its layers may be.
    pub budget: Budget,
    /// How new layers of the image will go out: they are packed so while later steps run.
    pub pack_ahead: Vec<Packing>,
}

impl BuildOptions {
    /// Returns the time of files that rbuild itself makes, in seconds since 1970.
    pub(in crate::executor) fn file_time_s(&self) -> i64 {
        self.epoch_s.unwrap_or(self.now_s)
    }

    /// Returns how new layers are written.
    pub(in crate::executor) fn layer_options(&self) -> LayerOptions {
        let clamp_s = self.epoch_s.filter(|_epoch| self.clamp);
        LayerOptions { clamp_s, created_s: self.now_s }
    }
}

/// What a build works with.
#[derive(Clone, Copy)]
pub struct Services<'a> {
    /// The store.
    pub store: &'a Store,
    /// The registries.
    pub registry: &'a Client,
    /// Ends the build.
    pub stop: &'a Stop,
    /// Variables for programs of the host, such as git: PATH, proxies, certificates.
    pub environment: &'a BTreeMap<String, String>,
    /// Secrets and agents.
    pub lent: &'a Lent,
    /// What inputs from elsewhere have to be.
    pub locked: &'a LockedInputs,
    /// Numbers what is shown.
    pub numbers: &'a StepNumbers,
    /// Learns what happens.
    pub events: &'a (dyn Fn(Event) + Sync),
}

impl std::fmt::Debug for Services<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("store", &self.store).finish_non_exhaustive()
    }
}
