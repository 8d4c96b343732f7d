//! `--output`, `--push`, `--load` and other options about outputs.

use clap::{Args, ValueEnum};

use super::compression::CompressionArgs;
use super::heading::OUTPUT;

/// Options about the outputs of a build.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Export: type=oci|docker|local|tar|…, or a directory
    ///
    /// type=oci|docker|local|tar|image|registry|cacheonly,dest=PATH,… A path alone is a directory for
    /// the files of the image; `-` alone writes them to standard output as tar. May be repeated.
    #[arg(short, long, value_name = "type=TYPE,…", help_heading = OUTPUT)]
    pub(crate) output: Vec<String>,
    /// Push every name of -t to its registry
    ///
    /// The same as -o type=registry. Layers are sent while later steps run; with --push=late, after the
    /// last step.
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "late",
        hide_possible_values = true,
        help_heading = OUTPUT
    )]
    pub(crate) push: Option<PushTime>,
    /// Check before the build that the push is permitted
    ///
    /// Opens an upload in each repository and cancels it, while caches and base images are looked up.
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) check_push: bool,
    /// A push may find its tag to be immutable
    ///
    /// Registries can forbid replacing a tag. With this option, that is a warning.
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) push_ignore_immutable_tag_errors: bool,
    /// Let a push remove platforms from an index
    ///
    /// Permits a push to replace an index of the registry by one for fewer platforms, or by a single
    /// image.
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) replace_index: bool,
    /// Load the image into docker or podman
    ///
    /// The same as -o type=docker.
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "any",
        value_name = "docker|podman",
        hide_possible_values = true,
        help_heading = OUTPUT
    )]
    pub(crate) load: Option<EngineChoice>,
    /// Add an annotation to the manifest or the index
    ///
    /// KEY=VALUE, or LEVEL:KEY=VALUE, where LEVEL is a comma-separated list of manifest (the
    /// default), index, manifest-descriptor and index-descriptor. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", help_heading = OUTPUT)]
    pub(crate) annotation: Vec<String>,
    #[command(flatten)]
    pub(crate) compression: CompressionArgs,
    /// Reason why the image is not loaded, although docker's client started the build and expects it in
    /// the engine.
    #[arg(skip)]
    pub(crate) not_loaded: Option<&'static str>,
}

/// The value of `--push`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PushTime {
    /// Push; layers are sent while later steps run
    True,
    /// Do not push
    False,
    /// Push, and send nothing before the last step has ended
    Late,
}

impl OutputArgs {
    /// Returns whether the image is pushed.
    pub(crate) fn pushes(&self) -> bool {
        matches!(self.push, Some(PushTime::True | PushTime::Late))
    }
}

/// The engine that `--load` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineChoice {
    /// Docker if it is available, or else podman
    #[value(hide = true)]
    Any,
    /// The engine of docker
    Docker,
    /// The engine of podman
    Podman,
}
