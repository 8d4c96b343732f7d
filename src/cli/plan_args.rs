//! What may be typed after `plan`. No IO here.

use clap::Args;

use super::args::BuildArgs;

/// It takes the options of the build that it looks ahead to.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// One JSON object, for programs
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) build: BuildArgs,
}
