//! `rbuild version`

use crate::cli::report::Complaint;
use crate::cli::stdout::say;

pub(in crate::cli) fn run() -> Result<(), Complaint> {
    say!("rbuild {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}
