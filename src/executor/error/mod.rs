//! Errors of a build.

use std::sync::Arc;
use std::time::Duration;

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

/// An error that several waiting threads may receive.
pub type Failure = Arc<BuildError>;

/// Advice where `--offline` forbids a request.
pub(in crate::executor) const FETCH_FIRST: &str =
    "run a build without --offline, or `rbuild pull`, to fetch it";

/// An error that ends a build. It holds facts only; the rootfs of a failed step is returned beside
/// it.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile has errors, or a step has one that a location explains.
    #[error("{}", diagnostics.first().map_or("the Dockerfile has an error", |d| d.message.as_str()))]
    Dockerfile {
        /// Findings in the order of their location.
        diagnostics: Vec<Diagnostic>,
    },
    /// The command of a RUN failed.
    #[error("process \"{command}\" did not complete successfully: {how}")]
    Run {
        /// Location of the RUN.
        span: Span,
        /// Short name of the step, as in `build:6`.
        step: Box<str>,
        /// The whole command, words joined by spaces.
        command: String,
        /// The exit, as in `exit code: 1`.
        how: String,
        /// Last lines of the output.
        last_lines: Vec<String>,
        /// Advice, the likeliest first.
        helps: Vec<String>,
        /// True if it was killed because it took too long.
        is_timeout: bool,
    },
    /// The sandbox could not be set up.
    #[error("cannot run the step")]
    Sandbox {
        /// Location of the RUN.
        span: Span,
        /// The operation that failed.
        source: SandboxError,
    },
    /// An image could not be resolved or pulled.
    #[error("cannot get the image {name}")]
    Image {
        /// Location of its name in the Dockerfile.
        span: Option<Span>,
        /// Name of the image.
        name: String,
        /// Error of the registry.
        source: RegistryError,
    },
    /// An error with advice: the name that may have been meant, or the source of the digest that
    /// was requested.
    #[error(
        "{}{}; {help}",
        lead.as_ref().map_or_else(String::new, |lead| format!("{lead}: ")),
        chain(&**error)
    )]
    Misnamed {
        /// Says what else the name could have stood for, and does not.
        lead: Option<String>,
        /// The advice.
        help: String,
        /// The error without advice.
        error: Box<BuildError>,
    },
    /// The manifest of an image is invalid.
    #[error("the image {name} cannot be used")]
    Manifest {
        /// Name of the image.
        name: String,
        /// Error of the manifest.
        source: ManifestError,
    },
    /// The config of an image is invalid.
    #[error("the image {name} cannot be used")]
    Config {
        /// Name of the image.
        name: String,
        /// Error of the config.
        source: ConfigError,
    },
    /// An image contradicts itself, or has no variant for the platform.
    #[error("the image {name} cannot be used: {reason}")]
    BadImage {
        /// Location of its name in the Dockerfile.
        span: Option<Span>,
        /// Name of the image.
        name: String,
        /// The contradiction, or the platforms that the image has.
        reason: String,
    },
    /// The image could not be pushed.
    #[error("cannot push {name}")]
    Push {
        /// Name that it was pushed under.
        name: String,
        /// Error of the registry.
        source: RegistryError,
    },
    /// The build context could not be fetched. It has no location in the Dockerfile.
    #[error(transparent)]
    Fetch(Box<FetchError>),
    /// The build context differs from the lock file. It has no location in the Dockerfile.
    #[error("{0}; {help}", help = .0.help())]
    Locked(Box<LockViolation>),
    /// The store failed to read or write.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The image could not be exported.
    #[error(transparent)]
    Export(#[from] crate::image::ExportError),
    /// A build cache could not be imported or exported.
    #[error("cannot {verb} {place}")]
    Cache {
        /// `import the cache from` or `export the cache to`.
        verb: &'static str,
        /// Location of the cache.
        place: String,
        /// Error of the operation.
        source: Box<BuildError>,
    },
    /// A layer that a cache claims to have is not available.
    #[error("cannot get the layer {layer}")]
    CachedLayer {
        /// The layer that is missing.
        layer: DiffId,
        /// Error of the last attempt.
        source: Box<ExportError>,
    },
    /// Steps were found whose layers are gone from the locations of the caches.
    #[error("layers of cached steps are gone")]
    LostLayers,
    /// A request to a bucket failed.
    #[error("cannot use {place}")]
    Bucket {
        /// Bucket and key of the request.
        place: String,
        /// Error of the request.
        source: RegistryError,
    },
    /// The imported document is not a build cache.
    #[error("it is not a build cache: {reason}")]
    BadCache {
        /// The defect of the document.
        reason: String,
    },
    /// Other builds kept replacing a cache while it was exported.
    #[error(
        "other builds replaced it {n_attempts} times meanwhile; give builds that run at the same time caches with \
         different names"
    )]
    BusyCache {
        /// Number of attempts to write it.
        n_attempts: u32,
    },
    /// An error with a location in the Dockerfile whose cause lies elsewhere.
    #[error("{}", chain(&**error))]
    Located {
        /// Location in the Dockerfile.
        span: Span,
        /// Code that it is reported under.
        code: Code,
        /// Advice, shown below the error.
        help: String,
        /// The error without location.
        error: Box<BuildError>,
    },
    /// The build took longer than its maximum duration.
    #[error("the build took longer than its limit of {} (--timeout)", humantime::format_duration(*limit))]
    TimedOut {
        /// The maximum duration.
        limit: Duration,
    },
    /// Another step failed first.
    #[error("another step failed")]
    Stopped,
    /// The caller interrupted the build.
    #[error("interrupted")]
    Interrupted,
}

impl BuildError {
    /// Returns the error as diagnostics with locations; empty if it has no location.
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
            Self::Sandbox { span, source } => vec![without_sandbox(*span, source)],
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
            | Self::LostLayers
            | Self::Bucket { .. }
            | Self::BadCache { .. }
            | Self::BusyCache { .. }
            | Self::TimedOut { .. }
            | Self::Stopped
            | Self::Interrupted => Vec::new(),
        }
    }

    /// Returns the error of an image that is not available, at the location of its name.
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
        } else if let RegistryError::Unauthorized { host, status, why: words, .. } = source {
            why = format!("{host} refused access ({status}): {words}");
        }
        Diagnostic::error(code, span, format!("{self}: {why}")).maybe_help(help)
    }

    /// Returns the error with the location of the instruction, if that asks for something
    /// impossible.
    #[must_use]
    pub(in crate::executor) fn at(self, span: Span) -> Self {
        if let Self::Store(error @ StoreError::ReservedName { .. }) = &self {
            let help = "choose another name, or remove the file in the same step; files of a \
                        context can be excluded with .dockerignore or --exclude";
            let found = Diagnostic::error(codes::RESERVED_NAME, span, error.to_string());
            return found.label(span, "makes it").help(help).into();
        }
        if !self.diagnostics().is_empty() {
            return self;
        }
        let Some(help) = UnmappedId::in_chain(&self).map(UnmappedId::help) else { return self };
        Self::Located { span, code: codes::UNMAPPED_ID, help, error: Box::new(self) }
    }

    /// Returns whether it is only the consequence of another error, or says less than that.
    #[must_use]
    pub const fn is_consequence(&self) -> bool {
        matches!(self, Self::Stopped | Self::TimedOut { .. })
    }

    /// Returns whether a limit on durations has ended the build.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Run { is_timeout: true, .. })
    }

    /// Returns whether a step with this error was cancelled, and did not fail itself.
    #[must_use]
    pub const fn is_cancelled(&self) -> bool {
        matches!(self, Self::Stopped | Self::Interrupted | Self::TimedOut { .. })
    }

    /// Returns whether the environment of the build failed, rather than the Dockerfile or a step.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Misnamed { error, .. } | Self::Located { error, .. } => error.is_environment(),
            Self::Image { source, .. } => !source.is_not_found(),
            Self::BadImage { span: Some(_), .. }
            | Self::Locked(_)
            | Self::Dockerfile { .. }
            | Self::TimedOut { .. }
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
            | Self::LostLayers
            | Self::Bucket { .. }
            | Self::BadCache { .. }
            | Self::BusyCache { .. }
            | Self::Stopped
            | Self::Interrupted => true,
        }
    }
}

impl FetchError {
    /// Returns it as an error of the build, at the location that names the input.
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
    /// Returns it as an error of the build, at the location that names the input.
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

/// Returns whether the machine refuses a sandbox. Requests of an image or a Dockerfile fail with
/// other errors, such as ENOTDIR for a mount point below a file.
fn is_of_machine(error: &SandboxError) -> bool {
    let (SandboxError::Setup { source, .. } | SandboxError::Overlay { source, .. }) = error else {
        return matches!(
            error,
            SandboxError::NoUserNamespace { .. }
                | SandboxError::NoIsolation { .. }
                | SandboxError::NoPrivateNetwork { .. }
                | SandboxError::NoResourceLimit { .. }
        );
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

/// Returns the error of a step that the sandbox could not run.
fn without_sandbox(span: Span, source: &SandboxError) -> Diagnostic {
    let message = chain(source);
    match UnmappedId::in_chain(source) {
        Some(id) => Diagnostic::error(codes::UNMAPPED_ID, span, message).help(id.help()),
        None if is_of_machine(source) => Diagnostic::error(codes::NO_SANDBOX, span, message).help(
            "the Dockerfile is not the cause: this machine or container forbids an operation of the sandbox",
        ),
        None => Diagnostic::error(codes::RUN_FAILED, span, message),
    }
}

/// Returns the error, or [`BuildError::Stopped`] if another stage holds it too and will report it.
pub(in crate::executor) fn unshared(error: Failure) -> BuildError {
    Arc::try_unwrap(error).unwrap_or(BuildError::Stopped)
}
