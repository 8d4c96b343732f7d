//! What may be typed after the commands about images of the store. No IO here.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::args::CompressionArgs;

#[derive(Debug, Args)]
pub(super) struct TagArgs {
    /// The image: a name or an id
    #[arg(value_name = "IMAGE")]
    pub(super) source: String,
    /// Its further names
    #[arg(value_name = "NAME[:TAG]", required = true)]
    pub(super) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct RmiArgs {
    /// Names, or ids of images with one name
    #[arg(value_name = "IMAGE", required = true)]
    pub(super) images: Vec<String>,
    /// By id, take all names away; and what is not there is no error
    #[arg(short, long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct DuArgs {
    /// Every image, layer, cached step, cache and download
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// All of it as one JSON object, sizes in bytes
    #[arg(long, conflicts_with = "verbose")]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Remove tagged images, and the caches of RUN --mount, too
    #[arg(short, long)]
    pub(super) all: bool,
    /// Only what was not used for so long, or since then: until=24h, unused-for=7d,
    /// until=2026-01-31T12:00:00
    #[arg(long, value_name = "until=TIME", conflicts_with = "older_than")]
    pub(super) filter: Option<String>,
    /// Only what was not used for so long, such as 24h or 7d
    #[arg(long, value_name = "DURATION")]
    pub(super) older_than: Option<String>,
    /// Only so much, the least recently used first, that the store takes no more than this of the
    /// disk, such as 10GB
    #[arg(long, visible_aliases = ["max-storage", "max-used-space"], value_name = "SIZE")]
    pub(super) keep_storage: Option<String>,
    /// Remove nothing, say what would go
    #[arg(long)]
    pub(super) dry_run: bool,
    /// With --all on a terminal, do not ask first
    #[arg(short, long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    pub(super) command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Check all that the store holds: blobs, listings, unpacked layers, names of images, the index
    #[command(after_help = "\
Exit status: 0 nothing is damaged, or all damage was repaired; 1 something is damaged; 3 the check
failed, or --repair was given while another rbuild uses the store.")]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Remove what is damaged: it is made again from the layer's archive, by pulling, or by the next
    /// build. An index that cannot be read is rebuilt
    #[arg(long)]
    pub(super) repair: bool,
}

#[derive(Debug, Args)]
pub(super) struct SaveArgs {
    /// Names or ids; several images share layers in the archive
    #[arg(value_name = "IMAGE", required = true)]
    pub(super) images: Vec<String>,
    /// The archive; `-` is standard output, as is nothing
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// `docker` for `docker load`, which is an OCI layout as well; `oci` keeps several platforms
    #[arg(long, value_enum, default_value_t = SaveFormat::Docker, value_name = "docker|oci")]
    pub(super) format: SaveFormat,
    /// Of images for several platforms, this one
    #[arg(long, value_name = "OS/ARCH")]
    pub(super) platform: Option<String>,
    #[command(flatten)]
    pub(super) compression: CompressionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SaveFormat {
    /// What `docker save` writes
    #[value(alias = "docker-archive")]
    Docker,
    /// An OCI layout
    #[value(alias = "oci-archive")]
    Oci,
}

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// An archive that `docker save`, podman or skopeo wrote, or an OCI layout, packed in any way;
    /// or the directory of an OCI layout; `-` is standard input, as is nothing
    #[arg(short, long, value_name = "FILE|DIR")]
    pub(super) input: Option<PathBuf>,
    /// Only images for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub(super) platform: Option<String>,
    /// Do not say what was loaded
    #[arg(short, long)]
    pub(super) quiet: bool,
}
