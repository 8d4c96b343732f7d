//! The arguments of `tag`, `rmi`, `du`, `prune`, `store`, `save` and `load`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::compression::CompressionArgs;

/// The arguments of `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    pub(crate) source: String,
    /// Names to add to it
    #[arg(value_name = "NAME[:TAG]", required = true)]
    pub(crate) names: Vec<String>,
}

/// The arguments of `rmi`.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names to remove, or ids of images that have one name
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// Remove all names of an id, and ignore missing images
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// The arguments of `du`.
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// List each image, layer, cached step, cache, download
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print one JSON object, sizes in bytes
    #[arg(long, conflicts_with = "verbose")]
    pub(crate) json: bool,
}

/// The arguments of `prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Also remove tagged images and RUN cache mounts
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Also remove RUN cache mounts
    #[arg(long)]
    pub(crate) cache_mounts: bool,
    /// Remove only what was not used since TIME
    ///
    /// until=24h, unused-for=7d, or until=2026-01-31T12:00:00.
    #[arg(long, value_name = "until=TIME", conflicts_with = "older_than")]
    pub(crate) filter: Option<String>,
    /// Remove only what was unused for DURATION, such as 7d
    ///
    /// Such as 24h or 7d.
    #[arg(long, value_name = "DURATION")]
    pub(crate) older_than: Option<String>,
    /// Remove least recently used data down to SIZE
    ///
    /// Stops once the store uses at most this much of the disk, such as 10GB.
    #[arg(long, visible_aliases = ["max-storage", "max-used-space"], value_name = "SIZE")]
    pub(crate) keep_storage: Option<String>,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask for confirmation of --all
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// The arguments of `store`.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

/// The subcommands of `store`.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Check blobs, listings, unpacked layers, image names and the index
    #[command(after_help = "\
Exit status: 0 nothing is damaged, or all damage was repaired; 1 damage was found; 3 the check
failed, or --repair was given while another rbuild uses the store.")]
    Verify(VerifyArgs),
}

/// The arguments of `store verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Remove what is damaged, and rebuild the index
    ///
    /// Removed data is restored from the archive of the layer, by a pull, or by the next build. An
    /// unreadable index is rebuilt.
    #[arg(long)]
    pub(crate) repair: bool,
}

/// The arguments of `save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Names or ids of the images
    ///
    /// Images in one archive share layers.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// Archive [default: standard output]
    ///
    /// `-` is standard output, too.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Format: docker or oci
    ///
    /// `docker` is for `docker load`, and also an OCI layout. `oci` keeps several platforms.
    #[arg(long, value_enum, default_value_t = SaveFormat::Docker, value_name = "docker|oci", hide_possible_values = true)]
    pub(crate) format: SaveFormat,
    /// Save this platform of the images
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) compression: CompressionArgs,
}

/// Values of `save --format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SaveFormat {
    /// Archive of `docker save`
    #[value(alias = "docker-archive")]
    Docker,
    /// OCI layout as a tar archive
    #[value(alias = "oci-archive")]
    Oci,
}

/// The arguments of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive or OCI layout [default: standard input]
    ///
    /// An archive of `docker save`, podman or skopeo, or an OCI layout as an archive or a directory.
    /// Archives may be compressed. `-` is standard input, too.
    #[arg(short, long, value_name = "FILE|DIR")]
    pub(crate) input: Option<PathBuf>,
    /// Load only images for this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Do not print the names of loaded images
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
