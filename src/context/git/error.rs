//! Errors of git operations. They contain no credentials.

use crate::pathio::PathError;

/// The reason why a repository could not be checked out. No variant contains a credential.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program `git` is not installed.
    #[error("cannot fetch {remote}: the program `git` is not installed")]
    NoProgram {
        /// The repository's address, without secrets.
        remote: String,
    },
    /// The address requires ssh, but no agent is available.
    #[error("{remote} requires ssh, but the build has no ssh agent")]
    NoAgent {
        /// The repository's address, without secrets.
        remote: String,
    },
    /// Git failed with an error.
    #[error("git cannot {what} {remote}: {words}")]
    Failed {
        /// The operation, as in "fetch".
        what: &'static str,
        /// The repository's address, without secrets.
        remote: String,
        /// The error lines of git's output.
        words: String,
    },
    /// Git exceeded the time limit.
    #[error("git did not {what} {remote} within {minutes} minutes")]
    TimedOut {
        /// The operation, as in "fetch".
        what: &'static str,
        /// The repository's address, without secrets.
        remote: String,
        /// The limit, in the unit of the message.
        minutes: u64,
    },
    /// Git's output exceeded the limit.
    #[error(
        "git was killed when asked to {what} {remote}: its output exceeds {limit} bytes; the repository has too many files or references"
    )]
    LongOutput {
        /// The operation, as in "fetch".
        what: &'static str,
        /// The repository's address, without secrets.
        remote: String,
        /// The limit, in the unit of the message.
        limit: u64,
    },
    /// The files exceed the size limit.
    #[error(
        "the files of {remote} have {total} bytes, more than the limit of {limit}; raise it with --max-unpacked-size"
    )]
    TooLarge {
        /// The repository's address, without secrets.
        remote: String,
        /// Total size of the files in bytes.
        total: u64,
        /// The limit, in the unit of the message.
        limit: u64,
    },
    /// The disk lacks space for the files.
    #[error("not enough disk space to {what} {remote}")]
    NoSpaceLeft {
        /// The operation, as in "fetch".
        what: &'static str,
        /// The repository's address, without secrets.
        remote: String,
        /// The error that caused this one.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller cancelled the operation.
    #[error("the build was cancelled")]
    Stopped,
    /// The reference does not exist.
    #[error("the repository {remote} does not contain ref {reference}")]
    NoReference {
        /// The repository's address, without secrets.
        remote: String,
        /// The reference that was requested.
        reference: String,
        /// A reference with a similar name.
        nearest: Option<String>,
    },
    /// The commit does not match the checksum.
    #[error("expected checksum of {remote} to match {want}, got {got}")]
    Checksum {
        /// The repository's address, without secrets.
        remote: String,
        /// The expected commit or prefix.
        want: String,
        /// The commit that was found.
        got: String,
    },
    /// The directory does not exist in the repository.
    #[error("the repository has no directory {directory}")]
    NoDirectory {
        /// The directory that was requested.
        directory: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
}
