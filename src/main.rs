//! The program: hands everything to [`rbuild::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    rbuild::cli::main().into()
}
