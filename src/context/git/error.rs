//! Why a repository gives no files.

use crate::pathio::PathError;

/// Why a repository gives no files. No variant holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no `git`.
    #[error("there is no program `git` here, which is needed to get {remote}")]
    NoProgram {
        /// The repository.
        remote: String,
    },
    /// ssh without an agent.
    #[error("{remote} needs ssh, and the build has no ssh agent")]
    NoAgent {
        /// The repository.
        remote: String,
    },
    /// git ended badly.
    #[error("git cannot {what} {remote}: {words}")]
    Failed {
        /// As in "fetch".
        what: &'static str,
        /// The repository.
        remote: String,
        /// What git said.
        words: String,
    },
    /// git took too long.
    #[error("git did not {what} {remote} within {minutes} minutes")]
    TimedOut {
        /// As in "fetch".
        what: &'static str,
        /// The repository.
        remote: String,
        /// The limit.
        minutes: u64,
    },
    /// git writes more than is read.
    #[error(
        "git was ended, which was to {what} {remote}: it wrote more than {limit} bytes of text; the repository has too many files or references"
    )]
    LongOutput {
        /// As in "fetch".
        what: &'static str,
        /// The repository.
        remote: String,
        /// The limit.
        limit: u64,
    },
    /// The files are too many bytes.
    #[error(
        "the files of {remote} have {total} bytes, more than the limit of {limit}; raise it with --max-unpacked-size"
    )]
    TooLarge {
        /// The repository.
        remote: String,
        /// Bytes of all files.
        total: u64,
        /// The limit.
        limit: u64,
    },
    /// There is no space for the files.
    #[error("there is no space to {what} {remote}")]
    NoSpaceLeft {
        /// As in "fetch".
        what: &'static str,
        /// The repository.
        remote: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller ended it.
    #[error("the build was stopped")]
    Stopped,
    /// There is no such reference.
    #[error("the repository {remote} does not contain ref {reference}")]
    NoReference {
        /// The repository.
        remote: String,
        /// What was looked for.
        reference: String,
        /// One of a similar name.
        nearest: Option<String>,
    },
    /// It is another commit.
    #[error("expected checksum of {remote} to match {want}, got {got}")]
    Checksum {
        /// The repository.
        remote: String,
        /// What it had to be.
        want: String,
        /// The kind of file.
        got: String,
    },
    /// There is no such directory.
    #[error("there is not a directory {directory} in the repository")]
    NoDirectory {
        /// The directory.
        directory: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
}
