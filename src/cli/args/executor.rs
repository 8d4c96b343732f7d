//! The command `executor`, whose arguments are those of kaniko.

use clap::Args;

/// The arguments of `executor`. They are translated before anything is parsed; these are for the help and
/// for completion.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ExecutorArgs {
    /// Flags of kaniko's executor, such as --destination
    #[arg(value_name = "FLAGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) flags: Vec<String>,
}
