//! Why a build ended without an image.

use std::sync::Arc;

use rustix::io::Errno;

use crate::context::git::GitError;
use crate::diag::{Code, Diagnostic, Span, codes};
use crate::image::ExportError;
use crate::oci::{ConfigError, DiffId, ManifestError};
use crate::pathio::PathError;
use crate::pathio::ids::UnmappedId;
use crate::registry::RegistryError;
use crate::sandbox::SandboxError;
use crate::store::StoreError;

mod chain;
mod fetch;
mod lock;

pub use chain::chain;
pub use fetch::{ChecksumBy, DownloadError, FetchError};
pub use lock::LockViolation;

/// An error that several waiting threads may see.
pub type Failure = Arc<BuildError>;

/// What to do where `--offline` is in the way.
pub(in crate::executor) const FETCH_FIRST: &str =
    "a build without --offline, or `rbuild pull`, fetches it";

/// Why a build ended without an image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile has mistakes, or a step met one that has a place in it.
    #[error("{}", diagnostics.first().map_or("the Dockerfile has an error", |d| d.message.as_str()))]
    Dockerfile {
        /// In order of place.
        diagnostics: Vec<Diagnostic>,
    },
    /// A RUN ended badly.
    #[error("process \"{command}\" did not complete successfully: {how}")]
    Run {
        /// Where the RUN stands.
        span: Span,
        /// As in `build:6`.
        step: String,
        /// The whole command.
        command: String,
        /// As in `exit code: 1`.
        how: String,
        /// Its last lines.
        last_lines: Vec<String>,
        /// Advice, the likeliest first.
        helps: Vec<String>,
    },
    /// The sandbox could not be set up.
    #[error("cannot run the step")]
    Sandbox {
        /// Where the RUN stands.
        span: Span,
        /// What failed.
        source: SandboxError,
    },
    /// An image could not be had.
    #[error("cannot get the image {name}")]
    Image {
        /// Where the Dockerfile names it.
        span: Option<Span>,
        /// The image.
        name: String,
        /// Why.
        source: RegistryError,
    },
    /// The same, with what may have been meant, or where the digest that was asked for is from.
    #[error(
        "{}{}; {help}",
        lead.as_ref().map_or_else(String::new, |lead| format!("{lead}: ")),
        chain(&**error)
    )]
    Misnamed {
        /// The other things that the name could have been, and is not.
        lead: Option<String>,
        /// The advice.
        help: String,
        /// The error without that.
        error: Box<BuildError>,
    },
    /// An image's manifest is no good.
    #[error("the image {name} cannot be used")]
    Manifest {
        /// The image.
        name: String,
        /// Why.
        source: ManifestError,
    },
    /// An image's config is no good.
    #[error("the image {name} cannot be used")]
    Config {
        /// The image.
        name: String,
        /// Why.
        source: ConfigError,
    },
    /// An image contradicts itself, or has nothing for the platform.
    #[error("the image {name} cannot be used: {reason}")]
    BadImage {
        /// Where the Dockerfile names it.
        span: Option<Span>,
        /// The image.
        name: String,
        /// Why.
        reason: String,
    },
    /// The image could not be pushed.
    #[error("cannot push {name}")]
    Push {
        /// The name it was to have.
        name: String,
        /// Why.
        source: RegistryError,
    },
    /// Something that no place of the Dockerfile names could not be fetched: the context.
    #[error(transparent)]
    Fetch(Box<FetchError>),
    /// An input that no place of the Dockerfile names is not what the lock file says: the context.
    #[error("{0}; {help}", help = .0.help())]
    Locked(Box<LockViolation>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The image could not be written out.
    #[error(transparent)]
    Export(#[from] crate::image::ExportError),
    /// A cache of other machines could not be read or written.
    #[error("cannot {verb} {place}")]
    Cache {
        /// `import the cache from`, `export the cache to`.
        verb: &'static str,
        /// Where it is.
        place: String,
        /// Why.
        source: Box<BuildError>,
    },
    /// A layer that a cache said it had cannot be had.
    #[error("cannot get the layer {layer}")]
    CachedLayer {
        /// Which.
        layer: DiffId,
        /// Why not.
        source: Box<ExportError>,
    },
    /// A bucket did not give or take what it was asked to.
    #[error("cannot use {place}")]
    Bucket {
        /// Bucket and key.
        place: String,
        /// Why.
        source: RegistryError,
    },
    /// What is there is no cache.
    #[error("it is not a build cache: {reason}")]
    BadCache {
        /// Why not.
        reason: String,
    },
    /// An error that has a place in the Dockerfile, though it is not the Dockerfile's fault.
    #[error("{}", chain(&**error))]
    Located {
        /// The place.
        span: Span,
        /// The code that it is reported under.
        code: Code,
        /// A remedy, shown below the error.
        help: String,
        /// The error.
        error: Box<BuildError>,
    },
    /// Another step failed first.
    #[error("another step failed")]
    Stopped,
    /// The caller ended it.
    #[error("interrupted")]
    Interrupted,
}

impl BuildError {
    /// The places in the Dockerfile that it is about; empty when it is about none.
    #[must_use]
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        match self {
            Self::Dockerfile { diagnostics } => diagnostics.clone(),
            Self::Run { span, helps, .. } => {
                let error = Diagnostic::error(codes::RUN_FAILED, *span, self.to_string());
                let mut error = error.label(*span, "this step");
                error.helps.clone_from(helps);
                vec![error]
            }
            Self::Sandbox { span, source } => {
                let message = chain(source);
                match UnmappedId::in_chain(source) {
                    Some(id) => {
                        vec![Diagnostic::error(codes::UNMAPPED_ID, *span, message).help(id.help())]
                    }
                    None if is_of_machine(source) => {
                        let error = Diagnostic::error(codes::NO_SANDBOX, *span, message);
                        vec![error.help(
                            "the Dockerfile is not the cause: what this machine or container forbids is in the way",
                        )]
                    }
                    None => vec![Diagnostic::error(codes::RUN_FAILED, *span, message)],
                }
            }
            Self::Image { span: Some(span), source, .. } => {
                vec![self.without_image(*span, source)]
            }
            Self::Misnamed { lead, help, error } => {
                let mut diagnostics = error.diagnostics();
                for found in &mut diagnostics {
                    if let Some(lead) = lead {
                        found.message = format!("{lead}: {}", found.message);
                    }
                    found.helps.insert(0, help.clone());
                }
                diagnostics
            }
            Self::BadImage { span: Some(span), .. } => {
                vec![Diagnostic::error(codes::BASE_UNAVAILABLE, *span, self.to_string())]
            }
            Self::Located { span, code, help, .. } => {
                vec![Diagnostic::error(*code, *span, self.to_string()).help(help.clone())]
            }
            Self::Image { .. }
            | Self::BadImage { .. }
            | Self::Manifest { .. }
            | Self::Config { .. }
            | Self::Push { .. }
            | Self::Fetch(_)
            | Self::Locked(_)
            | Self::Store(_)
            | Self::Io(_)
            | Self::Export(_)
            | Self::Cache { .. }
            | Self::CachedLayer { .. }
            | Self::Bucket { .. }
            | Self::BadCache { .. }
            | Self::Stopped
            | Self::Interrupted => Vec::new(),
        }
    }

    /// An image that could not be had, at the place that names it.
    fn without_image(&self, span: Span, source: &RegistryError) -> Diagnostic {
        let own = source.own();
        let is_offline = matches!(own, RegistryError::Offline { .. });
        let code = if is_offline { codes::NOT_FETCHED } else { codes::BASE_UNAVAILABLE };
        let mut help = is_offline.then(|| FETCH_FIRST.to_owned());
        let mut why = chain(source);
        if own.is_not_found() {
            if source.answers().is_empty() {
                "it does not exist".clone_into(&mut why);
            }
            help = Some("check the name and the tag, and that it was pushed".to_owned());
        } else if let RegistryError::Unreachable { host, source: cause } = own {
            if source.answers().is_empty() {
                why = format!("cannot reach {host}: {cause}");
            }
            help = Some(format!("is the registry running at {host}, and is the network up?"));
        } else if let RegistryError::Unauthorized { host, why: words, .. } = source {
            why = format!("{host} does not let us in: {words}");
        }
        Diagnostic::error(code, span, format!("{self}: {why}")).maybe_help(help)
    }

    /// The same, at the instruction at `span` if that asks for something that cannot be made.
    #[must_use]
    pub(in crate::executor) fn at(self, span: Span) -> Self {
        if let Self::Store(error @ StoreError::ReservedName { .. }) = &self {
            let help = "choose another name, or remove the file in the same step; what comes from a \
                        context can be left out with .dockerignore or --exclude";
            let found = Diagnostic::error(codes::RESERVED_NAME, span, error.to_string());
            return found.label(span, "makes it").help(help).into();
        }
        if !self.diagnostics().is_empty() {
            return self;
        }
        let Some(help) = UnmappedId::in_chain(&self).map(UnmappedId::help) else { return self };
        Self::Located { span, code: codes::UNMAPPED_ID, help, error: Box::new(self) }
    }

    /// Whether it is only the consequence of another error.
    #[must_use]
    pub const fn is_consequence(&self) -> bool {
        matches!(self, Self::Stopped)
    }

    /// Whether a step that ends so was stopped, and did nothing wrong itself.
    #[must_use]
    pub const fn is_cancelled(&self) -> bool {
        matches!(self, Self::Stopped | Self::Interrupted)
    }

    /// Whether what is around the build failed, rather than the Dockerfile or a step.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Misnamed { error, .. } | Self::Located { error, .. } => error.is_environment(),
            Self::Image { source, .. } => !source.is_not_found(),
            Self::BadImage { span: Some(_), .. }
            | Self::Locked(_)
            | Self::Dockerfile { .. }
            | Self::Run { .. } => false,
            Self::BadImage { .. }
            | Self::Sandbox { .. }
            | Self::Manifest { .. }
            | Self::Config { .. }
            | Self::Push { .. }
            | Self::Fetch(_)
            | Self::Store(_)
            | Self::Io(_)
            | Self::Export(_)
            | Self::Cache { .. }
            | Self::CachedLayer { .. }
            | Self::Bucket { .. }
            | Self::BadCache { .. }
            | Self::Stopped
            | Self::Interrupted => true,
        }
    }
}

impl FetchError {
    /// The same as an error of the build, at the place that names what was to be fetched.
    pub(in crate::executor) fn at(self, span: Option<Span>) -> BuildError {
        match self {
            Self::Git(GitError::Stopped) => BuildError::Stopped,
            Self::Store(error) => error.into(),
            Self::Io(error) => error.into(),
            Self::Locked(violation) => violation.at(span),
            Self::Git(_) | Self::Download(_) | Self::Archive { .. } | Self::Offline { .. } => {
                match span {
                    Some(span) => self.diagnostic(span).into(),
                    None => BuildError::Fetch(Box::new(self)),
                }
            }
        }
    }
}

impl LockViolation {
    /// The same as an error of the build.
    pub(in crate::executor) fn at(self, span: Option<Span>) -> BuildError {
        match span {
            Some(span) => self.diagnostic(span).into(),
            None => BuildError::Locked(Box::new(self)),
        }
    }
}

impl From<Diagnostic> for BuildError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Dockerfile { diagnostics: vec![diagnostic] }
    }
}

/// Returns whether the machine refuses a sandbox: what an image or a Dockerfile asks for leads to other
/// answers of the kernel, such as ENOTDIR for a mount point below a file.
fn is_of_machine(error: &SandboxError) -> bool {
    let (SandboxError::Setup { source, .. } | SandboxError::Overlay { source, .. }) = error else {
        return matches!(error, SandboxError::NoUserNamespace { .. });
    };
    let answer = Errno::from_io_error(source);
    answer.is_some_and(|answer| {
        [
            Errno::PERM,
            Errno::NOSYS,
            Errno::NODEV,
            Errno::INVAL,
            Errno::NOSPC,
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::AGAIN,
            Errno::USERS,
        ]
        .contains(&answer)
    })
}

/// An error that another stage has as well: that stage reports it.
pub(in crate::executor) fn unshared(error: Failure) -> BuildError {
    Arc::try_unwrap(error).unwrap_or(BuildError::Stopped)
}
