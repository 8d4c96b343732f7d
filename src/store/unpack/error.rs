//! Reasons why an archive cannot be unpacked.

use crate::archive::ArchiveError;
use crate::diag;
use crate::pathio::PathError;
use crate::store::NoSpace;
use crate::tree::TreePath;

/// An archive that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive cannot be read, or exceeds a bound.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file cannot be created.
    #[error(transparent)]
    Io(#[from] PathError),
    /// An entry has a name that is empty, contains a NUL byte, or leads out of the directory.
    #[error("the archive has an entry named `{name}`, which is not a valid file name")]
    Name {
        /// The name; bytes that are not UTF-8 are replaced.
        name: String,
    },
    /// Symbolic links form a loop.
    #[error("the archive's symbolic links on the path to {path} form a loop")]
    LinkLoop {
        /// The path whose resolution failed.
        path: TreePath,
    },
    /// The target of a hard link is missing, or cannot have two names.
    #[error(
        "the archive's hard link {path} points to {target}, which is not a file of the archive"
    )]
    LinkTarget {
        /// The link.
        path: TreePath,
        /// Its target, after resolution.
        target: TreePath,
    },
    /// The parent of a file is not a directory.
    #[error("the archive has {path}, but the earlier entry {parent} is not a directory")]
    NotADirectory {
        /// The file.
        path: TreePath,
        /// The parent that is not a directory.
        parent: TreePath,
    },
    /// A character device 0/0, which is a whiteout in an overlay
    /// (<https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories>).
    #[error(
        "the archive has a character device 0/0 at {path}, which overlayfs treats as the mark of a removed file"
    )]
    WhiteoutDevice {
        /// Path of the device.
        path: TreePath,
    },
    /// The file system has too little space for an entry.
    #[error("not enough space for {path} ({})", diag::size(*size))]
    NoSpace {
        /// Path of the entry.
        path: TreePath,
        /// Length of its content without holes, bytes.
        size: u64,
        /// The free and the reserved space.
        source: NoSpace,
    },
    /// Entries replace each other so often that unpacking would take too long.
    #[error(
        "the archive replaces its own entries so often that unpacking would take very long; pack it again without \
         the replaced entries"
    )]
    Replaces,
}
