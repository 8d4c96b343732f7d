//! Plans a build: stages in order, each with its operations and its final config, and their cache keys.
//!
//! Pure: a [`plan`] is a function of the Dockerfile, the request and the configs of the base images. If
//! a config is missing, it returns the images that the caller has to resolve first.

mod add_remote;
mod checks;
mod explain;
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
mod stage_state;
mod stages;
mod step;
mod volumes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::diag::{Diagnostic, Span};
use crate::dockerfile::ir;
use crate::dockerfile::scope::ArgInputs;
use crate::oci::{Digest, ImageConfig, Platform, Reference};

pub use checks::{Checked, base_facts, check};
pub use explain::{
    BASE, BELOW, Difference, closest_step, component_value, first_difference, is_instruction_text,
};
pub use graph::{MountedLayers, mounted_layers};
pub use key::{CacheKey, Chain, Component, OperationKey};
pub use lock::{Lock, LockInput, LockedValue};
pub use mode::parse as parse_chmod;
pub use mounts::parse_binary_size;
pub use named::{NamedContext, NamedContexts, context_name};
pub use redact::{masked, redacted, redacted_text};
pub use remote::{GitSource, Remote, RemoteError, UrlSource, parse_remote, parse_repository};
pub use stage_state::clean_path;
pub use step::{
    Base, CopyFrom, CopyOperation, Dns, HistoryLine, InlineFile, MountAccess, Network, Operation,
    Plan, PlannedSource, PlannedStage, RemoteCopySource, RunMount, RunMountKind, RunOperation,
    RunSettings, Step, Target, Ulimit, Volume, VolumeAccess, WorkdirOperation,
};

/// A build as the caller requests it, apart from the Dockerfile.
#[derive(Debug, Clone)]
pub struct Request {
    /// Values of `--build-arg`, by name.
    pub build_args: BTreeMap<String, String>,
    /// Value of `--target`: the name or number of a stage.
    pub target: Option<String>,
    /// Platforms to build for, in order; at least one.
    pub platforms: Vec<Platform>,
    /// True if the caller named the platforms. Otherwise an image has the platform of its base.
    pub platform_given: bool,
    /// Platform that the build runs on.
    pub build_platform: Platform,
    /// Labels of `--label`, added to the final image.
    pub labels: Vec<(String, String)>,
    /// Further changes of the config.
    pub changes: ConfigChanges,
    /// The image that replaces the one of the first FROM (`--from`).
    pub first_base: Option<String>,
    /// Network of steps without `--network`.
    pub network: Network,
    /// True if `--allow network.host` is given.
    pub allow_host_network: bool,
    /// True if `--allow security.insecure` is given.
    pub allow_insecure: bool,
    /// Stages whose steps are executed even if their results are known.
    pub uncached: Uncached,
    /// Hosts and limits of all RUN steps.
    pub run: RunSettings,
    /// Named contexts of `--build-context`.
    pub contexts: NamedContexts,
}

impl Request {
    /// Returns what ARGs take from the request, for one of its platforms.
    pub(crate) fn arg_inputs<'a>(&'a self, platform: &'a Platform) -> ArgInputs<'a> {
        ArgInputs {
            build_args: &self.build_args,
            target: self.target.as_deref(),
            platform,
            build_platform: &self.build_platform,
        }
    }
}

/// Changes of the config that the command line asks for, as in buildah.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigChanges {
    /// Variables that every stage begins with, as if it had an ENV (`--env`).
    pub env: Vec<(String, String)>,
    /// Variables that the final image does not have (`--unsetenv`).
    pub unset_env: Vec<String>,
    /// Labels that the final image does not have (`--unsetlabel`).
    pub unset_labels: Vec<String>,
    /// True if stages do not take over the labels of their bases (`--inherit-labels=false`).
    pub drops_labels: bool,
}

impl ConfigChanges {
    /// Applies the changes of the final image.
    fn finish(&self, config: &mut ImageConfig) {
        for name in &self.unset_labels {
            config.config.labels.remove(name);
        }
        for name in &self.unset_env {
            config.config.unset_env(name);
        }
    }
}

/// Stages whose earlier results are not used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Uncached {
    /// No stage.
    #[default]
    None,
    /// Stages of these names (`AS NAME`, or `stage-N`), case-insensitively, as in BuildKit.
    Stages(Vec<String>),
    /// All stages.
    All,
}

impl Uncached {
    /// Returns whether the stage of this name is one of them.
    #[must_use]
    pub fn has(&self, stage: &str) -> bool {
        match self {
            Self::None => false,
            Self::Stages(names) => names.iter().any(|name| name.eq_ignore_ascii_case(stage)),
            Self::All => true,
        }
    }
}

/// An image that a plan needs, for one platform.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRequest {
    /// Full name of the image.
    pub name: Reference,
    /// Registry, layout or store that has it.
    pub location: ImageLocation,
    /// Platform of the image.
    pub platform: Platform,
}

/// The location of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageLocation {
    /// The store, and then the registry in its name.
    Registry,
    /// An OCI image layout.
    Layout(Box<LayoutLocation>),
    /// A manifest or index of the store, which no tag needs to name.
    Stored(Box<Digest>),
}

/// The location of an image in an OCI image layout (image-spec, image-layout.md).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayoutLocation {
    /// Directory of the layout.
    pub path: PathBuf,
    /// Tag of the image. Without one, `latest` is used, or the only image.
    pub tag: Option<String>,
    /// Digest of the manifest; it takes precedence over the tag.
    pub digest: Option<Digest>,
}

/// The facts about an image that planning needs.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Config of the image.
    pub config: ImageConfig,
    /// Instructions of its ONBUILD triggers.
    pub triggers: Vec<ir::Instruction>,
}

/// The known images, by request.
pub type Images = BTreeMap<ImageRequest, BaseImage>;

/// The result of [`plan`].
#[derive(Debug)]
pub enum Outcome {
    /// The configs of these images are missing; call [`plan`] again with them.
    Needs(Vec<(ImageRequest, Span)>),
    /// The complete plan, ready to execute.
    Ready(Box<Plan>),
}

/// Plans the build of `file`.
///
/// # Errors
/// All errors that stop the build before its first step, in source order.
pub fn plan(
    file: &ir::Dockerfile,
    request: &Request,
    images: &Images,
) -> Result<Outcome, Vec<Diagnostic>> {
    platforms::plan(file, request, images)
}
