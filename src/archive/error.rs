//! What can go wrong with archives and listings.

use std::io;

use crate::tree::TreePath;

use super::bounds::TooLarge;

/// A tar that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream under the reader failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream under the writer failed.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// A file that is to be archived cannot be read.
    #[error("cannot read {path}")]
    Content {
        /// The file's path in the layer.
        path: TreePath,
        /// Why.
        source: io::Error,
    },
    /// A file is shorter or longer than its listing says.
    #[error("{path} is not {want} bytes long: it changed while it was read")]
    SizeChanged {
        /// The file's path in the layer.
        path: TreePath,
        /// The length in the listing.
        want: u64,
    },
    /// A file does not hold what its listing says.
    #[error("{path} changed while it was being copied; build again when nothing writes to it")]
    ContentChanged {
        /// The file's path in the layer.
        path: TreePath,
    },
    /// Something that a tar cannot say, such as an entry for the root.
    #[error("{path} cannot stand in an archive: {what}")]
    Unwritable {
        /// The path in the layer.
        path: TreePath,
        /// Why.
        what: &'static str,
    },
    /// The bytes are no tar.
    #[error("the archive is damaged near byte {at}: {what}")]
    Malformed {
        /// Offset in the tar, bytes.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The stream ends inside an entry.
    #[error("the archive ends at byte {at}, in the middle of an entry")]
    Truncated {
        /// Offset in the tar, bytes.
        at: u64,
    },
    /// A kind of entry that is not for file trees.
    #[error("the archive has an entry of the unknown kind {kind:?} near byte {at}")]
    UnknownKind {
        /// Offset in the tar, bytes.
        at: u64,
        /// The type flag.
        kind: char,
    },
    /// It holds more than it may.
    #[error(transparent)]
    Bounds(#[from] TooLarge),
    /// Something is larger than any honest archive needs.
    #[error("the archive has {what} of more than {limit} near byte {at}")]
    TooLarge {
        /// Offset in the tar, bytes.
        at: u64,
        /// What is too large.
        what: &'static str,
        /// What is allowed.
        limit: u64,
    },
}

/// Bytes that are no stored listing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// They begin differently, or with a version from the future.
    #[error("this is no layer listing of a version that is known here")]
    UnknownVersion,
    /// They are not those that were written.
    #[error("the layer listing is damaged: its checksum is another")]
    WrongChecksum,
    /// They break off or contradict themselves.
    #[error("the layer listing is damaged near byte {at}")]
    Damaged {
        /// Offset, bytes.
        at: usize,
    },
}
