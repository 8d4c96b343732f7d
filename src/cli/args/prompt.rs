//! The arguments of `completion` and `man`.

use std::path::PathBuf;

use clap::Args;

/// The arguments of `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell to write the script for
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// The arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory, created if it does not exist
    ///
    /// For instance ~/.local/share/man/man1.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
