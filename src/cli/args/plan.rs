//! What may be typed after `plan`. No IO here.

use clap::Args;

use super::build::{BuildArgs, OnError};

/// It takes the options of the build that it looks ahead to.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// One JSON object, for programs
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// Options of a build that are of no use where nothing is built, by their names in the definitions.
const OF_BUILD: [&str; 9] =
    ["dry_run", "on_error", "check", "call", "fix", "format", "iidfile", "metadata_file", "report"];

/// The options of a build as `plan` shows them.
pub(crate) fn define(command: clap::Command) -> clap::Command {
    OF_BUILD.into_iter().fold(command, |command, name| command.mut_arg(name, |arg| arg.hide(true)))
}

/// An option that was given, and has nothing to do or to tell where nothing is built.
pub(crate) fn useless(build: &BuildArgs) -> Option<&'static str> {
    let given = [
        (build.report.is_some(), "--report"),
        (build.iidfile.is_some(), "--iidfile"),
        (build.metadata_file.is_some(), "--metadata-file"),
        (build.on_error != OnError::Fail, "--on-error"),
    ];
    given.into_iter().find(|(is_given, _)| *is_given).map(|(_, name)| name)
}
