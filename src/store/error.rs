//! What can go wrong in the store.

use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::oci::{DiffId, Digest};
use crate::pathio::PathError;
use crate::tree::TreePath;

use super::NoSpace;
use super::alone::Users;
use super::layer_diff::LayerError;
use super::unpack::UnpackError;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another rbuild made the store.
    #[error(
        "the store {} has format {found}, this rbuild knows {known}; use the rbuild that made it, or another --root",
        root.display()
    )]
    Version {
        /// The store's directory.
        root: PathBuf,
        /// Its format number.
        found: String,
        /// The number that this rbuild knows.
        known: &'static str,
    },
    /// The file with the store's format number is damaged.
    #[error("{} is damaged; run `rbuild store verify --repair`", path.display())]
    DamagedVersion {
        /// The file.
        path: PathBuf,
    },
    /// The index cannot be opened by a path as long as this.
    #[error(
        "the store's path is {n_bytes} bytes long, and its index cannot be opened by more than {most}; \
         give a directory with a shorter path with --root DIR"
    )]
    LongPath {
        /// Length of the path, bytes.
        n_bytes: usize,
        /// The longest that works.
        most: usize,
    },
    /// Others can put another directory in the place of the store.
    #[error(
        "{} cannot be used as a store: {reason}, and can so be replaced by others; {remedy}, or give \
         another directory with --root DIR",
        path.display()
    )]
    Replaceable {
        /// The store's directory.
        path: PathBuf,
        /// The directory above it that others control, and who they are.
        reason: String,
        /// The command that closes it.
        remedy: String,
    },
    /// Others could have written into the store.
    #[error(
        "{} cannot be used as a store: {reason}; run rbuild as the owner of the store, or give another \
         one with --root DIR; if nobody else can have written into this one, make it your own with \
         `chown -R` and `chmod -R go-w`",
        path.display()
    )]
    Unsafe {
        /// The store's directory, or what it holds.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A blob does not hold what its name says.
    #[error(
        "the blob {want} of the store is damaged (it holds {got}); {}",
        if *is_removed { "it has been removed: run the command again to rebuild it" }
        else { "remove it with `rbuild prune --all`" }
    )]
    Corrupt {
        /// Its name.
        want: Digest,
        /// Its content.
        got: Digest,
        /// True if it was removed from the store.
        is_removed: bool,
    },
    /// An unpacked layer is not what its listing says.
    #[error(
        "the unpacked layer {layer} of the store is damaged: {path}: {reason}; {}",
        if *is_removed { "it is not used again, and the next try unpacks it again" }
        else { "run `rbuild store verify --repair`" }
    )]
    DamagedLayer {
        /// The layer.
        layer: DiffId,
        /// The first entry that differs.
        path: TreePath,
        /// How it differs.
        reason: String,
        /// True if it was taken out of use, and can be unpacked again.
        is_removed: bool,
    },
    /// A layer's bytes are not those that the image's config promises.
    #[error("a layer unpacks to {got}, but the image's config says {want}: the image is damaged")]
    WrongDiffId {
        /// What the config says.
        want: DiffId,
        /// What was unpacked.
        got: DiffId,
    },
    /// The archive of a cache mount is another one than its place said.
    #[error("the archive of a cache mount unpacks to {got}, not to {want}: it is damaged")]
    WrongArchive {
        /// What was promised.
        want: DiffId,
        /// What was unpacked.
        got: DiffId,
    },
    /// The archive of a cache mount is not good.
    #[error("the archive of a cache mount cannot be unpacked")]
    UnpackCache(#[source] UnpackError),
    /// A blob or layer that a record names is not there.
    #[error("the store lacks {what}; run the build again with --no-cache")]
    Missing {
        /// What is not there.
        what: String,
    },
    /// A directory of the store has owners that this process's user namespace lacks.
    #[error(
        "{} was made under other user and group ids than this process has (the subordinate ids of \
         /etc/subuid and /etc/subgid changed, or it was another container), and cannot be used under \
         these; build the image again, or remove the directory as root",
        path.display()
    )]
    OtherIds {
        /// The directory.
        path: PathBuf,
    },
    /// Another process uses the store.
    #[error("another rbuild uses the store {}: {users}; try again when it is done", root.display())]
    InUse {
        /// The store's directory.
        root: PathBuf,
        /// The processes that use it.
        users: Users,
    },
    /// A record in the index is not readable.
    #[error("a record of the store is damaged: {}: {reason}; run `rbuild store verify --repair`", path.display())]
    Record {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The index could not be used.
    #[error("cannot use the index {}{}", path.display(), way_out(source))]
    Index {
        /// The index.
        path: PathBuf,
        /// SQLite's own error.
        source: rusqlite::Error,
    },
    /// The index is empty, and the store is not.
    #[error(
        "the index {} was lost, and the store holds images or layers; rebuild it from them: \
         run `rbuild store verify --repair`",
        path.display()
    )]
    LostIndex {
        /// The index.
        path: PathBuf,
    },
    /// A later rbuild made the index.
    #[error(
        "the index {} has version {found}, and this rbuild knows {known}: a later one has used the store; \
         use that, or give another store with --root DIR",
        path.display()
    )]
    NewerIndex {
        /// The index.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version that this rbuild knows.
        known: i64,
    },
    /// A layer's archive cannot be unpacked.
    #[error("cannot unpack the layer {layer}")]
    UnpackLayer {
        /// The layer.
        layer: DiffId,
        /// Why.
        source: UnpackError,
    },
    /// A layer's archive is not good.
    #[error("a layer cannot be unpacked")]
    Unpack(#[from] UnpackError),
    /// A step left more than a layer may hold.
    #[error(
        "the step left {total} bytes of files, of which {path} has {size}, and the limit is {limit}; remove in the same step what is not needed, or allow more with --max-unpacked-size"
    )]
    LayerTooLarge {
        /// Bytes of all files.
        total: u64,
        /// The limit.
        limit: u64,
        /// The largest file.
        path: TreePath,
        /// Its length.
        size: u64,
    },
    /// A step made a file whose name means in a layer that another one is removed.
    #[error("{path} cannot be in an image: names that begin with `.wh.` mark removed files there")]
    ReservedName {
        /// The file.
        path: TreePath,
    },
    /// The file system has no space for what is to be written.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// A layer could not be written.
    #[error("a layer cannot be written")]
    Archive(#[from] ArchiveError),
    /// What a step wrote could not be made a layer.
    #[error("a layer cannot be written")]
    Layer(#[from] LayerError),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
}

impl StoreError {
    /// Returns whether the index is damaged, so that it has to be rebuilt.
    pub(super) fn is_of_index(&self) -> bool {
        if let Self::Index { source, .. } = self {
            return is_damage(source);
        }
        matches!(self, Self::LostIndex { .. } | Self::Record { .. })
    }
}

/// True of an error that SQLite reports of a file that it cannot read.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// The command that repairs a damaged index.
fn way_out(error: &rusqlite::Error) -> &'static str {
    if is_damage(error) { ": it is damaged; run `rbuild store verify --repair`" } else { "" }
}
