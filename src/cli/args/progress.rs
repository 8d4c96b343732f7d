//! `--progress`.

use clap::ValueEnum;

/// `--progress`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// What fits where the output goes
    Auto,
    /// What runs and how far it is, on a terminal
    Tty,
    /// Lines, for logs
    Plain,
    /// One JSON object a line, for programs; `docs/schemas/progress.schema.json` describes them
    Json,
    /// Nothing
    Quiet,
}
