//! What may be typed after `enter`. No IO here.

use std::ffi::OsString;

use clap::Args;

use super::build::{BuildArgs, OnError};
use super::step_name::StepName;

const AFTER_HELP: &str = "\
Examples:
  rbuild enter debian:bookworm              a shell in an image of the store, or else of its registry
  rbuild enter app -- ls -l /srv            one command; its exit status is passed on
  rbuild enter --target test .              where the stage `test` of ./Dockerfile ends
  rbuild enter --step test:3 .              where `[test 3/7]` of a build's log begins: in its mounts,
                                            variables, directory and rights, before its command runs
Whatever is changed there is thrown away.";

/// It takes the options of a build, where they mean something.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct EnterArgs {
    /// Enter a step of a build before it runs: by stage and number as logs show it, or #N for that of
    /// the last build of the context
    #[arg(long, value_name = "[STAGE:]N|#N")]
    pub(crate) step: Option<String>,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    /// What to run in place of a shell
    #[arg(index = 2, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Options of a build that `enter` has no use for, by their names in the definitions.
const OF_BUILD: [&str; 26] = [
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
];

/// The options of a build as `enter` shows them.
pub(crate) fn define(command: clap::Command) -> clap::Command {
    let command = command.mut_arg("context", |context| {
        let help = "An image, or with --step, --target or -f the context of a build";
        context.index(1).value_name("IMAGE|CONTEXT").help(help).long_help(help)
    });
    OF_BUILD.into_iter().fold(command, |command, name| command.mut_arg(name, |arg| arg.hide(true)))
}

impl EnterArgs {
    /// Whether what is entered is made by a build.
    pub(crate) fn is_build(&self) -> bool {
        let BuildArgs { file, target, .. } = &self.build;
        let context = self.build.shown_context();
        let is_path = context.starts_with(['.', '/']) || context.contains("://") || context == "-";
        self.step.is_some() || target.is_some() || file.is_some() || is_path
    }

    /// An option that was given and means nothing here.
    pub(crate) fn useless(&self) -> Option<&'static str> {
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
            (build.quiet, "--quiet"),
            (build.iidfile.is_some(), "--iidfile"),
            (build.metadata_file.is_some(), "--metadata-file"),
            (build.report.is_some(), "--report"),
            (!outputs.output.is_empty(), "--output"),
            (outputs.push, "--push"),
            (outputs.replace_index, "--replace-index"),
            (outputs.load.is_some(), "--load"),
            (!outputs.annotation.is_empty(), "--annotation"),
            (outputs.compression.is_given(), "--compression"),
            (build.reproducible, "--reproducible"),
            (build.lock.locked, "--locked"),
            (build.no_cache, "--no-cache"),
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

    /// The step.
    pub(crate) fn step_name(&self) -> Result<Option<StepName>, String> {
        self.step.as_deref().map(StepName::read).transpose()
    }
}
