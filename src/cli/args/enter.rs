//! The arguments of `enter`.

use std::ffi::OsString;

use clap::Args;

use super::build::{BuildArgs, OnError};
use super::step_name::StepName;

const AFTER_HELP: &str = "\
Examples:
  rbuild enter debian:bookworm              open a shell in an image; pull it if necessary
  rbuild enter app -- ls -l /srv            run one command, and exit with its status
  rbuild enter --target test .              start at the end of the stage `test` of ./Dockerfile
  rbuild enter --step test:3 .              start before step `[test 3/7]` runs, with its mounts,
                                            variables, working directory and user
Changes are discarded.";

/// The arguments of `enter`: options of a build, where they have an effect.
#[derive(Debug, Args)]
#[command(
    after_help = "See `rbuild enter --help` for examples and details.",
    after_long_help = AFTER_HELP
)]
pub(crate) struct EnterArgs {
    /// Enter a step of a build before it runs
    ///
    /// Stage and number as in logs, or #N for step N of the last build of the context.
    #[arg(long, value_name = "[STAGE:]N|#N")]
    pub(crate) step: Option<String>,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    /// Command to run instead of a shell
    #[arg(index = 2, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Ids of options of a build that have no effect on `enter`.
const OF_BUILD: [&str; 29] = [
    "tag",
    "label",
    "cache_to",
    "explain",
    "dry_run",
    "on_error",
    "check",
    "call",
    "fix",
    "format",
    "max_size",
    "max_layer_size",
    "step_timeout",
    "timeout",
    "quiet",
    "iidfile",
    "metadata_file",
    "report",
    "output",
    "push",
    "load",
    "annotation",
    "kind",
    "level",
    "force",
    "reproducible",
    "locked",
    "no_cache",
    "no_cache_filter",
];

/// Hides the options that have no effect, and describes the context.
pub(crate) fn define(command: clap::Command) -> clap::Command {
    let command = command.mut_arg("context", |context| {
        let help = "Image, or context of a build";
        let long = "An image; or, with --step, --target or -f, the context of a build.";
        context.index(1).value_name("IMAGE|CONTEXT").help(help).long_help(long)
    });
    OF_BUILD.into_iter().fold(command, |command, name| command.mut_arg(name, |arg| arg.hide(true)))
}

impl EnterArgs {
    /// Returns whether a build is entered, not an image.
    pub(crate) fn is_build(&self) -> bool {
        let BuildArgs { file, target, .. } = &self.build;
        let context = self.build.shown_context();
        let is_path = context.starts_with(['.', '/']) || context.contains("://") || context == "-";
        self.step.is_some() || target.is_some() || file.is_some() || is_path
    }

    /// Returns an option that was given and has no effect.
    pub(crate) fn unused_option(&self) -> Option<&'static str> {
        let build = &self.build;
        let outputs = &build.outputs;
        let given = [
            (!build.tag.is_empty(), "--tag"),
            (!build.label.is_empty(), "--label"),
            (!build.cache_to.is_empty(), "--cache-to"),
            (build.explain, "--explain"),
            (build.dry_run, "--dry-run"),
            (build.on_error != OnError::Fail, "--on-error"),
            (build.inspection().is_some() || build.call.is_some(), "--check or --call"),
            (build.checks.given().is_some(), "--fix or --format"),
            (build.budget.max_size.is_some(), "--max-size"),
            (build.budget.max_layer_size.is_some(), "--max-layer-size"),
            (build.max_in_memory.is_some(), "--max-in-memory"),
            (build.patience.step_timeout.is_some(), "--step-timeout"),
            (build.patience.timeout.is_some(), "--timeout"),
            (build.quiet, "--quiet"),
            (build.iidfile.is_some(), "--iidfile"),
            (build.metadata_file.is_some(), "--metadata-file"),
            (build.report.is_some(), "--report"),
            (!outputs.output.is_empty(), "--output"),
            (outputs.push.is_some(), "--push"),
            (outputs.replace_index, "--replace-index"),
            (outputs.load.is_some(), "--load"),
            (!outputs.annotation.is_empty(), "--annotation"),
            (outputs.compression.is_given(), "--compression"),
            (build.reproducible, "--reproducible"),
            (build.lock.locked, "--locked"),
            (build.no_cache, "--no-cache"),
            (!build.no_cache_filter.is_empty(), "--no-cache-filter"),
        ];
        let of_context = [
            (!build.build_context.is_empty(), "--build-context"),
            (!build.build_arg.is_empty(), "--build-arg"),
            (!build.cache_from.is_empty(), "--cache-from"),
            (!build.secret.is_empty(), "--secret"),
            (!build.ssh.is_empty(), "--ssh"),
            (!build.allow.is_empty(), "--allow"),
            (build.lock.lockfile.is_some(), "--lockfile"),
            (build.jobs.is_some(), "--jobs"),
        ];
        let of_context = of_context.into_iter().filter(|_| !self.is_build());
        given.into_iter().chain(of_context).find(|(is_given, _)| *is_given).map(|(_, name)| name)
    }

    /// Returns the step that was given.
    pub(crate) fn step_name(&self) -> Result<Option<StepName>, String> {
        self.step.as_deref().map(StepName::read).transpose()
    }
}
