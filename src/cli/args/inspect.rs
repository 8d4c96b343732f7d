//! What may be typed after the commands that look into images. No IO here.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only these: a repository, NAME:TAG, or a pattern such as 'team/*'
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// Print ids only
    #[arg(short, long, conflicts_with_all = ["json", "format"])]
    pub(crate) quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// One JSON object a line, with docker's names
    #[arg(long)]
    pub(crate) json: bool,
    /// How each image is shown: `json`, `table`, or a template such as '{{.Repository}}:{{.Tag}}', with
    /// `table ` before it for headings; --json shows the fields
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The image: a name or an id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Of an image for several platforms, this one
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Read the image in its registry: nothing of it is kept
    #[arg(long, conflicts_with = "pull")]
    pub(crate) remote: bool,
    /// Fetch layers that the store lacks, to look into them, too
    #[arg(long)]
    pub(crate) pull: bool,
    /// One JSON object with the config and all that the page shows, sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The old image: a name or an id
    #[arg(value_name = "A")]
    pub(crate) old: String,
    /// The new one
    #[arg(value_name = "B")]
    pub(crate) new: String,
    /// Of images for several platforms, this one [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Fetch layers that the store lacks
    #[arg(long)]
    pub(crate) pull: bool,
    /// Exit with 1 if they differ
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// One JSON object with all differences, sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
}
