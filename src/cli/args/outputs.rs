//! `--output` and what goes with it, as it is typed.

use clap::{Args, ValueEnum};

use super::compression::CompressionArgs;

/// What may be typed about outputs.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Write the image out: type=oci|docker|local|tar|image|registry|cacheonly,dest=PATH,…; `-` or a
    /// directory alone are its files; may be repeated
    #[arg(short, long, value_name = "type=TYPE,dest=PATH")]
    pub(crate) output: Vec<String>,
    /// Push every name of -t to its registry: the same as -o type=registry
    #[arg(long)]
    pub(crate) push: bool,
    /// Let a push replace an index of the registry by one for fewer platforms, or by one image
    #[arg(long)]
    pub(crate) replace_index: bool,
    /// Load the image into docker or podman: the same as -o type=docker
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "any",
        value_name = "docker|podman"
    )]
    pub(crate) load: Option<Wanted>,
    /// Add an annotation to the manifest, or to what LEVEL names: manifest, index,
    /// manifest-descriptor or index-descriptor, several with commas; may be repeated
    #[arg(long, value_name = "[LEVEL:]KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    #[command(flatten)]
    pub(crate) compression: CompressionArgs,
}

/// Which of them is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wanted {
    /// Docker if it is there, or else podman
    #[value(hide = true)]
    Any,
    /// Docker
    Docker,
    /// Podman
    Podman,
}
