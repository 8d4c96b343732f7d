//! What keeps an image from being written out.

use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::oci::{ConfigError, Digest, ManifestError};
use crate::pathio::PathError;
use crate::registry::RegistryError;
use crate::store::StoreError;
use crate::tree::TreePath;

/// Why an image could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store does not give what the image needs.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
    /// An archive could not be written.
    #[error("the archive cannot be written")]
    Archive(#[from] ArchiveError),
    /// The registry does not take the image.
    #[error("cannot push {name}")]
    Registry {
        /// The image's name there.
        name: String,
        /// The registry's answer.
        source: RegistryError,
    },
    /// The registry has an index under the name, and the push would drop some of its platforms.
    #[error(
        "{name} is an index for {had} in its registry, and would be for {left} only: {lost} would be \
         lost; push all platforms together, take another tag, or drop them with --replace-index"
    )]
    Dropped {
        /// The image's name there.
        name: String,
        /// The platforms that the index is for.
        had: String,
        /// Those of the push.
        left: String,
        /// Those that only the index has.
        lost: String,
    },
    /// The registry does not give the image.
    #[error("cannot read {name}")]
    Remote {
        /// The image.
        name: String,
        /// The registry's answer.
        source: RegistryError,
    },
    /// The image is for other platforms.
    #[error("{name} has nothing for {wanted}, only {has}")]
    NoPlatform {
        /// The image.
        name: String,
        /// The platform that was requested.
        wanted: String,
        /// The platforms that are available.
        has: String,
    },
    /// A layer cannot be had from where it is known to be.
    #[error("cannot get a layer from {place}")]
    Origin {
        /// The repository.
        place: String,
        /// The registry's answer.
        source: RegistryError,
    },
    /// A layer cannot be had from the OCI layout where it is known to be.
    #[error("cannot get a layer")]
    Layout(#[source] Box<super::LayoutError>),
    /// A place gives other bytes than it said.
    #[error("the blob {want} at {place} holds {got}")]
    WrongBlob {
        /// The repository or layout.
        place: String,
        /// The digest that it was to have.
        want: Digest,
        /// The digest that it has.
        got: Digest,
    },
    /// The manifest in the store is none.
    #[error("the image {manifest} cannot be read")]
    Manifest {
        /// Its digest.
        manifest: Digest,
        /// The underlying error.
        source: ManifestError,
    },
    /// The config in the store is none.
    #[error("the image {manifest} cannot be read")]
    Config {
        /// The digest of the manifest.
        manifest: Digest,
        /// What is wrong with the config.
        source: ConfigError,
    },
    /// The digest names several images, of which one must be chosen.
    #[error("{manifest} stands for several images; choose one by its platform")]
    Index {
        /// The digest.
        manifest: Digest,
    },
    /// Manifest and config do not belong together.
    #[error("the manifest {manifest} has {n_layers} layers, but its config {n_diff_ids}")]
    LayerCount {
        /// The manifest's digest.
        manifest: Digest,
        /// Layers of the manifest.
        n_layers: usize,
        /// Layers of the config.
        n_diff_ids: usize,
    },
    /// A layer of the image is of a kind that rbuild does not know.
    #[error("the image {manifest} has a layer of type {media_type}, which is no layer")]
    LayerType {
        /// The manifest's digest.
        manifest: Digest,
        /// The type.
        media_type: String,
    },
    /// Too many images for the target, or none.
    #[error(
        "a docker archive takes one image, any other target at least one; there are {n_images}"
    )]
    ImageCount {
        /// How many there are.
        n_images: usize,
    },
    /// What is in the target directory is no OCI layout that an image can be added to.
    #[error("{} is not the index of an OCI layout: {reason}; remove it or choose another directory", path.display())]
    NoLayout {
        /// The file.
        path: PathBuf,
        /// The reason, as text.
        reason: String,
    },
}

/// Files and attributes that a directory does not get unless that was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Number of devices.
    pub devices: usize,
    /// Number of files and directories that lost set-user-ID or set-group-ID bits.
    pub set_ids: usize,
    /// Number of attributes such as file capabilities.
    pub attributes: usize,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [
            (self.devices, "devices"),
            (self.set_ids, "set-user-ID and set-group-ID bits"),
            (self.attributes, "attributes such as file capabilities"),
        ];
        let parts = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// Something that a directory could not take; the rest was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A device, which an ordinary user cannot make.
    #[error("{path} is a device, which only root can make: it was left out")]
    Device {
        /// Where it would be.
        path: TreePath,
    },
    /// An extended attribute.
    #[error(
        "{path} has lost its attribute {name}: only root can set it, and not on every file system"
    )]
    Attribute {
        /// The file.
        path: TreePath,
        /// The attribute's name.
        name: String,
    },
    /// Files that could act with the rights of others were left out.
    #[error("left out of {}: {what}; `--allow local.special` keeps them", directory.display())]
    LeftOut {
        /// The directory that was written.
        directory: PathBuf,
        /// The number of files.
        what: LeftOut,
    },
    /// Owners that this user namespace does not have.
    #[error("some files have lost their owners, which do not exist here")]
    Owners,
}
