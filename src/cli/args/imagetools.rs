//! The arguments of `imagetools`, as `docker buildx imagetools` has them.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use super::heading::DOCKER;

/// The arguments of `imagetools`.
#[derive(Debug, Args)]
pub(crate) struct ImagetoolsArgs {
    #[command(subcommand)]
    pub(crate) command: ImagetoolsCommand,
    /// No effect: there are no builders
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true, help_heading = DOCKER)]
    builder: Option<String>,
}

/// The subcommands of `imagetools`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagetoolsCommand {
    /// Join images of registries to an index, or copy an image
    Create(CreateArgs),
    /// Show an image or index of a registry
    Inspect(RemoteInspectArgs),
}

/// The arguments of `imagetools create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Images to join
    ///
    /// Names, digests in the repository of the others, or descriptors in JSON.
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Read a source from a file
    ///
    /// A name, a digest, or a descriptor in JSON. May be repeated.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// Name of the new image
    ///
    /// May be repeated, also with other registries.
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// Add the sources to the index that the first --tag has
    #[arg(long)]
    pub(crate) append: bool,
    /// Print the index, push nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Add an annotation to the index or its entries
    ///
    /// Such as index:KEY=VALUE or manifest-descriptor[linux/arm64]:KEY=VALUE. Images are not changed, so
    /// they cannot get any.
    #[arg(long, value_name = "LEVEL:KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Keep only these platforms
    ///
    /// Several are separated by commas.
    #[arg(short, long, value_name = "OS/ARCH[,…]", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Make an index of a single image, too
    ///
    /// With --prefer-index=false, a single image is copied unchanged.
    #[arg(
        long,
        value_name = "BOOL",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true"
    )]
    pub(crate) prefer_index: bool,
    /// Write the descriptor of the result to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Show progress: auto, plain, tty, quiet or none
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub(crate) progress: CopyProgress,
}

/// The way in which copies are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CopyProgress {
    /// A line for each copy and each name
    Auto,
    /// The same
    Plain,
    /// The same
    Tty,
    /// Nothing but errors
    Quiet,
    /// Nothing but errors
    None,
}

/// The arguments of `imagetools inspect`.
#[derive(Debug, Args)]
pub(crate) struct RemoteInspectArgs {
    /// Name of the image
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Print the manifest or index unchanged
    #[arg(long, conflicts_with = "format")]
    pub(crate) raw: bool,
    /// Print a Go template
    ///
    /// Of .Name, .Manifest and .Image, such as '{{json .Manifest}}' or '{{.Manifest.Digest}}'.
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}
