//! `rbuild version`

use crate::cli::display::stdout::say;
use crate::cli::error::CliError;

pub(crate) fn run() -> Result<(), CliError> {
    say!("rbuild {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}
