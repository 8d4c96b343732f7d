//! `--max-size` and `--max-layer-size`.

use clap::Args;

use crate::diag::parse_size;
use crate::executor::Budget;

/// How much an image may grow to.
#[derive(Debug, Default, Args)]
pub(crate) struct BudgetArgs {
    /// Fail, before the image has a name or goes anywhere, if its layers have more bytes than this
    /// together, uncompressed, such as 500MB or 1.5GiB
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) max_size: Option<u64>,
    /// The same for each layer that the Dockerfile adds to its base
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) max_layer_size: Option<u64>,
}

impl BudgetArgs {
    pub(crate) const fn budget(&self) -> Budget {
        Budget { image_bytes: self.max_size, layer_bytes: self.max_layer_size }
    }
}

/// Reads a size.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "expected a size such as 500MB or 1.5GiB".to_owned())
}
