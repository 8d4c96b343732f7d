//! The program: calls [`rbuild::cli`] and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    rbuild::cli::main().into()
}
