//! Errors of the verification.

use std::io;

use crate::oci::Digest;
use crate::pathio::PathError;

/// A violation found in a layout.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The layout itself cannot be read.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A file of the layout cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// Path of the file in the layout.
        file: String,
        /// The error that caused this one.
        source: io::Error,
    },
    /// A file that other documents refer to is missing.
    #[error("{file} is missing")]
    Missing {
        /// Path of the file in the layout.
        file: String,
    },
    /// A document exceeds the size limit of readers.
    #[error("{file} is longer than the limit of {max_bytes} bytes")]
    TooLarge {
        /// Path of the file in the layout.
        file: String,
        /// The limit in bytes.
        max_bytes: u64,
    },
    /// A document is not valid JSON of its kind.
    #[error("{file} is not valid: {reason}")]
    Json {
        /// Path of the file in the layout.
        file: String,
        /// The cause, as text for the message.
        reason: String,
    },
    /// The layout has an unsupported version.
    #[error("the layout has version {found}, not 1.0.0")]
    LayoutVersion {
        /// The version in the file `oci-layout`.
        found: String,
    },
    /// Indexes are nested too deep.
    #[error("indexes are nested too deep")]
    Depth,
    /// A digest has an unsupported algorithm or format.
    #[error("`{digest}` is not a SHA-256 digest")]
    BadDigest {
        /// The invalid digest as text.
        digest: String,
    },
    /// A blob does not match the digest in its name.
    #[error("{file} has the digest {got}")]
    Digest {
        /// Path of the file in the layout.
        file: String,
        /// The digest or size found.
        got: Digest,
    },
    /// A blob does not have the size in its descriptor.
    #[error("{file} has {got} bytes, but its descriptor says {want}")]
    Size {
        /// Path of the file in the layout.
        file: String,
        /// The size according to the descriptor.
        want: u64,
        /// The digest or size found.
        got: u64,
    },
    /// A media type is invalid here, or two documents disagree.
    #[error("{file} has the media type `{media_type}`, which is invalid here")]
    MediaType {
        /// Path of the file in the layout.
        file: String,
        /// The media type as text.
        media_type: String,
    },
    /// Index and config disagree about the platform.
    #[error("the index says {stated}, but the config says {platform}")]
    Platform {
        /// The platform in the index.
        stated: String,
        /// The value in the config.
        platform: String,
    },
    /// The numbers of layers, DiffIDs and history entries differ.
    #[error(
        "{file} has {n_layers} layers, its config {n_diff_ids} and its history {n_history} of them"
    )]
    Counts {
        /// Path of the manifest.
        file: String,
        /// Number of layers in the manifest.
        n_layers: usize,
        /// Number of DiffIDs in the config.
        n_diff_ids: usize,
        /// Number of history entries with a layer.
        n_history: usize,
    },
    /// A layer does not have the DiffID in the config.
    #[error("{file} has the DiffID {got}, but the config says {want}")]
    DiffId {
        /// Path of the layer's blob.
        file: String,
        /// The value in the config.
        want: String,
        /// The digest of the uncompressed layer.
        got: Digest,
    },
    /// The path of an entry leads out of the root.
    #[error("{file} has an entry named {name}")]
    Name {
        /// Path of the layer's blob.
        file: String,
        /// The path of the entry.
        name: String,
    },
    /// A whiteout removes a path that does not exist below.
    #[error("{file} removes {name}, which no layer below has")]
    Whiteout {
        /// Path of the layer's blob.
        file: String,
        /// The path that it removes.
        name: String,
    },
    /// The target of a hard link does not exist.
    #[error("{file} links {name} to {target}, which is not there")]
    HardLink {
        /// Path of the layer's blob.
        file: String,
        /// The path of the link.
        name: String,
        /// The missing target of the link.
        target: String,
    },
    /// `manifest.json` disagrees with the index.
    #[error(
        "manifest.json names the config {config}, which has other layers or does not belong to an image"
    )]
    DockerEntry {
        /// The config's path in `manifest.json`.
        config: String,
    },
}
