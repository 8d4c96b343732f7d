//! Reasons why an archive cannot be unpacked.

use crate::archive::ArchiveError;
use crate::diag;
use crate::pathio::PathError;
use crate::store::NoSpace;
use crate::tree::TreePath;

/// An archive that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file cannot be made.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A name that no file can have.
    #[error("the archive has an entry named `{name}`, which no file can be called")]
    Name {
        /// The name, bytes that are no UTF-8 replaced.
        name: String,
    },
    /// Links that lead in a circle.
    #[error("the archive's symbolic links on the way to {path} go in a circle")]
    LinkLoop {
        /// The path at which they were found.
        path: TreePath,
    },
    /// A hard link to something that is not there, or cannot have two names.
    #[error("the archive's hard link {path} leads to {target}, which is not a file of the archive")]
    LinkTarget {
        /// The link.
        path: TreePath,
        /// Its target, after resolution.
        target: TreePath,
    },
    /// A file whose parent is not a directory.
    #[error("the archive has {path}, but {parent}, which came before, is not a directory")]
    NotADirectory {
        /// The file.
        path: TreePath,
        /// The parent that is not a directory.
        parent: TreePath,
    },
    /// A device that no layer can have.
    #[error(
        "the archive has a character device 0, 0 at {path}, which overlayfs takes for the mark of a removed file"
    )]
    WhiteoutDevice {
        /// The entry.
        path: TreePath,
    },
    /// There is no space for an entry.
    #[error("there is no space for {path}, which has {}", diag::size(*size))]
    NoSpace {
        /// The entry.
        path: TreePath,
        /// The length of its content, holes not counted.
        size: u64,
        /// The space that is free.
        source: NoSpace,
    },
    /// Entries replace each other, again and again.
    #[error(
        "the archive replaces its own entries so often that unpacking would take very long; pack it without the entries that are replaced"
    )]
    Replaces,
}
