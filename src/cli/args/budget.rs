//! `--max-size`, `--max-layer-size`, and sizes on the command line.

use clap::Args;

use crate::diag::parse_size;
use crate::executor::Budget;

use super::heading::OUTPUT;

/// Size limits of an image.
#[derive(Debug, Default, Args)]
pub(crate) struct BudgetArgs {
    /// Fail if the image is larger, such as 500MB
    ///
    /// Limits the sum of all layers, uncompressed, such as 500MB or 1.5GiB. Checked before the image
    /// is named, exported or pushed.
    #[arg(long, value_name = "SIZE", value_parser = bytes, help_heading = OUTPUT)]
    pub(crate) max_size: Option<u64>,
    /// Fail if a new layer is larger
    ///
    /// Limits each layer that the Dockerfile adds to its base image, uncompressed.
    #[arg(long, value_name = "SIZE", value_parser = bytes, help_heading = OUTPUT)]
    pub(crate) max_layer_size: Option<u64>,
}

impl BudgetArgs {
    /// Returns the limits for the executor.
    pub(crate) const fn budget(&self) -> Budget {
        Budget { image_bytes: self.max_size, layer_bytes: self.max_layer_size }
    }
}

/// Reads a size such as `500MB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "expected a size such as 500MB or 1.5GiB".to_owned())
}
