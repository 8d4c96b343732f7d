//! A target of a definition: everything that a build needs.
//!
//! `None` and an empty list differ where definitions are merged: an empty list replaces.

mod decode;
mod entries;
mod members;
mod merge;

use std::collections::BTreeMap;

pub(crate) use decode::{ATTRIBUTES, texts};
pub(crate) use entries::parse_caches;
pub use entries::{
    Attest, CacheEntry, Output, PolicyConfig, Resources, Secret, SshKey, parse_bool,
};

/// Values by name; a null value is left out of the build.
pub type NullableMap = BTreeMap<String, Option<String>>;

/// A target; the fields are those of buildx's `bake.Target`, in the order of `--print`.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// Text for `--list`.
    pub description: String,
    /// Names of the targets that this one extends.
    pub inherits: Vec<String>,
    /// Annotations of the image, `[TYPE:]KEY=VALUE`.
    pub annotations: Option<Vec<String>>,
    /// Attestations.
    pub attest: Option<Vec<Attest>>,
    /// Build context: a path or URL.
    pub context: Option<String>,
    /// Named contexts.
    pub contexts: Option<BTreeMap<String, String>>,
    /// Path of the Dockerfile in the context.
    pub dockerfile: Option<String>,
    /// Text of the Dockerfile.
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    pub args: Option<NullableMap>,
    /// Labels of the image.
    pub labels: Option<NullableMap>,
    /// Names of the image.
    pub tags: Option<Vec<String>>,
    /// Caches to import.
    pub cache_from: Option<Vec<CacheEntry>>,
    /// Caches to export.
    pub cache_to: Option<Vec<CacheEntry>>,
    /// Stage to build.
    pub target: Option<String>,
    /// Secrets.
    pub secrets: Option<Vec<Secret>>,
    /// Agents and keys of SSH.
    pub ssh: Option<Vec<SshKey>>,
    /// Platforms to build for.
    pub platforms: Option<Vec<String>>,
    /// Outputs.
    pub outputs: Option<Vec<Output>>,
    /// If set, base images are looked up in their registries.
    pub pull: Option<bool>,
    /// If set, no step is taken from the cache.
    pub no_cache: Option<bool>,
    /// Network of RUN.
    pub network: Option<String>,
    /// Stages whose steps are not taken from the cache.
    pub no_cache_filter: Option<Vec<String>>,
    /// Size of `/dev/shm`.
    pub shm_size: Option<String>,
    /// Limits, `NAME=SOFT:HARD`.
    pub ulimits: Option<Vec<String>>,
    /// Limits of memory and processors.
    pub resources: Option<Resources>,
    /// Method that is called instead of a build: `check`, `outline`, `targets`.
    pub call: Option<String>,
    /// Permissions that the target needs.
    pub entitlements: Option<Vec<String>>,
    /// Host names and their addresses.
    pub extra_hosts: Option<NullableMap>,
    /// Source policies.
    pub policy: Option<Vec<PolicyConfig>>,
    /// Set if the target is only built as a context of another.
    pub linked: bool,
    /// Directories of the files that defined the contexts.
    pub base: ContextBase,
}

/// The directories that relative contexts start from, with `BUILDX_BAKE_FILE_RELATIVE_PATHS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContextBase {
    /// Directory of the file with the target's block.
    pub default: Option<String>,
    /// If set, a missing context is the default directory.
    pub use_default: bool,
    /// Directory of the file with the attribute `context`.
    pub context: Option<String>,
    /// Target whose context the attribute refers to.
    pub reference: Option<String>,
    /// Directories of the files with the named contexts.
    pub contexts: BTreeMap<String, String>,
}
