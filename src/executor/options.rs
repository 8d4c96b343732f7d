//! The options of a build, and the services that it uses.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::archive::Packing;
use crate::context::IgnoreRules;
use crate::dockerfile::ir;
use crate::oci::{Annotation, Reference};
use crate::plan::{self, Remote};
use crate::registry::Client;
use crate::sandbox::ResourceLimits;
use crate::store::{LayerOptions, Store};
use crate::tree::Tree;

use super::{
    CacheFrom, CacheTo, CancelSwitch, Event, LockedInputs, Provided, RunTrust, StepNumbers,
};

/// A directory that COPY takes its sources from.
#[derive(Debug, Clone)]
pub struct ContextSource {
    /// Path of the directory.
    pub path: PathBuf,
    /// Files that the build does not see.
    pub ignore: IgnoreRules,
    /// True if the next build uses the same directory, so that file hashes are worth storing.
    pub lasting: bool,
    /// The files with their owners, if the context is an unpacked archive.
    pub tree: Option<Tree>,
}

/// The files of a named context.
#[derive(Debug, Clone)]
pub enum ContextFiles {
    /// A directory on this machine.
    Directory(ContextSource),
    /// A URL or a repository, to which no ignore file applies.
    Remote(Remote),
}

/// Limits on the size of a build's result, in uncompressed bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// Maximum size of all layers together, including the base image.
    pub image_bytes: Option<u64>,
    /// Maximum size of each layer that an instruction of the Dockerfile makes.
    pub layer_bytes: Option<u64>,
}

/// The options of a build.
#[derive(Debug)]
pub struct BuildOptions {
    /// The parsed Dockerfile.
    pub dockerfile: ir::Dockerfile,
    /// The build context.
    pub context: ContextSource,
    /// Named contexts that consist of files, by their names in the request.
    pub contexts: BTreeMap<String, ContextFiles>,
    /// Arguments, target, platforms and labels.
    pub request: plan::Request,
    /// Names for the result.
    pub tags: Vec<Reference>,
    /// Annotations of the documents in the store, and so of all outputs.
    pub annotations: Vec<Annotation>,
    /// True to write an index even for a single platform.
    pub always_index: bool,
    /// Caches to import before the build.
    pub cache_from: Vec<CacheFrom>,
    /// Caches to export to after the build.
    pub cache_to: Vec<CacheTo>,
    /// True to return the rootfs of a failed RUN for a debug session.
    pub keep_failed: bool,
    /// When registries are asked for images.
    pub pull: Pull,
    /// SOURCE_DATE_EPOCH: the time in config and history
    /// (<https://reproducible-builds.org/specs/source-date-epoch/>).
    pub epoch_s: Option<i64>,
    /// True to set later file times in new layers to the epoch, too.
    pub clamp: bool,
    /// Secrets and agents for `RUN --mount`.
    pub provided: Provided,
    /// Limits on memory and processors of each RUN, which cache keys leave out.
    pub resources: Option<ResourceLimits>,
    /// Certificates that RUN steps trust.
    pub run_trust: Option<RunTrust>,
    /// Current time, in seconds since 1970.
    pub now_s: i64,
    /// Maximum number of threads that work at once.
    pub jobs: NonZeroUsize,
    /// Maximum size of the image and its layers.
    pub budget: Budget,
    /// Maximum size of changes that steps make in memory, bytes, where the store cannot hold them as an
    /// overlay; by default half of the memory that is available.
    pub max_in_memory: Option<u64>,
    /// Compressions of the outputs. New layers are compressed accordingly while later steps run.
    pub pack_ahead: Vec<Packing>,
    /// Repositories that get new layers while later steps run.
    pub upload_ahead: Vec<LayerUpload>,
    /// Names in registries that the image gets, whose indexes must not lose platforms.
    pub guarded_names: Vec<Reference>,
    /// Names in the repositories for which the right to push is checked before the first step.
    pub push_checks: Vec<Reference>,
    /// The layers of the image that are put into one.
    pub squash: Squash,
}

/// When registries are asked for images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// For images that the store does not have.
    Missing,
    /// For all. One that no registry has is an error.
    Always,
    /// For all. If that fails, the image of the store is used.
    Newer,
    /// For none.
    Never,
}

/// The layers that are put into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Squash {
    /// None: each step has a layer.
    Nothing,
    /// Those of the Dockerfile.
    New,
    /// All, with those of the base image.
    All,
}

/// A repository that gets the layers of a build.
#[derive(Debug, Clone)]
pub struct LayerUpload {
    /// A name in the repository.
    pub name: Reference,
    /// Compression of the layers.
    pub packing: Packing,
    /// True for the layers of all stages, and not only those of the images.
    pub all_stages: bool,
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

/// The services that a build uses.
#[derive(Clone, Copy)]
pub struct Services<'a> {
    /// The store for images, layers and records.
    pub store: &'a Store,
    /// Client for all registries and downloads.
    pub registry: &'a Client,
    /// Cancels the build.
    pub cancel: &'a CancelSwitch,
    /// Variables for programs of the host, such as git: PATH, proxies, certificates.
    pub environment: &'a BTreeMap<String, String>,
    /// Secrets and ssh agents from the command line.
    pub provided: &'a Provided,
    /// Requirements of the lock file.
    pub locked: &'a LockedInputs,
    /// Numbers of the steps in events.
    pub numbers: &'a StepNumbers,
    /// Receives all events.
    pub events: &'a (dyn Fn(Event) + Sync),
}

impl std::fmt::Debug for Services<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("store", &self.store).finish_non_exhaustive()
    }
}
