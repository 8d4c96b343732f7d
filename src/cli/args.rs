//! What may be typed. No IO here: arguments are only told apart.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use super::budget_args::{self, BudgetArgs};
use super::call::{Call, Format, Inspection};
use super::check_args::{CheckArgs, CheckedBases};
use super::default_command::with_default_command;
use super::enter_args::{self, EnterArgs};
use super::history_args::{ExplainArgs, HistoryArgs};
use super::inspect_args::{DiffArgs, ImagesArgs, InspectArgs};
use super::lockfile::{LockArgs, LockOptions};
use super::outputs::OutputArgs;
use super::plan_args::{self, PlanArgs};
use super::progress::Progress;
use super::prompt_args::{CompletionArgs, ManArgs};
use super::registry_args::RegistryArgs;
use super::shell::OnError;
use super::short_help;
use super::store_args::{DuArgs, LoadArgs, PruneArgs, RmiArgs, SaveArgs, StoreArgs, TagArgs};
use super::suggestions;
use super::transfer_args::{LoginArgs, LogoutArgs, PullArgs, PushArgs};

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
    #[arg(long, global = true, value_name = "SIZE", value_parser = budget_args::bytes)]
    pub(super) max_unpacked_size: Option<u64>,
    #[command(flatten)]
    pub(super) registries: RegistryArgs,
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

#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// The directory that COPY and ADD take files from; or the URL of an archive or of a git
    /// repository (URL.git#REF:DIRECTORY); or `-` for an archive or a Dockerfile on standard input
    #[arg(value_name = "CONTEXT")]
    pub(super) context: OsString,
    /// Give the image this name; may be repeated
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(super) tag: Vec<String>,
    /// The Dockerfile, inside the context if that is a URL; `-` reads it from standard input
    /// [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Build this stage, by name or number, instead of the last one
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// More files or images, for FROM and --from: NAME=DIRECTORY, NAME=docker-image://IMAGE,
    /// NAME=oci-layout://DIRECTORY, NAME=URL; may be repeated
    #[arg(long, value_name = "NAME=CONTEXT")]
    pub(super) build_context: Vec<String>,
    /// Set an ARG; without a value it is taken from the environment; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// Add a label to the image; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Build for these platforms, such as linux/amd64,linux/arm64; several make one index
    #[arg(long, value_name = "OS/ARCH[,…]", value_delimiter = ',')]
    pub(super) platform: Vec<String>,
    /// Find steps that were made elsewhere: type=registry,ref=NAME, type=local,src=DIRECTORY or
    /// type=s3,region=REGION,bucket=NAME; may be repeated
    #[arg(long, value_name = "type=TYPE,…")]
    pub(super) cache_from: Vec<String>,
    /// Let others find the steps of this build: type=registry,ref=NAME, type=local,dest=DIRECTORY,
    /// type=s3,region=REGION,bucket=NAME or type=inline; mode=max for all of them, not only the
    /// image's own; mounts=true for the directories of RUN --mount=type=cache, too; may be repeated
    #[arg(long, value_name = "type=TYPE,…")]
    pub(super) cache_to: Vec<String>,
    /// Rebuild every step
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Say of each step that was not found in the cache why: which file, argument, image is another
    #[arg(long)]
    pub(super) explain: bool,
    /// Build nothing, show what would be built: what is cached, what would run, why, for how long
    #[arg(long, conflicts_with_all = ["check", "call"])]
    pub(super) dry_run: bool,
    /// Ask registries for base images even if they are in the store
    #[arg(long)]
    pub(super) pull: bool,
    /// The network of RUN steps
    #[arg(long, value_enum, default_value_t = NetworkArg::Default, value_name = "NETWORK")]
    pub(super) network: NetworkArg,
    /// Give RUN --mount=type=secret a value: id=ID,src=FILE or id=ID,env=NAME; may be repeated
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub(super) secret: Vec<String>,
    /// Give RUN --mount=type=ssh an agent, $SSH_AUTH_SOCK when no path is given; may be repeated
    #[arg(long, value_name = "default|ID[=SOCKET|KEY[,KEY]]")]
    pub(super) ssh: Vec<String>,
    /// Permit what a Dockerfile cannot do by itself; may be repeated
    #[arg(long, value_enum, value_name = "network.host|security.insecure|local.special")]
    pub(super) allow: Vec<Allow>,
    /// Add a line to /etc/hosts of RUN steps; may be repeated
    #[arg(long, value_name = "NAME:IP")]
    pub(super) add_host: Vec<String>,
    /// The size of /dev/shm in RUN steps, such as 128m
    #[arg(long, value_name = "BYTES")]
    pub(super) shm_size: Option<String>,
    /// Set a limit of RUN steps, such as nofile=1024:4096; may be repeated
    #[arg(long, value_name = "TYPE=SOFT[:HARD]")]
    pub(super) ulimit: Vec<String>,
    /// What to do when a RUN fails: end, or open a shell first in what it left, on a terminal
    #[arg(long, value_enum, default_value_t = OnError::Fail, value_name = "fail|shell")]
    pub(super) on_error: OnError,
    /// Look for mistakes in the Dockerfile instead of building: the same as --call=check; base images
    /// are looked up in the store only, or with pull also in registries
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "store",
        value_name = "pull"
    )]
    pub(super) check: Option<CheckedBases>,
    /// What to do: build, check, or show what the Dockerfile offers
    #[arg(long, value_name = "build|check|outline|targets[,format=json|sarif]")]
    pub(super) call: Option<Call>,
    #[command(flatten)]
    pub(super) checks: CheckArgs,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = Progress::Auto, value_name = "STYLE")]
    pub(super) progress: Progress,
    /// Print the image's id and nothing else
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Write the image's id into FILE
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write what docker's metadata file says of the image, digests and names, into FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Write one HTML page about the build into FILE, also when it fails: times, logs, layers,
    /// why steps were made; it needs nothing else to be read
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    #[command(flatten)]
    pub(super) budget: BudgetArgs,
    #[command(flatten)]
    pub(super) outputs: OutputArgs,
    #[command(flatten)]
    pub(super) lock: LockOptions,
    /// Take the clock out of the image: equal steps give equal digests
    #[arg(long)]
    pub(super) reproducible: bool,
    /// How many threads may work at once [default: one a processor]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<NonZeroUsize>,
}

impl BuildArgs {
    /// Whether the context may have to be fetched.
    fn is_remote(&self) -> bool {
        let context = self.shown_context();
        context == "-" || context.contains("://") || context.contains('@')
    }

    /// Image lookup of `--check`: `pull` may ask registries.
    pub(super) fn check_pulls(&self) -> bool {
        self.check == Some(CheckedBases::Pull)
    }

    /// What is asked for in place of a build.
    pub(super) fn inspection(&self) -> Option<(Inspection, Format)> {
        let call = self.call.unwrap_or(Call { what: None, format: Format::Text });
        let checked = self.check.map(|_bases| Inspection::Check);
        Some((checked.or(call.what)?, self.checks.format.unwrap_or(call.format)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum NetworkArg {
    /// That of the machine
    Default,
    /// Only loopback
    None,
    /// That of the machine
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Allow {
    /// `RUN --network=host`
    #[value(name = "network.host")]
    NetworkHost,
    /// `RUN --security=insecure`
    #[value(name = "security.insecure")]
    SecurityInsecure,
    /// Devices, set-id bits and file capabilities in -o type=local
    #[value(name = "local.special")]
    LocalSpecial,
}

/// How layers go out, where an --output does not say otherwise.
#[derive(Debug, Default, Args)]
pub(super) struct CompressionArgs {
    /// Compress layers in this way when they go out [default: gzip]
    #[arg(long = "compression", value_name = "gzip|zstd|uncompressed")]
    pub(super) kind: Option<String>,
    /// How hard: 0 to 9 for gzip [default: 4], 1 to 22 for zstd [default: 3]
    #[arg(long = "compression-level", value_name = "N")]
    pub(super) level: Option<i32>,
    /// Compress the base image's layers in this way too
    #[arg(long = "force-compression")]
    pub(super) force: bool,
}

impl CompressionArgs {
    /// Whether anything was said.
    pub(super) const fn is_given(&self) -> bool {
        self.kind.is_some() || self.level.is_some() || self.force
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
        .mut_subcommand("plan", |command| plan_args::define(here(command)))
        .mut_subcommand("enter", enter_args::define)
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
