//! The plan as data.

use crate::diag::{Diagnostic, Span};
use crate::dockerfile::ir;
use crate::oci::{Digest, ImageConfig, Platform};

use super::{ImageRequest, Remote};

/// All that has to be done.
#[derive(Debug)]
pub struct Plan {
    /// The stages that the targets need, each after those that it needs itself. What is the same
    /// for several platforms is there once.
    pub stages: Vec<PlannedStage>,
    /// Which of them are the results: one for each platform of the request, in its order.
    pub targets: Vec<Target>,
    /// What is odd but stops nothing.
    pub warnings: Vec<Diagnostic>,
}

/// An image to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The number of its stage in the plan. Images for several platforms can share one.
    pub stage: usize,
    /// The platform that its config and the index name.
    pub platform: Platform,
}

/// A stage with everything expanded.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStage {
    /// What it is called in logs: its name, or `stage-N`, after its platform if there are several.
    pub name: String,
    /// What it starts from.
    pub base: Base,
    /// Where its FROM stands.
    pub span: Span,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// The config after the last step; `rootfs`, `history` and `created` are still the base
    /// image's.
    pub config: ImageConfig,
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage of the plan, by number.
    Stage(usize),
    /// An image.
    Image(ImageRequest),
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Where it stands.
    pub span: Span,
    /// The instruction in one line.
    pub text: String,
    /// What it does to the files; nothing for those that only change the config.
    pub operation: Option<Operation>,
    /// Its entry in the image's history; none for ONBUILD.
    pub history: Option<HistoryLine>,
}

/// A history entry but for its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// `created_by`.
    pub created_by: String,
    /// Whether no layer belongs to it.
    pub empty_layer: bool,
}

/// What makes a layer.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// RUN.
    Run(RunOperation),
    /// COPY and ADD.
    Copy(CopyOperation),
    /// WORKDIR.
    Workdir(WorkdirOperation),
}

/// Which network a RUN sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The host's.
    Host,
    /// Only loopback.
    None,
}

/// A file that the builder lends to a RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Where the step sees it, absolute.
    pub target: String,
    /// What is in it.
    pub content: String,
}

/// `--mount` of a RUN, expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMount {
    /// Where it stands.
    pub span: Span,
    /// What is mounted.
    pub kind: RunMountKind,
    /// Where the step sees it: absolute, clean and not `/`. Empty when it sees it nowhere: a secret
    /// that is only a variable.
    pub target: String,
    /// Whether writing fails.
    pub read_only: bool,
}

/// What a `--mount` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunMountKind {
    /// Files of the context, a stage or an image. What is written is thrown away.
    Bind {
        /// Where they are.
        from: CopyFrom,
        /// Which: absolute and clean.
        source: String,
    },
    /// A directory that survives the build.
    Cache {
        /// Its name, with the namespace in front where there is one.
        id: String,
        /// Who may use it at the same time.
        sharing: ir::Sharing,
        /// What it holds in the beginning; nothing when `None`.
        from: Option<CopyFrom>,
        /// Which directory of that, or of the cache: absolute and clean.
        source: String,
        /// Mode and owner of the directory.
        access: Access,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Its limit; 0 for none.
        bytes: u64,
    },
    /// A file or variable that is in no layer.
    Secret {
        /// Which.
        id: String,
        /// The variable that it is in.
        env: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Mode and owner of the file.
        access: Access,
    },
    /// The caller's ssh agent.
    Ssh {
        /// Which.
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// Mode and owner of the socket.
        access: Access,
    },
}

/// Who may use what is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A limit of `--ulimit`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ulimit {
    /// As in `nofile`.
    pub name: String,
    /// What holds until the process itself raises it; `u64::MAX` is no limit.
    pub soft: u64,
    /// As far as it can be raised.
    pub hard: u64,
}

/// What steps may see that is the same for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunSettings {
    /// `--add-host`: names and addresses, in order.
    pub hosts: Vec<(String, String)>,
    /// `--ulimit`, in order of name.
    pub ulimits: Vec<Ulimit>,
    /// `--shm-size`; the usual size when `None`.
    pub shm_bytes: Option<u64>,
}

/// RUN.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOperation {
    /// The whole command, the shell included.
    pub argv: Vec<String>,
    /// `NAME`, value: ENV and ARG as they stand here. HOME is added when the step runs.
    pub env: Vec<(String, String)>,
    /// Proxy variables: the command sees them, the key does not.
    pub proxy: Vec<(String, String)>,
    /// Absolute.
    pub cwd: String,
    /// USER as written; empty for root.
    pub user: String,
    /// Which network.
    pub network: Network,
    /// `--security=insecure`.
    pub insecure: bool,
    /// `--mount`, parents before what is mounted below them.
    pub mounts: Vec<RunMount>,
    /// What is the same for all steps.
    pub settings: RunSettings,
    /// Scripts of heredocs.
    pub files: Vec<InlineFile>,
    /// The hostname it sees.
    pub hostname: String,
    /// The os/architecture that it runs as.
    pub platform: String,
}

/// Where COPY takes its sources from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFrom {
    /// The build context.
    Context,
    /// The files of a named context.
    Named(String),
    /// An earlier stage of the plan, by number.
    Stage(usize),
    /// An image.
    Image(ImageRequest),
}

/// One source of COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyPart {
    /// A path or pattern.
    Path {
        /// As expanded.
        text: String,
        /// Where it stands.
        span: Span,
    },
    /// A heredoc.
    Inline {
        /// The file's name.
        name: String,
        /// What is in it.
        content: String,
    },
    /// A URL or repository.
    Remote(RemotePart),
}

/// A source of ADD that is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePart {
    /// What is fetched.
    pub source: Remote,
    /// As expanded, without credentials.
    pub shown: String,
    /// `--checksum` of a URL.
    pub checksum: Option<Digest>,
    /// Whether it is unpacked if it is an archive.
    pub unpack: bool,
    /// Where it stands.
    pub span: Span,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyOperation {
    /// Where the sources are.
    pub from: CopyFrom,
    /// What is copied.
    pub parts: Vec<CopyPart>,
    /// Where to, as expanded: a slash at its end matters.
    pub destination: String,
    /// What a relative destination is relative to.
    pub workdir: String,
    /// `--chown`, names not resolved.
    pub chown: Option<(String, Span)>,
    /// `--chmod`, not parsed.
    pub chmod: Option<(String, Span)>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// Whether archives among the sources are unpacked: ADD.
    pub unpack: bool,
}

impl RunMount {
    /// Where its files come from, if it has any of this build.
    #[must_use]
    pub const fn from(&self) -> Option<&CopyFrom> {
        match &self.kind {
            RunMountKind::Bind { from, .. } | RunMountKind::Cache { from: Some(from), .. } => {
                Some(from)
            }
            RunMountKind::Cache { from: None, .. }
            | RunMountKind::Tmpfs { .. }
            | RunMountKind::Secret { .. }
            | RunMountKind::Ssh { .. } => None,
        }
    }
}

impl Operation {
    /// The stages whose files it uses, by number.
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
    /// Puts it at another place: that of the FROM whose image has it as a trigger.
    pub(super) fn move_to(&mut self, span: Span) {
        self.span = span;
        if let Some(Operation::Run(run)) = &mut self.operation {
            run.mounts.iter_mut().for_each(|mount| mount.span = span);
        }
    }
}

/// WORKDIR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkdirOperation {
    /// Absolute and clean; never `/`.
    pub path: String,
    /// USER, who owns what has to be made.
    pub user: String,
}

impl CopyFrom {
    /// Whether it is files of the caller's, which belong to root in the image.
    #[must_use]
    pub const fn is_context(&self) -> bool {
        match self {
            Self::Context | Self::Named(_) => true,
            Self::Stage(_) | Self::Image(_) => false,
        }
    }
}

impl PlannedStage {
    /// How many steps make a layer.
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
