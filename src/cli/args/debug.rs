//! Options of the debug log.

use std::path::PathBuf;

use clap::Args;

/// Switch and destination of the debug log.
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    /// Write what rbuild does to standard error: requests, cache lookups, mounts, git commands, times
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Write it to FILE instead; implies --debug
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) debug_log: Option<PathBuf>,
}
