//! The options of a build.

use std::borrow::Cow;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::budget::BudgetArgs;
use super::call::{Call, Format, Inspection};
use super::check::{CheckArgs, CheckedBases};
use super::lock::LockOptions;
use super::outputs::OutputArgs;
use super::progress::Progress;

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The directory that COPY and ADD take files from; or the URL of an archive or of a git
    /// repository (URL.git#REF:DIRECTORY); or `-` for an archive or a Dockerfile on standard input
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: OsString,
    /// Give the image this name; may be repeated
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// The Dockerfile, inside the context if that is a URL; `-` reads it from standard input
    /// [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Build this stage, by name or number, instead of the last one
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// More files or images, for FROM and --from: NAME=DIRECTORY, NAME=docker-image://IMAGE,
    /// NAME=oci-layout://DIRECTORY, NAME=URL; may be repeated
    #[arg(long, value_name = "NAME=CONTEXT")]
    pub(crate) build_context: Vec<String>,
    /// Set an ARG; without a value it is taken from the environment; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Add a label to the image; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// Build for these platforms, such as linux/amd64,linux/arm64; several make one index
    #[arg(long, value_name = "OS/ARCH[,…]", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Find steps that were made elsewhere: type=registry,ref=NAME, type=local,src=DIRECTORY or
    /// type=s3,region=REGION,bucket=NAME; may be repeated
    #[arg(long, value_name = "type=TYPE,…")]
    pub(crate) cache_from: Vec<String>,
    /// Let others find the steps of this build: type=registry,ref=NAME, type=local,dest=DIRECTORY,
    /// type=s3,region=REGION,bucket=NAME or type=inline; mode=max for all of them, not only the
    /// image's own; mounts=true for the directories of RUN --mount=type=cache, too; may be repeated
    #[arg(long, value_name = "type=TYPE,…")]
    pub(crate) cache_to: Vec<String>,
    /// Rebuild every step
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Say of each step that was not found in the cache why: which file, argument, image is another
    #[arg(long)]
    pub(crate) explain: bool,
    /// Build nothing, show what would be built: what is cached, what would run, why, for how long
    #[arg(long, conflicts_with_all = ["check", "call"])]
    pub(crate) dry_run: bool,
    /// Ask registries for base images even if they are in the store
    #[arg(long)]
    pub(crate) pull: bool,
    /// The network of RUN steps
    #[arg(long, value_enum, default_value_t = NetworkArg::Default, value_name = "NETWORK")]
    pub(crate) network: NetworkArg,
    /// Give RUN --mount=type=secret a value: id=ID,src=FILE or id=ID,env=NAME; may be repeated
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub(crate) secret: Vec<String>,
    /// Give RUN --mount=type=ssh an agent, $SSH_AUTH_SOCK when no path is given; may be repeated
    #[arg(long, value_name = "default|ID[=SOCKET|KEY[,KEY]]")]
    pub(crate) ssh: Vec<String>,
    /// Permit what a Dockerfile cannot do by itself; may be repeated
    #[arg(long, value_enum, value_name = "network.host|security.insecure|local.special")]
    pub(crate) allow: Vec<Allow>,
    /// Add a line to /etc/hosts of RUN steps; may be repeated
    #[arg(long, value_name = "NAME:IP")]
    pub(crate) add_host: Vec<String>,
    /// The size of /dev/shm in RUN steps, such as 128m
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// Set a limit of RUN steps, such as nofile=1024:4096; may be repeated
    #[arg(long, value_name = "TYPE=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// What to do when a RUN fails: end, or open a shell first in what it left, on a terminal
    #[arg(long, value_enum, default_value_t = OnError::Fail, value_name = "fail|shell")]
    pub(crate) on_error: OnError,
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
    pub(crate) check: Option<CheckedBases>,
    /// What to do: build, check, or show what the Dockerfile offers
    #[arg(long, value_name = "build|check|outline|targets[,format=json|sarif]")]
    pub(crate) call: Option<Call>,
    #[command(flatten)]
    pub(crate) checks: CheckArgs,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = Progress::Auto, value_name = "STYLE")]
    pub(crate) progress: Progress,
    /// Print the image's id and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the image's id into FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what docker's metadata file says of the image, digests and names, into FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Write one HTML page about the build into FILE, also when it fails: times, logs, layers,
    /// why steps were made; it needs nothing else to be read
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) budget: BudgetArgs,
    #[command(flatten)]
    pub(crate) outputs: OutputArgs,
    #[command(flatten)]
    pub(crate) lock: LockOptions,
    /// Take the clock out of the image: equal steps give equal digests
    #[arg(long)]
    pub(crate) reproducible: bool,
    /// How many threads may work at once [default: one a processor]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
}

impl BuildArgs {
    /// The context for people and for records: what is not UTF-8 in it is replaced.
    pub(crate) fn shown_context(&self) -> Cow<'_, str> {
        self.context.to_string_lossy()
    }

    /// Whether the context may have to be fetched.
    pub(crate) fn is_remote(&self) -> bool {
        let context = self.shown_context();
        context == "-" || context.contains("://") || context.contains('@')
    }

    /// Image lookup of `--check`: `pull` may ask registries.
    pub(crate) fn check_pulls(&self) -> bool {
        self.check == Some(CheckedBases::Pull)
    }

    /// What is asked for in place of a build.
    pub(crate) fn inspection(&self) -> Option<(Inspection, Format)> {
        let call = self.call.unwrap_or(Call { what: None, format: Format::Text });
        let checked = self.check.map(|_bases| Inspection::Check);
        Some((checked.or(call.what)?, self.checks.format.unwrap_or(call.format)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkArg {
    /// That of the machine
    Default,
    /// Only loopback
    None,
    /// That of the machine
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Allow {
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

/// `--on-error`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// The build ends
    Fail,
    /// A shell is opened where the step failed; the build ends when it is left
    Shell,
}
