//! What helps at the prompt, as it is typed.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct CompletionArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(in crate::cli) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ManArgs {
    /// The directory, such as ~/.local/share/man/man1; it is made if it is not there
    #[arg(value_name = "DIR")]
    pub(in crate::cli) directory: PathBuf,
}
