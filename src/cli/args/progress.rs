//! The values of `--progress`.

use clap::ValueEnum;

/// The way in which progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// The live view on terminals, groups in logs of CI systems, plain lines elsewhere
    Auto,
    /// The live view, on terminals
    Tty,
    /// Lines of text, for logs
    Plain,
    /// One JSON object a line, for programs
    Json,
    /// BuildKit's `SolveStatus`, one JSON object a line
    #[value(name = "rawjson")]
    RawJson,
    /// Nothing but errors and results
    Quiet,
    /// Nothing but errors
    None,
}
