//! `--compression` and what goes with it.

use clap::Args;

/// How layers go out, where an --output does not say otherwise.
#[derive(Debug, Default, Args)]
pub(crate) struct CompressionArgs {
    /// Compress layers in this way when they go out [default: gzip]
    #[arg(long = "compression", value_name = "gzip|zstd|uncompressed")]
    pub(crate) kind: Option<String>,
    /// How hard: 0 to 9 for gzip [default: 4], 1 to 22 for zstd [default: 3]
    #[arg(long = "compression-level", value_name = "N")]
    pub(crate) level: Option<i32>,
    /// Compress the base image's layers in this way too
    #[arg(long = "force-compression")]
    pub(crate) force: bool,
}

impl CompressionArgs {
    /// Whether anything was said.
    pub(crate) const fn is_given(&self) -> bool {
        self.kind.is_some() || self.level.is_some() || self.force
    }
}
