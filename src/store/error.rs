//! Errors of the store.

use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::oci::{DiffId, Digest};
use crate::pathio::PathError;
use crate::tree::TreePath;

use super::layer_diff::LayerError;
use super::unpack::UnpackError;
use super::{LockHolders, NoSpace};

/// A failed operation of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A later rbuild created the store.
    #[error(
        "the store {} has format {found}, but this rbuild supports format {known}; use the rbuild that created it, \
         or another store with --root DIR",
        root.display()
    )]
    Version {
        /// Directory of the store.
        root: PathBuf,
        /// Its format number, as the file has it.
        found: String,
        /// Format number that this rbuild supports.
        known: &'static str,
    },
    /// The file with the format number is damaged.
    #[error("{} is damaged; run `rbuild store verify --repair`", path.display())]
    DamagedVersion {
        /// Path of the file.
        path: PathBuf,
    },
    /// The path of the store is too long for SQLite.
    #[error(
        "the path of the store has {n_bytes} bytes, but its index can only be opened by paths of up to {most}; \
         use a directory with a shorter path: --root DIR"
    )]
    LongPath {
        /// Length of the path, bytes.
        n_bytes: usize,
        /// Maximum length, bytes.
        most: usize,
    },
    /// Other users can put another directory in the place of the store.
    #[error(
        "{} cannot be used as a store: {reason}, so other users could replace it; {remedy}, or use another \
         directory with --root DIR",
        path.display()
    )]
    Replaceable {
        /// Directory of the store.
        path: PathBuf,
        /// The directory above it that other users control, and which users.
        reason: String,
        /// The command that closes it.
        remedy: String,
    },
    /// Other users can have written to the store.
    #[error(
        "{} cannot be used as a store: {reason}; run rbuild as the owner of the store, or use another one \
         with --root DIR; if no other user can have written to this one, take it over with `chown -R` and \
         `chmod -R go-w`",
        path.display()
    )]
    Unsafe {
        /// The directory of the store, or an entry of it.
        path: PathBuf,
        /// The owner, mode or file type that is not accepted.
        reason: String,
    },
    /// The content of a blob does not match its digest.
    #[error(
        "blob {want} in the store is damaged (its content has the digest {got}); {}",
        if *is_removed { "it has been removed: run the command again to rebuild it" }
        else { "remove it with `rbuild prune --all`" }
    )]
    Corrupt {
        /// Digest in its name.
        want: Digest,
        /// Digest of its content.
        got: Digest,
        /// True if it was removed from the store.
        is_removed: bool,
    },
    /// An unpacked layer does not match its listing.
    #[error(
        "the unpacked layer {layer} in the store is damaged: {path}: {reason}; {}",
        if *is_removed { "it is no longer used: run the command again to unpack the layer again" }
        else { "run `rbuild store verify --repair`" }
    )]
    DamagedLayer {
        /// The layer.
        layer: DiffId,
        /// The first entry that differs.
        path: TreePath,
        /// The difference from the listing.
        reason: String,
        /// True if the directory was set aside and the layer can be unpacked again.
        is_removed: bool,
    },
    /// The bytes of a layer do not match the DiffID in the image's config (image-spec, config.md,
    /// `rootfs.diff_ids`).
    #[error("a layer unpacks to {got}, but the image config lists {want}: the image is damaged")]
    WrongDiffId {
        /// DiffID in the config.
        want: DiffId,
        /// DiffID of the bytes.
        got: DiffId,
    },
    /// The bytes of a cache mount's archive do not match the record of the cache.
    #[error("the archive of a cache mount unpacks to {got} instead of {want}: it is damaged")]
    WrongArchive {
        /// DiffID in the record.
        want: DiffId,
        /// DiffID of the bytes.
        got: DiffId,
    },
    /// The archive of a cache mount is invalid.
    #[error("cannot unpack the archive of a cache mount")]
    UnpackCache(#[source] UnpackError),
    /// A blob or layer that a record names does not exist.
    #[error("the store lacks {what}; run the build again with --no-cache")]
    Missing {
        /// Kind and identity of the missing object, as in `the layer sha256:…`.
        what: String,
    },
    /// A directory of the store has owners that the user namespace of this process lacks.
    #[error(
        "{} was created under other user and group ids than this process has (the subordinate ids in \
         /etc/subuid and /etc/subgid changed, or it was another container), and cannot be used under \
         these; build the image again, or remove the directory as root",
        path.display()
    )]
    OtherIds {
        /// The directory.
        path: PathBuf,
    },
    /// Another process uses the store.
    #[error("the store {} is in use by {holders}; try again when it has ended", root.display())]
    InUse {
        /// Directory of the store.
        root: PathBuf,
        /// The processes that use it.
        holders: LockHolders,
    },
    /// A record of the index, or a listing, cannot be read.
    #[error("a record of the store is damaged: {}: {reason}; run `rbuild store verify --repair`", path.display())]
    Record {
        /// The index or the listing.
        path: PathBuf,
        /// Description of the fault.
        reason: String,
    },
    /// SQLite reports an error.
    #[error("cannot use the index {}{}", path.display(), repair_hint(source))]
    Index {
        /// Path of the index.
        path: PathBuf,
        /// Error of SQLite.
        source: rusqlite::Error,
    },
    /// The index is empty although the store is not.
    #[error(
        "the index {} is missing, but the store holds images or layers; rebuild the index from them with \
         `rbuild store verify --repair`",
        path.display()
    )]
    LostIndex {
        /// Path of the index.
        path: PathBuf,
    },
    /// A later rbuild changed the tables of the index.
    #[error(
        "the index {} has version {found}, but this rbuild supports version {known}: a later rbuild has used the \
         store; use that one, or another store with --root DIR",
        path.display()
    )]
    NewerIndex {
        /// Path of the index.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Version that this rbuild supports.
        known: i64,
    },
    /// The archive of a layer in the store cannot be unpacked.
    #[error("cannot unpack the layer {layer}")]
    UnpackLayer {
        /// The layer.
        layer: DiffId,
        /// The fault of the archive.
        source: UnpackError,
    },
    /// The archive of a new layer cannot be unpacked.
    #[error("cannot unpack a layer")]
    Unpack(#[from] UnpackError),
    /// The files of a step exceed the bound on the unpacked size of a layer.
    #[error(
        "the step left {total} bytes of files, more than the limit of {limit}; the largest file is {path} with {size} \
         bytes; remove files that are not needed in the same step, or raise the limit with --max-unpacked-size"
    )]
    LayerTooLarge {
        /// Bytes of all files.
        total: u64,
        /// Maximum number of bytes.
        limit: u64,
        /// The largest file.
        path: TreePath,
        /// Length of the largest file, bytes.
        size: u64,
    },
    /// A file has a name that is a whiteout in a layer (image-spec, layer.md, "Whiteouts").
    #[error(
        "{path} cannot be in an image: in layers, names that begin with `.wh.` mark removed files"
    )]
    ReservedName {
        /// The file.
        path: TreePath,
    },
    /// The file system has too little space for a file that is to be written.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// The tar of a layer cannot be written.
    #[error("cannot write a layer")]
    Archive(#[from] ArchiveError),
    /// The files that a step left cannot be written as a layer.
    #[error("cannot write a layer")]
    Layer(#[from] LayerError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
}

impl StoreError {
    /// Returns whether the index is damaged, so that it has to be rebuilt.
    pub(super) fn is_index_damage(&self) -> bool {
        if let Self::Index { source, .. } = self {
            return is_sqlite_damage(source);
        }
        matches!(self, Self::LostIndex { .. } | Self::Record { .. })
    }
}

/// Returns whether SQLite reports a malformed file: `SQLITE_CORRUPT` or `SQLITE_NOTADB`
/// (<https://www.sqlite.org/rescode.html>).
fn is_sqlite_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// Returns the end of the message that names the command for a damaged index.
fn repair_hint(error: &rusqlite::Error) -> &'static str {
    if is_sqlite_damage(error) { ": it is damaged; run `rbuild store verify --repair`" } else { "" }
}
