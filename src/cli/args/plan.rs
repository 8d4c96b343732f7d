//! The arguments of `plan`.

use clap::Args;

use super::build::{BuildArgs, OnError};

/// The arguments of `plan`: those of the build that is planned.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// Ids of options of a build that have no effect on a plan.
const OF_BUILD: [&str; 9] =
    ["dry_run", "on_error", "check", "call", "fix", "format", "iidfile", "metadata_file", "report"];

/// Hides the options that have no effect.
pub(crate) fn define(command: clap::Command) -> clap::Command {
    OF_BUILD.into_iter().fold(command, |command, name| command.mut_arg(name, |arg| arg.hide(true)))
}

/// Returns an option that was given and has no effect on a plan.
pub(crate) fn unused_option(build: &BuildArgs) -> Option<&'static str> {
    if let Some(name) = build.digest_files.given() {
        return Some(name);
    }
    let given = [
        (build.report.is_some(), "--report"),
        (build.iidfile.is_some(), "--iidfile"),
        (build.metadata_file.is_some(), "--metadata-file"),
        (build.on_error != OnError::Fail, "--on-error"),
    ];
    given.into_iter().find(|(is_given, _)| *is_given).map(|(_, name)| name)
}
