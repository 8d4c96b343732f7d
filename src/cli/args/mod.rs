//! What may be typed. No IO here: arguments are only told apart.

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
mod docker_commands;
pub(super) mod enter;
mod foreign_options;
pub(super) mod history;
pub(super) mod inspect;
pub(super) mod lock;
pub(super) mod outputs;
pub(super) mod plan;
pub(super) mod progress;
pub(super) mod prompt;
pub(super) mod registry;
pub(super) mod run_options;
mod short_help;
pub(super) mod step_name;
pub(super) mod store;
pub(super) mod suggestions;
pub(super) mod transfer;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use build::BuildArgs;
use debug::DebugArgs;
use default_command::with_default_command;
use enter::EnterArgs;
use history::{ExplainArgs, HistoryArgs};
use inspect::{DiffArgs, ImagesArgs, InspectArgs};
use lock::LockArgs;
use plan::PlanArgs;
use prompt::{CompletionArgs, ManArgs};
use registry::RegistryArgs;
use store::{DuArgs, LoadArgs, PruneArgs, RmiArgs, SaveArgs, StoreArgs, TagArgs};
use transfer::{LoginArgs, LogoutArgs, PullArgs, PushArgs};

const AFTER_HELP: &str = "\
Examples:
  rbuild -t app .                                   build ./Dockerfile into the local store
  rbuild -t registry.example/app:1 --push .         build and push
  rbuild -f docker/Dockerfile --target test .       another file, one stage
  rbuild -o type=oci,dest=app.tar .                 write an OCI archive
  rbuild -t app --load .                            build, and load into docker or podman
  rbuild -o rootfs .                                write the image's files into ./rootfs
  rbuild --check .                                  look for mistakes, build nothing
  rbuild --reproducible -t app .                    the same bytes every time

The word `build` may be left out. `rbuild COMMAND --help` says more.
Exit status: 0 done, 1 the build failed, 2 wrong usage, 3 the store, a registry, the disk or the
kernel failed, 130 interrupted.";

/// Turns a Dockerfile and a directory into an OCI image: no daemon, no root.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Where images, layers and the cache are kept
    /// [default: $RBUILD_ROOT, /var/lib/rbuild for root, ~/.local/share/rbuild for others]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Bytes that one layer or archive may unpack to, holes of sparse files included, such as 300GB
    /// [default: $RBUILD_MAX_UNPACKED_SIZE, 128GiB]; if given, an archive may also expand to any
    /// multiple of its packed size
    #[arg(long, global = true, value_name = "SIZE", value_parser = budget::bytes)]
    pub(super) max_unpacked_size: Option<u64>,
    #[command(flatten)]
    pub(super) registries: RegistryArgs,
    #[command(flatten)]
    pub(super) debug: DebugArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Build an image from a Dockerfile (the word `build` may be left out)
    #[command(after_help = AFTER_HELP)]
    Build(Box<BuildArgs>),
    /// Write down what the base images, downloads and git references of a Dockerfile are
    Lock(Box<LockArgs>),
    /// Show what a build would do: what is cached, what would run, why, and for how long
    Plan(Box<PlanArgs>),
    /// Open a shell in an image, or in a step of a build before it runs
    Enter(Box<EnterArgs>),
    /// Push an image of the local store to its registry
    Push(PushArgs),
    /// Pull an image into the local store
    Pull(PullArgs),
    /// Log in to a registry; the password is kept where docker keeps it
    Login(LoginArgs),
    /// Forget the login to a registry
    Logout(LogoutArgs),
    /// List the images of the local store
    Images(ImagesArgs),
    /// Show what an image is made of: config, layers, biggest files, wasted bytes
    Inspect(InspectArgs),
    /// Show what is different between two images: config, layers, files
    Diff(DiffArgs),
    /// List builds, show what happened in one; or how an image came to be, as docker does
    History(HistoryArgs),
    /// Say why steps of the last build were made anew and not found in the cache
    Explain(ExplainArgs),
    /// Give an image of the store further names
    Tag(TagArgs),
    /// Take names away from images of the store
    Rmi(RmiArgs),
    /// Write images of the store into one archive
    Save(SaveArgs),
    /// Read images from an archive or an OCI layout into the store
    Load(LoadArgs),
    /// Show what the store holds and how much of the disk it takes
    Du(DuArgs),
    /// Forget the build cache and remove what no tagged image needs
    Prune(PruneArgs),
    /// Check the store itself, and repair it
    Store(StoreArgs),
    /// Print what completes commands at a shell's prompt: `source <(rbuild completion bash)`
    Completion(CompletionArgs),
    /// Write the manual's pages into a directory
    Man(ManArgs),
    /// Print the version
    Version,
}

impl Command {
    /// Whether it may speak to a registry.
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
                | Self::Completion(_)
                | Self::Man(_)
                | Self::Version
        )
    }

    /// Whether it handles layers, and so needs to be root at least of a user namespace.
    pub(super) fn needs_privileges(&self) -> bool {
        match self {
            Self::Build(build) => {
                build.inspection().is_none() || build.is_remote() || build.check_pulls()
            }
            // To look into a layer that was never listed lists it.
            Self::Save(_)
            | Self::Load(_)
            | Self::Lock(_)
            | Self::Plan(_)
            | Self::Enter(_)
            | Self::Push(_)
            | Self::Pull(_)
            | Self::Prune(_)
            | Self::Store(_)
            | Self::Diff(_)
            | Self::Du(_) => true,
            Self::Inspect(inspect) => !inspect.remote,
            Self::History(history) => history.looks_into_layers(),
            Self::Images(_)
            | Self::Login(_)
            | Self::Logout(_)
            | Self::Explain(_)
            | Self::Tag(_)
            | Self::Rmi(_)
            | Self::Completion(_)
            | Self::Man(_)
            | Self::Version => false,
        }
    }
}

/// Reads what was typed, the program's name included.
pub(super) fn parse(typed: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let words = with_default_command(typed);
    if let Some(build) = build_alone(&words) {
        return Ok(build);
    }
    // Only who reads the help waits until it is arranged.
    let is_read = words.iter().any(|word| word == "-h" || word == "--help" || word == "help");
    let mut command = if is_read { command() } else { plain_command() };
    let mut matches = command
        .try_get_matches_from_mut(&words)
        .map_err(|error| suggestions::context(error, &words))?;
    Arguments::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// A build, read without the definitions of all other commands: those take longer than all that a
/// rebuild of a small project does besides. What is no good is read again with all of them.
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

/// The definitions of all that may be typed, with a short help for each option.
pub(super) fn command() -> clap::Command {
    short_help::arranged(plain_command())
}

fn plain_command() -> clap::Command {
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

    #[test]
    fn a_build_is_read_alone_as_among_all_commands() {
        for typed in [
            "rbuild build .",
            "rbuild --root a build -t b --build-arg C=d --platform linux/amd64,linux/arm64 -o e f",
            "rbuild build . --root a --ca b --registry c,http --max-unpacked-size 1TB",
            "rbuild --ca a build --push -q --cache-to type=inline --max-size 1GB -- -x",
            "rbuild build --load=podman --progress plain --report r.html --on-error=shell .",
        ] {
            let words: Vec<OsString> = typed.split(' ').map(OsString::from).collect();
            let matches = plain_command().try_get_matches_from(&words).unwrap();
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
