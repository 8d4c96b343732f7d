//! What may be typed after the commands that look into images. No IO here.

use clap::Args;

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The image: a name or an id
    #[arg(value_name = "IMAGE")]
    pub(super) image: String,
    /// Of an image for several platforms, this one
    #[arg(long, value_name = "OS/ARCH")]
    pub(super) platform: Option<String>,
    /// Fetch layers that the store lacks, to look into them, too
    #[arg(long)]
    pub(super) pull: bool,
    /// One JSON object with the config and all that the page shows, sizes in bytes
    #[arg(long)]
    pub(super) json: bool,
}
