//! `rbuild version`
#![expect(clippy::print_stdout, reason = "that is what was asked for")]

use crate::cli::report::Complaint;

pub(in crate::cli) fn run() -> Result<(), Complaint> {
    println!("rbuild {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}
