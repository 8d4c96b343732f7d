//! The options of `build`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::OnceLock;

use clap::{Args, ValueEnum};

use super::budget::{BudgetArgs, bytes};
use super::call::{Call, Format, Inspection};
use super::check::{CheckArgs, CheckedBases};
use super::digest_files::DigestFileArgs;
use super::docker::DockerArgs;
use super::heading::{CACHE, CHECKS, INPUTS, OUTPUT, REPRODUCIBLE, STEPS};
use super::lock::LockOptions;
use super::outputs::OutputArgs;
use super::patience::PatienceArgs;
use super::podman::{PodmanArgs, PullPolicy};
use super::progress::Progress;
use super::resources::ResourceArgs;
use super::run_trust::RunTrustArgs;
use super::squash::SquashArgs;
use crate::oci::Digest;

/// The options of `build`, which `lock`, `plan` and `enter` take, too.
///
/// The first paragraph of a doc comment is the line of `-h`; `--help` shows all of it.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Directory that COPY and ADD read from, a URL, or `-`
    ///
    /// The build context: a directory, an archive, the URL of an archive or of a git repository
    /// (URL.git#REF:DIRECTORY), s3://BUCKET/KEY, or `-` for an archive or a Dockerfile on standard input.
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: OsString,
    /// Dockerfile [default: CONTEXT/Dockerfile]
    ///
    /// Or CONTEXT/Containerfile, if there is no Dockerfile.
    ///
    /// The path is relative to the working directory, or to the context if that is a URL. `-` reads
    /// standard input.
    #[arg(short, long, value_name = "FILE", help_heading = INPUTS)]
    pub(crate) file: Option<PathBuf>,
    /// Directory of the context to use in place of its root
    ///
    /// Of a context that is an archive. A repository has URL.git#REF:DIRECTORY for it.
    #[arg(long, value_name = "DIR", help_heading = INPUTS)]
    pub(crate) context_subdir: Option<String>,
    /// Build this stage instead of the last one
    ///
    /// The stage is given by name or number.
    #[arg(long, value_name = "STAGE", help_heading = INPUTS)]
    pub(crate) target: Option<String>,
    /// Set a build argument (ARG)
    ///
    /// Without a value, the environment variable of that name is used. May be repeated.
    #[arg(long, value_name = "NAME[=VALUE]", help_heading = INPUTS)]
    pub(crate) build_arg: Vec<String>,
    /// Add a named context for FROM and --from
    ///
    /// One of NAME=DIRECTORY, NAME=docker-image://IMAGE, NAME=oci-layout://DIRECTORY and NAME=URL.
    /// May be repeated.
    #[arg(long, value_name = "NAME=CONTEXT", help_heading = INPUTS)]
    pub(crate) build_context: Vec<String>,
    /// Build for these platforms
    ///
    /// For instance linux/amd64,linux/arm64. Several platforms make one image index.
    #[arg(
        long,
        value_name = "OS/ARCH[,…]",
        value_delimiter = ',',
        help_heading = INPUTS
    )]
    pub(crate) platform: Vec<String>,
    /// Name the image
    ///
    /// May be repeated.
    #[arg(short, long, value_name = "NAME[:TAG]", help_heading = OUTPUT)]
    pub(crate) tag: Vec<String>,
    #[command(flatten)]
    pub(crate) outputs: OutputArgs,
    /// Add a label to the image
    ///
    /// May be repeated.
    #[arg(long, value_name = "NAME=VALUE", help_heading = OUTPUT)]
    pub(crate) label: Vec<String>,
    /// Write the image id to FILE
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write digests and names to FILE as JSON
    ///
    /// The members are those of docker's metadata file, such as `containerimage.digest`.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(crate) metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) digest_files: DigestFileArgs,
    #[command(flatten)]
    pub(crate) squash: SquashArgs,
    #[command(flatten)]
    pub(crate) budget: BudgetArgs,
    /// Maximum size of changes in memory
    ///
    /// Where the store is on an overlay, such as the file system of a container, RUN makes its changes in
    /// memory, and on the disk if they are larger; 0: always on the disk [default:
    /// $RBUILD_MAX_IN_MEMORY, or half of the memory that is available].
    #[arg(long, value_name = "SIZE", value_parser = bytes, help_heading = STEPS)]
    pub(crate) max_in_memory: Option<u64>,
    /// Import a build cache
    ///
    /// One of type=registry,ref=NAME, type=local,src=DIRECTORY and
    /// type=s3,region=REGION,bucket=NAME. Steps that are in the cache do not run. May be repeated.
    #[arg(long, value_name = "type=TYPE,…", help_heading = CACHE)]
    pub(crate) cache_from: Vec<String>,
    /// Export the build cache
    ///
    /// One of type=registry,ref=NAME, type=local,dest=DIRECTORY, type=s3,region=REGION,bucket=NAME
    /// and type=inline. mode=max exports all steps, not only those of the image;
    /// mounts=true for the directories of RUN --mount=type=cache, too. May be repeated.
    #[arg(long, value_name = "type=TYPE,…", help_heading = CACHE)]
    pub(crate) cache_to: Vec<String>,
    /// Rebuild every step
    #[arg(long, help_heading = CACHE)]
    pub(crate) no_cache: bool,
    /// Rebuild the steps of these stages
    ///
    /// Names as in `FROM … AS NAME`. Steps of other stages are cached.
    #[arg(long, value_name = "STAGE[,…]", value_delimiter = ',', help_heading = CACHE)]
    pub(crate) no_cache_filter: Vec<String>,
    /// Show why steps are not cached
    ///
    /// Names the file, the argument or the image that has changed.
    #[arg(long, help_heading = CACHE)]
    pub(crate) explain: bool,
    /// Look for newer base images in registries
    ///
    /// Asks registries for base images even if they are in the store. With =newer, the store's image is
    /// used if that fails; with =never, registries are not asked; =missing is the default.
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
        value_name = "POLICY",
        hide_possible_values = true,
        help_heading = CACHE
    )]
    pub(crate) pull: Option<PullPolicy>,
    /// Network of RUN steps
    ///
    /// `default` and `host` are the network of the machine; `none` has only a loopback interface;
    /// `private` is one of their own, through the program pasta, from which services of the machine at
    /// loopback addresses and its abstract sockets cannot be reached.
    ///
    /// [possible values: default, none, host, private]
    #[arg(
        long,
        value_enum,
        default_value_t = NetworkArg::Default,
        value_name = "default|none|host|private",
        hide_possible_values = true,
        help_heading = STEPS
    )]
    pub(crate) network: NetworkArg,
    /// Provide a secret for RUN --mount=type=secret
    ///
    /// id=ID,src=FILE reads a file, id=ID,env=NAME an environment variable. May be repeated.
    #[arg(long, value_name = "id=ID,…", help_heading = STEPS)]
    pub(crate) secret: Vec<String>,
    /// Provide an SSH agent or keys for RUN --mount=type=ssh
    ///
    /// default or ID uses the agent of $SSH_AUTH_SOCK, ID=SOCKET another agent, and ID=KEY,KEY,…
    /// files of private keys. May be repeated.
    #[arg(long, value_name = "ID[=PATH,…]", help_heading = STEPS)]
    pub(crate) ssh: Vec<String>,
    /// Grant a permission to the build
    ///
    /// network.host permits RUN --network=host, security.insecure permits RUN --security=insecure,
    /// local.special writes devices, set-id bits and file capabilities to -o type=local, and
    /// buildx.local.delete permits its mode=delete. May be repeated.
    #[arg(
        long,
        value_enum,
        value_name = "PERMISSION",
        hide_possible_values = true,
        help_heading = STEPS
    )]
    pub(crate) allow: Vec<Allow>,
    /// Add a host to /etc/hosts
    ///
    /// May be repeated.
    #[arg(long, value_name = "NAME:IP", help_heading = STEPS)]
    pub(crate) add_host: Vec<String>,
    /// Size of /dev/shm, such as 128m
    #[arg(long, value_name = "BYTES", help_heading = STEPS)]
    pub(crate) shm_size: Option<String>,
    /// Set a resource limit, such as nofile=1024:4096
    ///
    /// May be repeated.
    #[arg(long, value_name = "TYPE=SOFT[:HARD]", help_heading = STEPS)]
    pub(crate) ulimit: Vec<String>,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    #[command(flatten)]
    pub(crate) trust: RunTrustArgs,
    #[command(flatten)]
    pub(crate) patience: PatienceArgs,
    /// Leave the clock out of the image
    ///
    /// The same inputs give the same digest. Times come from SOURCE_DATE_EPOCH, or from the newest
    /// commit of the context.
    #[arg(long, help_heading = REPRODUCIBLE)]
    pub(crate) reproducible: bool,
    #[command(flatten)]
    pub(crate) lock: LockOptions,
    /// Check the Dockerfile instead of building
    ///
    /// The same as --call=check. Base images are looked up in the store only; --check=pull also asks
    /// registries.
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "store",
        value_name = "pull",
        hide_possible_values = true,
        help_heading = CHECKS
    )]
    pub(crate) check: Option<CheckedBases>,
    #[command(flatten)]
    pub(crate) checks: CheckArgs,
    /// Build, check, or list arguments or stages
    ///
    /// One of build, check, outline and targets. outline lists the arguments of the target, targets
    /// the stages. format=json and format=sarif are for programs.
    #[arg(long, alias = "print", value_name = "METHOD[,format=…]", help_heading = CHECKS)]
    pub(crate) call: Option<Call>,
    /// Show what would be built, and build nothing
    ///
    /// Shows which steps are cached, which would run, why, and for how long.
    #[arg(long, conflicts_with_all = ["check", "call"], help_heading = CHECKS)]
    pub(crate) dry_run: bool,
    /// When a RUN fails: exit, or open a shell
    ///
    /// `shell` opens a shell in the file system that the step left. It needs a terminal.
    #[arg(
        long,
        value_enum,
        default_value_t = OnError::Fail,
        value_name = "fail|shell",
        hide_possible_values = true,
        help_heading = CHECKS
    )]
    pub(crate) on_error: OnError,
    /// Progress: auto, tty, plain, json, rawjson, quiet, none
    ///
    /// tty is a live view, plain prints lines, json one object a line
    /// (docs/schemas/progress.schema.json), rawjson BuildKit's objects, quiet only errors and the image
    /// id, and none only errors. auto chooses what suits standard error [default: $BUILDKIT_PROGRESS, or auto].
    #[arg(
        long,
        value_enum,
        default_value_t = Progress::Auto,
        hide_default_value = true,
        value_name = "STYLE",
        hide_possible_values = true,
        help_heading = CHECKS
    )]
    pub(crate) progress: Progress,
    /// Print only the image id
    #[arg(short, long, help_heading = CHECKS)]
    pub(crate) quiet: bool,
    /// Write an HTML report to FILE
    ///
    /// A self-contained page with times, logs, layers and the reasons why steps ran. It is written
    /// even if the build fails.
    #[arg(long, value_name = "FILE", help_heading = CHECKS)]
    pub(crate) report: Option<PathBuf>,
    /// Maximum number of worker threads
    ///
    /// [default: one per processor]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = CHECKS)]
    pub(crate) jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(crate) podman: PodmanArgs,
    #[command(flatten)]
    pub(crate) docker: DockerArgs,
    #[arg(skip)]
    pub(crate) bake: BakeInputs,
}

/// Inputs of a build that only `bake` has.
#[derive(Debug, Clone, Default)]
pub(crate) struct BakeInputs {
    /// Text of the Dockerfile, in place of a file.
    pub(crate) dockerfile: Option<String>,
    /// Named contexts that are images of the store: those of other targets. Set once they are built.
    pub(crate) images: OnceLock<BTreeMap<String, Digest>>,
}

/// Reads a number of at least 1.
///
/// The error of [`NonZeroUsize`] is "number would be zero for non-zero type".
fn positive(text: &str) -> Result<NonZeroUsize, String> {
    let number: usize = text.parse().map_err(|error| format!("{error}"))?;
    NonZeroUsize::new(number).ok_or_else(|| "must be at least 1".to_owned())
}

impl BuildArgs {
    /// Returns the context for people and for records. Invalid UTF-8 is replaced.
    pub(crate) fn shown_context(&self) -> Cow<'_, str> {
        self.context.to_string_lossy()
    }

    /// Returns whether the context may have to be fetched.
    pub(crate) fn is_remote(&self) -> bool {
        let context = self.shown_context();
        context == "-"
            || context.contains("://")
            || context.contains('@')
            || std::path::Path::new(&self.context).is_file()
    }

    /// Returns whether `--check` may ask registries for base images.
    pub(crate) fn check_pulls(&self) -> bool {
        self.check == Some(CheckedBases::Pull)
    }

    /// Returns the check or listing that was requested instead of a build, and its format.
    pub(crate) fn inspection(&self) -> Option<(Inspection, Format)> {
        let call = self.call.unwrap_or(Call { what: None, format: Format::Text });
        let checked = self.check.map(|_bases| Inspection::Check);
        Some((checked.or(call.what)?, self.checks.report_format().unwrap_or(call.format)))
    }
}

/// Values of `--network`, as in docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkArg {
    /// The network of the machine
    Default,
    /// A loopback interface only
    None,
    /// The network of the machine
    Host,
    /// A network of their own, with a connection outward
    #[value(alias = "pasta")]
    Private,
}

/// Permissions of `--allow`, with the names of BuildKit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Allow {
    /// Permit `RUN --network=host` in the Dockerfile
    #[value(name = "network.host")]
    NetworkHost,
    /// Permit `RUN --security=insecure` in the Dockerfile
    #[value(name = "security.insecure")]
    SecurityInsecure,
    /// Devices, set-id bits and file capabilities in -o type=local
    #[value(name = "local.special")]
    LocalSpecial,
    /// Remove other files of the directory in -o type=local,mode=delete
    #[value(name = "buildx.local.delete")]
    LocalDelete,
}

/// Reactions to a failed RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// Exit without a shell
    Fail,
    /// Open a shell where the step failed, then exit
    Shell,
}
