//! The command line, as clap reads it. No IO here.

pub(super) mod actions_options;
pub(super) mod bake;
pub(super) mod bake_target;
pub(super) mod bucket_options;
pub(super) mod budget;
pub(super) mod build;
pub(super) mod cache_options;
pub(super) mod call;
pub(super) mod check;
pub(super) mod compression;
pub(super) mod csv;
pub(super) mod debug;
pub(super) mod default_command;
pub(super) mod digest_files;
pub(super) mod docker;
mod docker_commands;
pub(super) mod docker_plugin;
pub(super) mod enter;
pub(super) mod executor;
mod foreign_options;
pub(super) mod go_booleans;
mod heading;
pub(super) mod history;
pub(super) mod imagetools;
pub(super) mod inspect;
pub(super) mod isolation;
pub(super) mod lock;
pub(super) mod outputs;
pub(super) mod patience;
pub(super) mod plan;
pub(super) mod podman;
pub(super) mod progress;
pub(super) mod prompt;
pub(super) mod rebase;
pub(super) mod registry;
pub(super) mod resources;
pub(super) mod run_options;
pub(super) mod run_trust;
mod squash;
pub(super) mod step_name;
pub(super) mod store;
pub(super) mod suggestions;
pub(super) mod transfer;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::oci::Reference;
use crate::sandbox::IsolationChoice;
use bake::BakeArgs;
use build::BuildArgs;
use debug::DebugArgs;
use default_command::with_default_command;
use docker_plugin::DockerPluginArgs;
use enter::EnterArgs;
use executor::ExecutorArgs;
use heading::GLOBAL;
use history::{ExplainArgs, HistoryArgs};
use imagetools::ImagetoolsArgs;
use inspect::{DiffArgs, ImagesArgs, InspectArgs};
use lock::LockArgs;
use plan::PlanArgs;
use prompt::{CompletionArgs, ManArgs};
use rebase::RebaseArgs;
use registry::RegistryArgs;
use store::{DuArgs, LoadArgs, PruneArgs, RmiArgs, SaveArgs, StoreArgs, TagArgs};
use transfer::{LoginArgs, LogoutArgs, PullArgs, PushArgs};

const BUILD_AFTER_HELP: &str = "See `rbuild build --help` for examples and details.";

const AFTER_HELP: &str = "\
Examples:
  rbuild -t app .                                   build ./Dockerfile into the local store
  rbuild -t registry.example/app:1 --push .         build and push
  rbuild -f docker/Dockerfile --target test .       another file, one stage
  rbuild -o type=oci,dest=app.tar .                 write an OCI archive
  rbuild -t app --load .                            build and load into docker or podman
  rbuild -o rootfs .                                write the files of the image to ./rootfs
  rbuild --check .                                  check the Dockerfile, build nothing
  rbuild --reproducible -t app .                    get the same digest every time

The word `build` may be left out. `rbuild COMMAND --help` has details.
Exit status: 0 success, 1 the build failed, 2 usage error, 3 the store, a registry, the disk or the
kernel failed, 130 interrupted.";

/// Build OCI images from Dockerfiles, without a daemon and without root
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The options of every command.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Directory of images, layers and cache
    ///
    /// [default: $RBUILD_ROOT, or /var/lib/rbuild for root, or ~/.local/share/rbuild]
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub(super) root: Option<PathBuf>,
    /// Maximum unpacked size of a layer or archive
    ///
    /// Such as 300GB, with the holes of sparse files [default: $RBUILD_MAX_UNPACKED_SIZE, or 128GiB].
    /// If given, the compression ratio of archives is not limited.
    #[arg(
        long,
        global = true,
        value_name = "SIZE",
        value_parser = budget::bytes,
        help_heading = GLOBAL
    )]
    pub(super) max_unpacked_size: Option<u64>,
    /// Isolation of RUN steps
    ///
    /// [default: $RBUILD_ISOLATION, or auto: the first of the others that this machine permits]. See
    /// `rbuild doctor` and `rbuild help security`.
    #[arg(
        long,
        global = true,
        value_name = "KIND",
        value_parser = isolation::choice(),
        help_heading = GLOBAL
    )]
    pub(super) isolation: Option<IsolationChoice>,
    #[command(flatten)]
    pub(super) registries: RegistryArgs,
    #[command(flatten)]
    pub(super) debug: DebugArgs,
}

/// The commands of rbuild.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Build an image from a Dockerfile (the word `build` may be left out)
    #[command(after_help = BUILD_AFTER_HELP, after_long_help = AFTER_HELP)]
    Build(Box<BuildArgs>),
    /// Build the targets of a definition file: bake (HCL, JSON) or compose
    Bake(Box<BakeArgs>),
    /// Pin the base images, downloads and git references of a Dockerfile
    Lock(Box<LockArgs>),
    /// Show what a build would do: which steps are cached, which would run, why, and for how long
    Plan(Box<PlanArgs>),
    /// Open a shell in an image, or before a step of a build
    Enter(Box<EnterArgs>),
    /// Push an image to its registry
    Push(PushArgs),
    /// Pull an image into the local store
    Pull(PullArgs),
    /// Log in to a registry (the password is stored where docker stores it)
    Login(LoginArgs),
    /// Log out from a registry
    Logout(LogoutArgs),
    /// List the images of the store
    Images(ImagesArgs),
    /// Show an image: config, layers, largest files, wasted bytes
    Inspect(InspectArgs),
    /// Join images of registries to an index, copy them, or show them
    Imagetools(ImagetoolsArgs),
    /// Compare two images: config, layers, files
    Diff(DiffArgs),
    /// List builds, show one of them, or show the history of an image
    History(HistoryArgs),
    /// Explain why steps of a build were not cached
    Explain(ExplainArgs),
    /// Add names to an image
    Tag(TagArgs),
    /// Put an image on a newer version of its base image, without a build
    Rebase(RebaseArgs),
    /// Remove names of images
    Rmi(RmiArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Load images from an archive or an OCI layout
    Load(LoadArgs),
    /// Show the disk usage of the store
    Du(DuArgs),
    /// Remove the build cache and data that no tagged image needs
    Prune(PruneArgs),
    /// Check and repair the store
    Store(StoreArgs),
    /// Check whether RUN works here, and show what is missing
    Doctor,
    /// Make docker's client run rbuild: `docker build`, `docker compose build`
    DockerPlugin(DockerPluginArgs),
    /// Build with the command line of kaniko's executor (see `rbuild help kaniko`)
    Executor(ExecutorArgs),
    /// Print a completion script for a shell: `source <(rbuild completion bash)`
    Completion(CompletionArgs),
    /// Write the manual pages to a directory
    Man(ManArgs),
    /// Print the version of rbuild
    Version,
}

impl Command {
    /// Returns the options of a build, of the commands that have them.
    pub(super) fn build_args(&mut self) -> Option<&mut BuildArgs> {
        if let Self::Build(build) = self {
            Some(build)
        } else if let Self::Lock(lock) = self {
            Some(&mut lock.build)
        } else if let Self::Plan(plan) = self {
            Some(&mut plan.build)
        } else if let Self::Enter(enter) = self {
            Some(&mut enter.build)
        } else {
            None
        }
    }

    /// Returns the registries of the images that the command line names.
    pub(super) fn named_registries(&mut self) -> Vec<String> {
        let names: Vec<String> = if let Self::Push(push) = self {
            vec![push.name.clone()]
        } else if let Self::Pull(pull) = self {
            vec![pull.name.clone()]
        } else if let Self::Inspect(inspect) = self {
            vec![inspect.image.clone()]
        } else {
            self.build_args().map(|build| build.tag.clone()).unwrap_or_default()
        };
        let names = names.iter().filter_map(|name| name.parse::<Reference>().ok());
        let mut registries: Vec<String> = names.map(|name| name.registry().to_owned()).collect();
        registries.sort();
        registries.dedup();
        registries
    }

    /// Returns whether the command may send requests to a registry.
    pub(super) const fn asks_registries(&self) -> bool {
        !matches!(
            self,
            Self::Logout(_)
                | Self::Images(_)
                | Self::History(_)
                | Self::Explain(_)
                | Self::Tag(_)
                | Self::Rmi(_)
                | Self::Load(_)
                | Self::Du(_)
                | Self::Prune(_)
                | Self::Store(_)
                | Self::Doctor
                | Self::DockerPlugin(_)
                | Self::Completion(_)
                | Self::Man(_)
                | Self::Version
        )
    }

    /// Returns whether it may run steps of RUN or other commands in an image.
    pub(super) fn runs_steps(&self) -> bool {
        if let Self::Build(build) = self {
            return build.inspection().is_none();
        }
        if let Self::Bake(bake) = self {
            return bake.builds();
        }
        matches!(self, Self::Enter(_))
    }

    /// Returns whether the command handles layers, and so needs root, at least of a user namespace
    /// (user_namespaces(7)).
    pub(super) fn needs_privileges(&self) -> bool {
        match self {
            Self::Build(build) => {
                build.inspection().is_none() || build.is_remote() || build.check_pulls()
            }
            // These list layers that were never listed before.
            Self::Save(_)
            | Self::Load(_)
            | Self::Lock(_)
            | Self::Plan(_)
            | Self::Enter(_)
            | Self::Push(_)
            | Self::Pull(_)
            | Self::Rebase(_)
            | Self::Prune(_)
            | Self::Store(_)
            | Self::Doctor
            | Self::Diff(_)
            | Self::Du(_) => true,
            Self::Bake(bake) => bake.builds() || bake.location().url.is_some(),
            Self::Inspect(inspect) => !inspect.remote,
            Self::History(history) => history.looks_into_layers(),
            Self::Images(_)
            | Self::Imagetools(_)
            | Self::Login(_)
            | Self::Logout(_)
            | Self::Executor(_)
            | Self::Explain(_)
            | Self::Tag(_)
            | Self::Rmi(_)
            | Self::DockerPlugin(_)
            | Self::Completion(_)
            | Self::Man(_)
            | Self::Version => false,
        }
    }
}

/// Parses the command line, which starts with the name of the program.
pub(super) fn parse(typed: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let words = go_booleans::without_values(with_default_command(typed));
    if let Some(build) = build_alone(&words) {
        return Ok(build);
    }
    let mut command = command();
    let mut matches = command
        .try_get_matches_from_mut(&words)
        .map_err(|error| suggestions::context(error, &words))?;
    Arguments::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Parses a `build` without the definitions of other commands, which would take longer than a cached
/// build of a small project. Invalid arguments are parsed again with all definitions.
fn build_alone(words: &[OsString]) -> Option<Arguments> {
    let build = BuildArgs::augment_args(clap::Command::new("build"));
    let matches = Global::augment_args(clap::Command::new("rbuild"))
        .subcommand(build)
        .try_get_matches_from(words)
        .ok()?;
    let (_, of_build) = matches.subcommand()?;
    let command = Command::Build(Box::new(BuildArgs::from_arg_matches(of_build).ok()?));
    Some(Arguments { global: Global::from_arg_matches(&matches).ok()?, command })
}

/// Returns the definitions of all commands.
pub(super) fn command() -> clap::Command {
    let here = |command: clap::Command| {
        command.mut_arg("context", |context| context.required(false).default_value("."))
    };
    Arguments::command()
        .mut_subcommand("lock", here)
        .mut_subcommand("plan", |command| plan::define(here(command)))
        .mut_subcommand("enter", enter::define)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_well_formed() {
        command().debug_assert();
    }

    /// Maximum length of a line of `-h` beside the longest option, in characters.
    const MAX_HELP_CHARS: usize = 54;

    #[test]
    fn short_help_of_every_option_fits_on_a_line() {
        let command = command();
        for command in command.get_subcommands().chain([&command]) {
            for arg in command.get_arguments() {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let name = command.get_name();
                assert!(help.chars().count() <= MAX_HELP_CHARS, "{name} {}: {help}", arg.get_id());
                assert!(!help.is_empty(), "{name} {} has no help", arg.get_id());
            }
        }
    }

    #[test]
    fn build_is_parsed_alone_as_among_all_commands() {
        for typed in [
            "rbuild build .",
            "rbuild --root a build -t b --build-arg C=d --platform linux/amd64,linux/arm64 -o e f",
            "rbuild build . --root a --ca b --registry c,http --max-unpacked-size 1TB",
            "rbuild --ca a build --push -q --cache-to type=inline --max-size 1GB -- -x",
            "rbuild build --load=podman --progress plain --report r.html --on-error=shell .",
        ] {
            let words: Vec<OsString> = typed.split(' ').map(OsString::from).collect();
            let matches = command().try_get_matches_from(&words).unwrap();
            let full = Arguments::from_arg_matches(&matches).unwrap();
            let alone = build_alone(&words).expect(typed);
            assert_eq!(format!("{alone:?}"), format!("{full:?}"));
        }
        for typed in ["rbuild images", "rbuild build", "rbuild build -h", "rbuild -V", "rbuild"] {
            let words: Vec<OsString> = typed.split(' ').map(OsString::from).collect();
            assert!(build_alone(&words).is_none(), "{typed}");
        }
    }
}
