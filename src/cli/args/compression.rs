//! `--compression`, `--compression-level` and `--force-compression`.

use clap::Args;

use super::heading::OUTPUT;

/// Compression of layers where `--output` does not set it.
#[derive(Debug, Default, Args)]
pub(crate) struct CompressionArgs {
    /// Layer compression: gzip, zstd or uncompressed
    ///
    /// Applies to layers that are exported or pushed [default: gzip].
    #[arg(long = "compression", value_name = "KIND", help_heading = OUTPUT)]
    pub(crate) kind: Option<String>,
    /// Compression level, 0 to 9 (gzip) or 1 to 22 (zstd)
    ///
    /// [default: 4 for gzip, 3 for zstd]
    #[arg(long = "compression-level", value_name = "N", help_heading = OUTPUT)]
    pub(crate) level: Option<i32>,
    /// Recompress the layers of the base image, too
    #[arg(long = "force-compression", help_heading = OUTPUT)]
    pub(crate) force: bool,
}

impl CompressionArgs {
    /// Returns whether any of the options was given.
    pub(crate) const fn is_given(&self) -> bool {
        self.kind.is_some() || self.level.is_some() || self.force
    }
}
