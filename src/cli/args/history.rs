//! What may be typed after `history` and `explain`. No IO here.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct HistoryArgs {
    #[command(subcommand)]
    pub(crate) builds: Option<HistoryCommand>,
    #[command(flatten)]
    pub(crate) of_image: ImageHistoryArgs,
}

impl HistoryArgs {
    /// Whether layers may have to be listed.
    pub(crate) const fn looks_into_layers(&self) -> bool {
        match &self.builds {
            None => self.of_image.image.is_some(),
            Some(HistoryCommand::Show(show)) => show.report.is_some(),
            Some(HistoryCommand::Ls(_) | HistoryCommand::Logs(_) | HistoryCommand::Rm(_)) => false,
        }
    }
}

/// How an image came to be, as docker has it.
#[derive(Debug, Args)]
pub(crate) struct ImageHistoryArgs {
    /// An image, by name or id, to show how it came to be; without one, builds are listed
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Of an image for several platforms, this one [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", requires = "image")]
    pub(crate) platform: Option<String>,
    /// Do not shorten what is long
    #[arg(long, requires = "image")]
    pub(crate) no_trunc: bool,
    /// One JSON object a line; of an image with docker's names
    #[arg(long)]
    pub(crate) json: bool,
    /// Print ids only
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// List the builds of this store, the latest first
    Ls(ListArgs),
    /// Show a build: its steps, what they took, why they were made, what went wrong
    Show(ShowArgs),
    /// Print what the steps of a build printed
    Logs(LogsArgs),
    /// Forget builds; images and the cache stay
    Rm(RmArgs),
}

#[derive(Debug, Default, Args)]
pub(crate) struct ListArgs {
    /// No more than these
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Print ids only
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

/// A build of the history.
#[derive(Debug, Args)]
pub(crate) struct WhichBuild {
    /// The build: its id or how that begins, or ^1 for the one before the last, ^2 for the one before
    /// that [default: the last]
    #[arg(value_name = "BUILD")]
    pub(crate) build: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) which: WhichBuild,
    /// Its events, as --progress=json has them
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the page that --report of a build writes into FILE
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) which: WhichBuild,
    /// Only what this step printed, as it printed it: by stage and number as logs show it, or #N
    #[arg(long, value_name = "STAGE:N|#N")]
    pub(crate) step: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The builds
    #[arg(value_name = "BUILD", required_unless_present = "all")]
    pub(crate) builds: Vec<String>,
    /// All that have ended
    #[arg(long, conflicts_with = "builds")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) which: WhichBuild,
    /// One JSON object: the build, and the steps that were not found
    #[arg(long)]
    pub(crate) json: bool,
    /// Only this step: by stage and number as logs show it, or #N
    #[arg(long, value_name = "STAGE:N|#N")]
    pub(crate) step: Option<String>,
}
