//! The plan as data: stages, steps and operations.

use std::path::PathBuf;
use std::time::Duration;

use crate::diag::{Diagnostic, Span};
use crate::dockerfile::ir;
use crate::oci::{Digest, ImageConfig, Platform};

use super::{ImageRequest, Remote};

/// A build, planned to the last operation.
#[derive(Debug)]
pub struct Plan {
    /// Stages that the targets need, each after those that it needs itself. Equal stages of several
    /// platforms are merged.
    pub stages: Vec<PlannedStage>,
    /// Images to build: one for each platform of the request, in its order.
    pub targets: Vec<Target>,
    /// Warnings of the build checks that need images.
    pub warnings: Vec<Diagnostic>,
}

/// An image to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Number of its stage in the plan. Images for several platforms can share a stage.
    pub stage: usize,
    /// Platform that its config and the index name.
    pub platform: Platform,
}

/// A stage after expansion of all variables.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStage {
    /// Name for logs: its own or `stage-N`, after the platform if there are several.
    pub name: String,
    /// The files and config that it starts from.
    pub base: Base,
    /// Span of its FROM.
    pub span: Span,
    /// True if its steps are executed even if their results are known.
    pub is_uncached: bool,
    /// Steps in order, one for each instruction.
    pub steps: Vec<Step>,
    /// The config after the last step; `rootfs`, `history` and `created` are still the base
    /// image's.
    pub config: ImageConfig,
}

/// The base of a planned stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// An empty root file system.
    Scratch,
    /// An earlier stage of the plan, by number.
    Stage(usize),
    /// An image of a registry, of the store or of a layout.
    Image(ImageRequest),
}

/// An instruction after expansion of its variables.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Span of the instruction, or of the FROM whose image has it as a trigger.
    pub span: Span,
    /// The instruction in one line, without credentials.
    pub text: String,
    /// Operation on files; `None` for an instruction that only changes the config.
    pub operation: Option<Operation>,
    /// Entry in the image's history; `None` for ONBUILD.
    pub history: Option<HistoryLine>,
}

/// A history entry without its time (image-spec, config.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// Text of `created_by`, in BuildKit's format.
    pub created_by: String,
    /// True if the step has no layer.
    pub empty_layer: bool,
}

/// An operation that makes a layer.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Execution of a command: RUN.
    Run(RunOperation),
    /// Copying of files: COPY and ADD.
    Copy(CopyOperation),
    /// Creation of a directory: WORKDIR.
    Workdir(WorkdirOperation),
}

/// The network that a RUN sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The network of the host.
    Host,
    /// No network but a loopback interface.
    None,
    /// A network of its own, with a connection outward.
    Private,
}

/// A file that the builder provides to a RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Absolute path in the step.
    pub target: String,
    /// Content of the file.
    pub content: String,
}

/// A `--mount` of a RUN after expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMount {
    /// Span of its flag.
    pub span: Span,
    /// Type of the mount with its options.
    pub kind: RunMountKind,
    /// Path in the step: absolute, clean and not `/`. Empty for a secret that is only a variable.
    pub target: String,
    /// True if writes fail.
    pub read_only: bool,
}

/// The type of a mount with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunMountKind {
    /// A file or directory of the host (`--volume`).
    Host(Volume),
    /// Files of the context, a stage or an image; writes are discarded.
    Bind {
        /// Source of the files.
        from: CopyFrom,
        /// Path in the source: absolute and clean.
        source: String,
    },
    /// A directory that persists between builds.
    Cache {
        /// Id of the cache, after its namespace if there is one.
        id: String,
        /// Access of concurrent steps.
        sharing: ir::Sharing,
        /// Initial content; the cache starts empty if `None`.
        from: Option<CopyFrom>,
        /// Directory of the initial content, or of the cache: absolute and clean.
        source: String,
        /// Mode and owner of the directory.
        access: MountAccess,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Size limit in bytes; 0 means unlimited.
        bytes: u64,
    },
    /// A file or variable that never becomes part of a layer.
    Secret {
        /// Id given with `--secret`.
        id: String,
        /// Variable that receives the secret.
        env: Option<String>,
        /// True if the build fails without it.
        required: bool,
        /// Mode and owner of the file.
        access: MountAccess,
    },
    /// An SSH agent of the caller.
    Ssh {
        /// Id given with `--ssh`.
        id: String,
        /// True if the build fails without it.
        required: bool,
        /// Mode and owner of the socket.
        access: MountAccess,
    },
}

/// Mode and owner of a mounted file, socket or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountAccess {
    /// Permission bits, as for chmod(2).
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
}

/// A resource limit of `--ulimit` (getrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, such as `nofile`.
    pub name: String,
    /// Limit in effect; `u64::MAX` means unlimited.
    pub soft: u64,
    /// Ceiling up to which a process may raise the soft limit.
    pub hard: u64,
}

/// Settings that are the same for all RUN steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunSettings {
    /// Names and addresses of `--add-host`, in order.
    pub hosts: Vec<(String, String)>,
    /// Limits of `--ulimit`, sorted by name.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm` (`--shm-size`); `None` for the default size.
    pub shm_bytes: Option<u64>,
    /// Capabilities besides the usual ones, as `CAP_CHOWN`, sorted (`--cap-add`).
    pub add_caps: Vec<String>,
    /// Usual capabilities that steps lack, sorted (`--cap-drop`).
    pub drop_caps: Vec<String>,
    /// Directories and files of the host (`--volume`).
    pub volumes: Vec<Volume>,
    /// Name resolution (`--dns` and others).
    pub dns: Dns,
    /// Maximum duration of a command (`--step-timeout`); a comment in the Dockerfile overrides it.
    pub timeout: Option<Duration>,
}

/// A file or directory of the host that every RUN sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute, clean path in the step.
    pub target: String,
    /// The access of steps.
    pub access: VolumeAccess,
}

/// The access that a step has to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeAccess {
    /// Writes change the host's files.
    Writable,
    /// Writes fail.
    ReadOnly,
    /// Writes are discarded.
    Discarding,
}

impl VolumeAccess {
    /// Returns the name in cache keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writable => "writable",
            Self::ReadOnly => "read-only",
            Self::Discarding => "discarding",
        }
    }
}

/// Lines of `/etc/resolv.conf` that replace those of the host (resolv.conf(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Domains to search.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl Dns {
    /// Returns the file of a step: lines of the host's are kept where nothing replaces them.
    #[must_use]
    pub fn resolv_conf(&self, host: &[u8]) -> Vec<u8> {
        let mut lines: Vec<String> = Vec::new();
        for line in String::from_utf8_lossy(host).lines() {
            let is_replaced = match line.split_whitespace().next() {
                Some("nameserver") => !self.servers.is_empty(),
                Some("search" | "domain") => !self.search.is_empty(),
                Some("options") => !self.options.is_empty(),
                Some(_) | None => false,
            };
            if !is_replaced {
                lines.push(line.to_owned());
            }
        }
        lines.extend(self.servers.iter().map(|server| format!("nameserver {server}")));
        let words = |name: &str, words: &[String]| {
            (!words.is_empty()).then(|| format!("{name} {}", words.join(" ")))
        };
        lines.extend(words("search", &self.search));
        lines.extend(words("options", &self.options));
        lines.iter().flat_map(|line| [line.as_bytes(), b"\n"]).flatten().copied().collect()
    }

    /// Returns whether nothing replaces the host's lines.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.search.is_empty() && self.options.is_empty()
    }
}

/// A RUN after expansion.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOperation {
    /// Full command line, including the shell.
    pub argv: Vec<String>,
    /// Names and values of ENV and ARG at this line. HOME is added when the step runs.
    pub env: Vec<(String, String)>,
    /// Proxy variables, which the command sees but the cache key leaves out.
    pub proxy: Vec<(String, String)>,
    /// Working directory, absolute.
    pub cwd: String,
    /// USER after expansion; empty for root.
    pub user: String,
    /// Network that the command sees.
    pub network: Network,
    /// True for `--security=insecure`.
    pub insecure: bool,
    /// Mounts, each after the mounts that contain its target.
    pub mounts: Vec<RunMount>,
    /// Time and attempts of the command, which the cache key leaves out.
    pub patience: ir::Patience,
    /// Settings shared by all RUN steps.
    pub settings: RunSettings,
    /// Scripts from heredocs with a `#!` line.
    pub files: Vec<InlineFile>,
    /// Hostname that the command sees.
    pub hostname: String,
    /// Platform of the stage, as in `linux/amd64`.
    pub platform: String,
}

/// The source of COPY, ADD or a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFrom {
    /// The main build context.
    Context,
    /// The files of a named context.
    Named(String),
    /// An earlier stage of the plan, by number.
    Stage(usize),
    /// An image of a registry, of the store or of a layout.
    Image(ImageRequest),
}

/// One source of COPY or ADD after expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedSource {
    /// A path or pattern in the source.
    Path {
        /// Path after expansion.
        text: String,
        /// Span of its word.
        span: Span,
    },
    /// A file from a heredoc.
    Inline {
        /// Name of the file.
        name: String,
        /// Content of the file.
        content: String,
    },
    /// A URL or git repository.
    Remote(RemoteCopySource),
}

impl PlannedSource {
    /// Returns the path or pattern, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Path { text, .. } => Some(text),
            Self::Inline { .. } | Self::Remote(_) => None,
        }
    }
}

/// A source of ADD that is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteCopySource {
    /// URL or repository, with credentials.
    pub source: Remote,
    /// Text for messages, without credentials.
    pub shown: String,
    /// Required digest of a download (`--checksum`).
    pub checksum: Option<Digest>,
    /// True if an archive is unpacked.
    pub unpack: bool,
    /// Span of its word.
    pub span: Span,
}

/// A COPY or ADD after expansion.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyOperation {
    /// Location of the sources.
    pub from: CopyFrom,
    /// Sources, with heredocs after paths.
    pub parts: Vec<PlannedSource>,
    /// Destination after expansion; a trailing slash makes it a directory.
    pub destination: String,
    /// Working directory, which a relative destination is joined to.
    pub workdir: String,
    /// Value of `--chown`; names are resolved in the image.
    pub chown: Option<(String, Span)>,
    /// Value of `--chmod`, not yet parsed.
    pub chmod: Option<(String, Span)>,
    /// True for `--link`: the layer does not depend on the layers below it.
    pub link: bool,
    /// True for `--parents`, which keeps directories of sources.
    pub parents: bool,
    /// Patterns of `--exclude`, not expanded.
    pub exclude: Vec<String>,
    /// True if archives among the sources are unpacked, as ADD does.
    pub unpack: bool,
}

impl RunMount {
    /// Returns the source of its files, if it has one.
    #[must_use]
    pub const fn from(&self) -> Option<&CopyFrom> {
        match &self.kind {
            RunMountKind::Bind { from, .. } | RunMountKind::Cache { from: Some(from), .. } => {
                Some(from)
            }
            RunMountKind::Cache { from: None, .. }
            | RunMountKind::Host(_)
            | RunMountKind::Tmpfs { .. }
            | RunMountKind::Secret { .. }
            | RunMountKind::Ssh { .. } => None,
        }
    }
}

impl Operation {
    /// Iterates over the numbers of the stages whose files it uses.
    pub fn stages(&self) -> impl Iterator<Item = usize> {
        let froms: Vec<&CopyFrom> = match self {
            Self::Run(run) => run.mounts.iter().filter_map(RunMount::from).collect(),
            Self::Copy(copy) => vec![&copy.from],
            Self::Workdir(_) => Vec::new(),
        };
        froms.into_iter().filter_map(|from| match from {
            CopyFrom::Stage(number) => Some(*number),
            CopyFrom::Context | CopyFrom::Named(_) | CopyFrom::Image(_) => None,
        })
    }
}

impl Step {
    /// Sets the span of a trigger to that of the FROM whose image has it.
    pub(super) fn move_to(&mut self, span: Span) {
        self.span = span;
        if let Some(Operation::Run(run)) = &mut self.operation {
            run.mounts.iter_mut().for_each(|mount| mount.span = span);
        }
    }
}

/// A WORKDIR after expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkdirOperation {
    /// Directory: absolute and clean, never `/`.
    pub path: String,
    /// USER, the owner of directories that are created.
    pub user: String,
}

impl CopyFrom {
    /// Returns whether the files come from the caller; such files belong to root in the image.
    #[must_use]
    pub const fn is_context(&self) -> bool {
        match self {
            Self::Context | Self::Named(_) => true,
            Self::Stage(_) | Self::Image(_) => false,
        }
    }
}

impl PlannedStage {
    /// Returns the number of steps that make a layer.
    #[must_use]
    pub fn n_operations(&self) -> usize {
        self.steps.iter().filter(|step| step.operation.is_some()).count()
    }
}

impl From<ir::RunNetwork> for Option<Network> {
    fn from(network: ir::RunNetwork) -> Self {
        match network {
            ir::RunNetwork::Default => None,
            ir::RunNetwork::None => Some(Network::None),
            ir::RunNetwork::Host => Some(Network::Host),
        }
    }
}
