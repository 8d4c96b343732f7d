//! What has to be done: stages in order, each a chain of operations with everything expanded, and
//! the config that comes out; and the keys under which results are remembered.
//!
//! Pure: a [`plan`] is a function of the Dockerfile, the request and the base images' configs. It
//! contacts nobody; when a config is missing it says which.

mod add_remote;
mod args;
mod checks;
mod explain;
mod fold;
mod graph;
mod history;
mod key;
mod lock;
mod mode;
mod mounts;
mod named;
mod order;
mod permissions;
mod platforms;
mod ports;
mod redact;
mod remote;
mod signal;
mod stages;
mod step;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::diag::{Diagnostic, Span};
use crate::dockerfile::ir;
use crate::oci::{Digest, ImageConfig, Platform, Reference};

pub use args::is_predefined;
pub use checks::{Checked, base_facts, check};
pub use explain::{BASE, BELOW, Difference, closest, first_difference, part, says_work};
pub use graph::{Forms, forms};
pub use key::{CacheKey, Chain, Component, OperationKey};
pub use lock::{Lock, LockInput, LockedValue};
pub use mode::parse as parse_chmod;
pub use mounts::bytes;
pub use named::{NamedContext, NamedContexts, context_name};
pub use order::froms;
pub use redact::{masked, redacted, redacted_text};
pub use remote::{GitSource, Remote, RemoteError, UrlSource, parse_remote};
pub use step::{
    Access, Base, CopyFrom, CopyOperation, CopyPart, HistoryLine, InlineFile, Network, Operation,
    Plan, PlannedStage, RemotePart, RunMount, RunMountKind, RunOperation, RunSettings, Step,
    Target, Ulimit, WorkdirOperation,
};

/// What the caller wants built, beside the Dockerfile.
#[derive(Debug, Clone)]
pub struct Request {
    /// `--build-arg`, by name.
    pub build_args: BTreeMap<String, String>,
    /// `--target`: a stage's name or number.
    pub target: Option<String>,
    /// What images are made for, in order; one at least.
    pub platforms: Vec<Platform>,
    /// True if the caller named the platforms. Otherwise an image has the platform of its base.
    pub platform_given: bool,
    /// What the build runs on.
    pub build_platform: Platform,
    /// `--label`, added to the final image.
    pub labels: Vec<(String, String)>,
    /// `--network` for steps that do not say.
    pub network: Network,
    /// `--allow network.host`.
    pub allow_host_network: bool,
    /// `--allow security.insecure`.
    pub allow_insecure: bool,
    /// Hosts, limits and sizes of every RUN.
    pub run: RunSettings,
    /// `--build-context`.
    pub contexts: NamedContexts,
}

/// An image that a plan needs: which, for which platform, and where the Dockerfile names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRequest {
    /// The image.
    pub name: Reference,
    /// Where it is.
    pub place: ImagePlace,
    /// For which platform.
    pub platform: Platform,
}

/// Where an image is looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImagePlace {
    /// In the store, and then in the registry that its name names.
    Registry,
    /// In an OCI layout.
    Layout(Box<LayoutPlace>),
}

/// An image of an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayoutPlace {
    /// The directory.
    pub path: PathBuf,
    /// The tag; `latest`, or else the only one, when there is none.
    pub tag: Option<String>,
    /// The digest; it counts, not the tag, when both are there.
    pub digest: Option<Digest>,
}

/// What planning has to know of an image.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Its config.
    pub config: ImageConfig,
    /// The instructions of its ONBUILD triggers.
    pub triggers: Vec<ir::Instruction>,
}

/// What is known of the images that FROM and `--from` name.
pub type Images = BTreeMap<ImageRequest, BaseImage>;

/// An answer of [`plan`].
#[derive(Debug)]
pub enum Outcome {
    /// These images' configs are needed first; ask again with them.
    Needs(Vec<(ImageRequest, Span)>),
    /// The plan.
    Ready(Box<Plan>),
}

/// Plans the build of `file`.
///
/// # Errors
/// Every mistake that stops the build, in order of place.
pub fn plan(
    file: &ir::Dockerfile,
    request: &Request,
    images: &Images,
) -> Result<Outcome, Vec<Diagnostic>> {
    platforms::plan(file, request, images)
}
