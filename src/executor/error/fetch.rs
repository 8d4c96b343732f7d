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

/// An error while fetching an input from outside.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A download failed.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A repository could not be used.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A context is not a valid archive.
    #[error("cannot unpack the context {shown}")]
    Archive {
        /// The context, without credentials.
        shown: String,
        /// The error of the archive.
        source: Box<UnpackError>,
    },
    /// The input differs from the lock file.
    #[error(transparent)]
    Locked(#[from] Box<LockViolation>),
    /// `--offline` forbids the request.
    #[error("{what} would have to be fetched, which --offline forbids")]
    Offline {
        /// The input that is not in the store.
        what: String,
    },
    /// The store failed to read or write.
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

    /// Returns advice that fits the error.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Download(DownloadError::Checksum { by: ChecksumBy::LockFile(_), .. }) => {
                "if the new content is right, accept it with `rbuild lock --update`"
            }
            Self::Locked(violation) => violation.help(),
            Self::Download(DownloadError::Fetch { source, .. })
                if matches!(**source, RegistryError::Status { status: 404 | 410, .. }) =>
            {
                "check the URL: the file may have been renamed, or its version removed"
            }
            Self::Offline { .. } => "run a build without --offline to fetch it",
            Self::Download(DownloadError::Checksum { .. })
            | Self::Git(GitError::Checksum { .. }) => {
                "if the new content is right, replace the checksum with that of the new content"
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

/// An error of a download.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server did not send the file.
    #[error("cannot download {shown}")]
    Fetch {
        /// The URL, without credentials.
        shown: String,
        /// The error of the request.
        source: Box<RegistryError>,
    },
    /// The content has another digest than required.
    #[error("{shown} has the digest {got}, not {want} as {by} says")]
    Checksum {
        /// The URL, without credentials.
        shown: String,
        /// Digest of what was downloaded.
        got: Digest,
        /// Digest that is required.
        want: Digest,
        /// The source of the required digest.
        by: ChecksumBy,
    },
    /// The store failed to read or write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DownloadError {
    /// Returns the server's refusal in one line that has the address once.
    pub(in crate::executor) fn refusal(&self) -> Option<String> {
        let Self::Fetch { shown, source } = self else { return None };
        let RegistryError::Status { host, status, message, .. } = &**source else { return None };
        Some(format!("cannot download {shown}: {host} answered {status}: {message}"))
    }
}

/// The source of a required digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChecksumBy {
    /// `--checksum` in the Dockerfile.
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
