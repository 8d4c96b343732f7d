//! Errors of downloads, repositories and archives of contexts.

use crate::context::git::GitError;
use crate::diag::{Diagnostic, Span, codes};
use crate::oci::Digest;
use crate::pathio::PathError;
use crate::registry::RegistryError;
use crate::store::StoreError;
use crate::store::unpack::UnpackError;

use super::chain::chain;
use super::lock::LockViolation;

/// Why something outside could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A download failed.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A repository gave nothing.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A context's archive is no good.
    #[error("cannot unpack the context {shown}")]
    Archive {
        /// The context, without credentials.
        shown: String,
        /// Why.
        source: Box<UnpackError>,
    },
    /// It is not what the lock file says.
    #[error(transparent)]
    Locked(#[from] Box<LockViolation>),
    /// The network is not to be used.
    #[error("{what} would have to be fetched, which --offline forbids")]
    Offline {
        /// What was wanted.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
}

impl FetchError {
    pub(super) fn diagnostic(&self, span: Span) -> Diagnostic {
        let code = match self {
            Self::Download(DownloadError::Checksum { .. })
            | Self::Git(GitError::Checksum { .. }) => codes::WRONG_CHECKSUM,
            Self::Archive { .. } => codes::BAD_ARCHIVE,
            Self::Locked(_) => codes::NOT_AS_LOCKED,
            Self::Offline { .. } => codes::NOT_FETCHED,
            Self::Download(DownloadError::Fetch { source, .. })
                if matches!(**source, RegistryError::Offline { .. }) =>
            {
                codes::NOT_FETCHED
            }
            Self::Download(_) | Self::Git(_) | Self::Store(_) | Self::Io(_) => codes::FETCH_FAILED,
        };
        let refused = if let Self::Download(error) = self { error.refusal() } else { None };
        let message = refused.unwrap_or_else(|| chain(self));
        Diagnostic::error(code, span, message).maybe_help(self.help())
    }

    /// What may help.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Download(DownloadError::Checksum { by: ChecksumBy::LockFile(_), .. }) => {
                "if the new content is right, `rbuild lock --update` takes it over"
            }
            Self::Locked(violation) => violation.help(),
            Self::Download(DownloadError::Fetch { source, .. })
                if matches!(**source, RegistryError::Status { status: 404 | 410, .. }) =>
            {
                "look at the address: the file may have another name, or its version may be gone"
            }
            Self::Offline { .. } => "a build without --offline fetches it",
            Self::Download(DownloadError::Checksum { .. })
            | Self::Git(GitError::Checksum { .. }) => {
                "if the new content is right, put its checksum in place of the old one"
            }
            Self::Git(GitError::NoReference { nearest: Some(name), .. }) => {
                return Some(format!("did you mean `{name}`?"));
            }
            Self::Git(GitError::NoReference { .. }) => {
                "after `#` comes a branch, a tag, or a whole commit"
            }
            Self::Git(GitError::NoAgent { .. }) => "give it one with --ssh default, or use https",
            Self::Git(GitError::NoProgram { .. }) => {
                "install git, or use the https address of an archive of the repository"
            }
            Self::Git(_)
            | Self::Download(_)
            | Self::Archive { .. }
            | Self::Store(_)
            | Self::Io(_) => return None,
        };
        Some(help.to_owned())
    }
}

/// Why a URL gives nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server did not give it.
    #[error("cannot download {shown}")]
    Fetch {
        /// The URL, without credentials.
        shown: String,
        /// Why.
        source: Box<RegistryError>,
    },
    /// It is not what it has to be.
    #[error("{shown} has the digest {got}, not {want} as {by} says")]
    Checksum {
        /// The URL, without credentials.
        shown: String,
        /// What came.
        got: Digest,
        /// What was to come.
        want: Digest,
        /// Who says so.
        by: ChecksumBy,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DownloadError {
    /// What a server answered that did not give the file, in one line that has the address once.
    pub(in crate::executor) fn refusal(&self) -> Option<String> {
        let Self::Fetch { shown, source } = self else { return None };
        let RegistryError::Status { host, status, message, .. } = &**source else { return None };
        Some(format!("cannot download {shown}: {host} answered {status}: {message}"))
    }
}

/// Who says what a download has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChecksumBy {
    /// The Dockerfile.
    Flag,
    /// The lock file of this name.
    LockFile(String),
}

impl std::fmt::Display for ChecksumBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Flag => "--checksum",
            Self::LockFile(file) => file,
        })
    }
}
