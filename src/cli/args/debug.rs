//! The options `--debug` and `--debug-log`.

use std::path::PathBuf;

use clap::Args;

use super::heading::GLOBAL;

/// Options of the debug log.
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    /// Write a debug log to standard error
    ///
    /// Logs requests, cache lookups, mounts, git commands and times.
    #[arg(short = 'D', long, global = true, help_heading = GLOBAL)]
    pub(crate) debug: bool,
    /// Write the debug log to FILE
    ///
    /// Implies --debug.
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) debug_log: Option<PathBuf>,
}
