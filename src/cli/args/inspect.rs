//! The arguments of `images`, `inspect` and `diff`.

use clap::Args;

/// The arguments of `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// List only images with this name
    ///
    /// A repository, NAME:TAG, or a pattern such as 'team/*'.
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// Print only the ids
    #[arg(short, long, conflicts_with_all = ["json", "format"])]
    pub(crate) quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print one JSON object a line
    ///
    /// Members have docker's names.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print `json`, `table` or a template
    ///
    /// A template is text with fields, such as '{{.Repository}}:{{.Tag}}'. With `table ` before it, it
    /// gets headings. --json shows the fields.
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) format: Option<String>,
}

/// The arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Inspect this platform of the image
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Read the image from its registry, and keep nothing
    #[arg(long, conflicts_with = "pull")]
    pub(crate) remote: bool,
    /// Pull layers that are missing from the store
    #[arg(long)]
    pub(crate) pull: bool,
    /// Print one JSON object, sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Name or id of the old image
    #[arg(value_name = "A")]
    pub(crate) old: String,
    /// Name or id of the new image
    #[arg(value_name = "B")]
    pub(crate) new: String,
    /// Compare this platform of the images
    ///
    /// [default: that of the machine]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Pull layers that are missing from the store
    #[arg(long)]
    pub(crate) pull: bool,
    /// Exit with status 1 if the images differ
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// Print one JSON object, sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
}
