//! What may be wrong with a layout.

use std::io;

use crate::oci::Digest;
use crate::pathio::PathError;

/// What is wrong with a layout.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The layout itself cannot be read.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A file of the layout cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// The file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// A file that others name is not there.
    #[error("{file} is missing")]
    Missing {
        /// The file.
        file: String,
    },
    /// A document is longer than anybody reads.
    #[error("{file} is longer than the limit of {max_bytes} bytes")]
    TooLarge {
        /// The file.
        file: String,
        /// The limit.
        max_bytes: u64,
    },
    /// A document is not what its place says.
    #[error("{file} is not valid: {reason}")]
    Json {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The layout is of another version.
    #[error("the layout has version {found}, not 1.0.0")]
    LayoutVersion {
        /// The version.
        found: String,
    },
    /// Indexes name indexes too often.
    #[error("the index names indexes that name indexes, too deep")]
    Depth,
    /// A digest that is no SHA-256.
    #[error("`{digest}` is not a SHA-256 digest")]
    BadDigest {
        /// The digest.
        digest: String,
    },
    /// A blob has other bytes than its name says.
    #[error("{file} has the digest {got}")]
    Digest {
        /// The file.
        file: String,
        /// What it has.
        got: Digest,
    },
    /// A blob has another length than its descriptor says.
    #[error("{file} has {got} bytes, its descriptor says {want}")]
    Size {
        /// The file.
        file: String,
        /// What the descriptor says.
        want: u64,
        /// What it has.
        got: u64,
    },
    /// A media type is not one for this place, or two places differ.
    #[error("{file} has the media type `{media_type}`, which does not fit")]
    MediaType {
        /// The file.
        file: String,
        /// The type.
        media_type: String,
    },
    /// Index and config differ.
    #[error("the index says {stated}, the config {platform}")]
    Platform {
        /// What the index says.
        stated: String,
        /// What the config says.
        platform: String,
    },
    /// Layers, DiffIds and history do not add up.
    #[error(
        "{file} has {n_layers} layers, its config {n_diff_ids} and its history {n_history} of them"
    )]
    Counts {
        /// The manifest.
        file: String,
        /// Its layers.
        n_layers: usize,
        /// DiffIds in the config.
        n_diff_ids: usize,
        /// Entries of the history that have a layer.
        n_history: usize,
    },
    /// A layer is not the one that the config means.
    #[error("{file} unpacks to {got}, the config says {want}")]
    DiffId {
        /// The layer.
        file: String,
        /// What the config says.
        want: String,
        /// What it is.
        got: Digest,
    },
    /// A name in a layer leads out of the root.
    #[error("{file} has an entry named {name}")]
    Name {
        /// The layer.
        file: String,
        /// The name.
        name: String,
    },
    /// A whiteout has nothing to remove.
    #[error("{file} removes {name}, which no layer below has")]
    Whiteout {
        /// The layer.
        file: String,
        /// What it removes.
        name: String,
    },
    /// A hard link leads nowhere.
    #[error("{file} links {name} to {target}, which is not there")]
    HardLink {
        /// The layer.
        file: String,
        /// The link.
        name: String,
        /// Its target.
        target: String,
    },
    /// `manifest.json` says something else than the index.
    #[error("manifest.json names the config {config}, which has other layers or is no image's")]
    DockerEntry {
        /// The config.
        config: String,
    },
}
