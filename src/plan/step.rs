//! The plan as data.

use crate::diag::{Diagnostic, Span};
use crate::ir;
use crate::oci::{Digest, ImageConfig};

use super::{ImageRequest, Remote};

/// All that has to be done.
#[derive(Debug)]
pub struct Plan {
    /// The stages that the target needs, each after those that it needs itself.
    pub stages: Vec<PlannedStage>,
    /// Which of them is the result.
    pub target: usize,
    /// What is odd but stops nothing.
    pub warnings: Vec<Diagnostic>,
}

/// A stage with everything expanded.
#[derive(Debug, Clone)]
pub struct PlannedStage {
    /// What it is called in logs: its name, or `stage-N`.
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
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
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

/// RUN.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
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
