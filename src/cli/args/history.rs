//! The arguments of `history` and `explain`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The arguments of `history`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct HistoryArgs {
    #[command(subcommand)]
    pub(crate) builds: Option<HistoryCommand>,
    #[command(flatten)]
    pub(crate) of_image: ImageHistoryArgs,
}

impl HistoryArgs {
    /// Returns whether layers may have to be listed.
    pub(crate) const fn looks_into_layers(&self) -> bool {
        match &self.builds {
            None => self.of_image.image.is_some(),
            Some(HistoryCommand::Show(show)) => show.report.is_some(),
            Some(HistoryCommand::Ls(_) | HistoryCommand::Logs(_) | HistoryCommand::Rm(_)) => false,
        }
    }
}

/// The arguments of `history IMAGE`, as docker has them.
#[derive(Debug, Args)]
pub(crate) struct ImageHistoryArgs {
    /// Image to show the history of
    ///
    /// A name or an id. Without an image, builds are listed.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Show this platform of the image
    ///
    /// [default: that of the machine]
    #[arg(long, value_name = "OS/ARCH", requires = "image")]
    pub(crate) platform: Option<String>,
    /// Do not shorten ids and instructions
    #[arg(long, requires = "image")]
    pub(crate) no_trunc: bool,
    /// Print one JSON object a line
    ///
    /// For an image, members have docker's names.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the ids
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

/// The subcommands of `history`.
#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// List builds, latest first
    Ls(ListArgs),
    /// Show a build: its steps, their times, why they ran, and errors
    Show(ShowArgs),
    /// Print the output of the steps of a build
    Logs(LogsArgs),
    /// Remove builds from the history (images and cache are kept)
    Rm(RmArgs),
}

/// The arguments of `history ls`.
#[derive(Debug, Default, Args)]
pub(crate) struct ListArgs {
    /// List at most N builds
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the ids
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

/// A build of the history.
#[derive(Debug, Args)]
pub(crate) struct BuildSelector {
    /// Build [default: the last one]
    ///
    /// An id or its beginning, or ^N for the Nth build before the last.
    #[arg(value_name = "BUILD")]
    pub(crate) build: Option<String>,
}

/// The arguments of `history show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) which: BuildSelector,
    /// Print the events of --progress=json
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the HTML report to FILE
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub(crate) report: Option<PathBuf>,
}

/// The arguments of `history logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) which: BuildSelector,
    /// Print only the output of this step, unchanged
    ///
    /// Stage and number as in logs, or #N.
    #[arg(long, value_name = "STAGE:N|#N")]
    pub(crate) step: Option<String>,
}

/// The arguments of `history rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Builds to remove, by id
    #[arg(value_name = "BUILD", required_unless_present = "all")]
    pub(crate) builds: Vec<String>,
    /// Remove all builds that have ended
    #[arg(long, conflicts_with = "builds")]
    pub(crate) all: bool,
}

/// The arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) which: BuildSelector,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Explain only this step
    ///
    /// Stage and number as in logs, or #N.
    #[arg(long, value_name = "STAGE:N|#N")]
    pub(crate) step: Option<String>,
}
