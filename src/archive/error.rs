//! The errors of archives and listings.

use std::io;

use crate::tree::TreePath;

use super::bounds::TooLarge;

/// The reason why a tar cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream under the reader failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream under the writer failed.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// A file to be archived cannot be read.
    #[error("cannot read {path}")]
    Content {
        /// The path in the layer.
        path: TreePath,
        /// The error of the file.
        source: io::Error,
    },
    /// A file is shorter or longer than its listing states.
    #[error("{path} is not {want} bytes long: it changed while it was being read")]
    SizeChanged {
        /// The path in the layer.
        path: TreePath,
        /// The length in the listing, in bytes.
        want: u64,
    },
    /// The content of a file differs from its listing.
    #[error("{path} changed while it was being copied; build again when nothing writes to it")]
    ContentChanged {
        /// The path in the layer.
        path: TreePath,
    },
    /// Something that a tar cannot represent, such as an entry for the root.
    #[error("cannot store {path} in an archive: {what}")]
    Unwritable {
        /// The path in the layer.
        path: TreePath,
        /// The reason.
        what: &'static str,
    },
    /// The bytes are not a valid tar.
    #[error("the archive is damaged near byte {at}: {what}")]
    Malformed {
        /// The offset in the tar, in bytes.
        at: u64,
        /// The defect at this offset.
        what: &'static str,
    },
    /// The stream ends inside an entry.
    #[error("the archive ends at byte {at}, in the middle of an entry")]
    Truncated {
        /// The offset in the tar, in bytes.
        at: u64,
    },
    /// An entry type that does not describe a file.
    #[error("the archive has an entry of unknown type {kind:?} near byte {at}")]
    UnknownKind {
        /// The offset in the tar, in bytes.
        at: u64,
        /// The type flag of the entry.
        kind: char,
    },
    /// The archive exceeds its bounds.
    #[error(transparent)]
    Bounds(#[from] TooLarge),
    /// An element is larger than any honest archive needs.
    #[error("the archive has {what} of more than {limit} near byte {at}")]
    TooLarge {
        /// The offset in the tar, in bytes.
        at: u64,
        /// The element that is too large.
        what: &'static str,
        /// The maximum size or number.
        limit: u64,
    },
}

/// The reason why bytes are not a valid stored listing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// The magic number is another one, or that of a newer version.
    #[error("not a layer listing of a known version")]
    UnknownVersion,
    /// The bytes have changed since they were written.
    #[error("the layer listing is damaged: wrong checksum")]
    WrongChecksum,
    /// The bytes end early or are inconsistent.
    #[error("the layer listing is damaged near byte {at}")]
    Damaged {
        /// The offset in the listing, in bytes.
        at: usize,
    },
    /// A listing of another machine exceeds a bound.
    #[error("the layer listing has too many entries, or too long paths")]
    TooLarge,
}
