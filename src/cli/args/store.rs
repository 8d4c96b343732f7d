//! What may be typed after the commands about images of the store. No IO here.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::compression::CompressionArgs;

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image: a name or an id
    #[arg(value_name = "IMAGE")]
    pub(crate) source: String,
    /// Its further names
    #[arg(value_name = "NAME[:TAG]", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names, or ids of images with one name
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// By id, take all names away; and what is not there is no error
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// Every image, layer, cached step, cache and download
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// All of it as one JSON object, sizes in bytes
    #[arg(long, conflicts_with = "verbose")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove tagged images, and the caches of RUN --mount, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only what was not used for so long, or since then: until=24h, unused-for=7d,
    /// until=2026-01-31T12:00:00
    #[arg(long, value_name = "until=TIME", conflicts_with = "older_than")]
    pub(crate) filter: Option<String>,
    /// Only what was not used for so long, such as 24h or 7d
    #[arg(long, value_name = "DURATION")]
    pub(crate) older_than: Option<String>,
    /// Only so much, the least recently used first, that the store takes no more than this of the
    /// disk, such as 10GB
    #[arg(long, visible_aliases = ["max-storage", "max-used-space"], value_name = "SIZE")]
    pub(crate) keep_storage: Option<String>,
    /// Remove nothing, say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// With --all on a terminal, do not ask first
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Check all that the store holds: blobs, listings, unpacked layers, names of images, the index
    #[command(after_help = "\
Exit status: 0 nothing is damaged, or all damage was repaired; 1 something is damaged; 3 the check
failed, or --repair was given while another rbuild uses the store.")]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Remove what is damaged: it is made again from the layer's archive, by pulling, or by the next
    /// build. An index that cannot be read is rebuilt
    #[arg(long)]
    pub(crate) repair: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Names or ids; several images share layers in the archive
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// The archive; `-` is standard output, as is nothing
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// `docker` for `docker load`, which is an OCI layout as well; `oci` keeps several platforms
    #[arg(long, value_enum, default_value_t = SaveFormat::Docker, value_name = "docker|oci")]
    pub(crate) format: SaveFormat,
    /// Of images for several platforms, this one
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) compression: CompressionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SaveFormat {
    /// What `docker save` writes
    #[value(alias = "docker-archive")]
    Docker,
    /// An OCI layout
    #[value(alias = "oci-archive")]
    Oci,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// An archive that `docker save`, podman or skopeo wrote, or an OCI layout, packed in any way;
    /// or the directory of an OCI layout; `-` is standard input, as is nothing
    #[arg(short, long, value_name = "FILE|DIR")]
    pub(crate) input: Option<PathBuf>,
    /// Only images for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Do not say what was loaded
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
