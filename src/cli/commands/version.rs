//! `rbuild version`: prints the version of rbuild.

use crate::cli::report::CliError;
use crate::cli::stdout::say;

pub(in crate::cli) fn run() -> Result<(), CliError> {
    say!("rbuild {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}
