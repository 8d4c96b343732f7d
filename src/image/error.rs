//! Errors and warnings of exports.

use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::oci::{ConfigError, Descriptor, Digest, ManifestError};
use crate::pathio::PathError;
use crate::registry::RegistryError;
use crate::store::StoreError;
use crate::tree::TreePath;

/// The reason why an image could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store lacks content of the image, or it is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
    /// An archive could not be written.
    #[error("the archive cannot be written")]
    Archive(#[from] ArchiveError),
    /// The push to the registry failed.
    #[error("cannot push {name}")]
    Registry {
        /// The image's name in the registry.
        name: String,
        /// The error of the registry client.
        source: RegistryError,
    },
    /// The registry has another image under the tag, and does not replace it.
    #[error(
        "cannot push {name}: the registry does not replace this tag; use another tag, or \
         --push-ignore-immutable-tag-errors if the image there will do"
    )]
    ImmutableTag {
        /// The image's name in the registry.
        name: String,
        /// The manifest or index that was to be pushed.
        top: Box<Descriptor>,
        /// The error of the registry client.
        source: RegistryError,
    },
    /// The registry has an index under the name, and the push would remove some of its platforms.
    #[error(
        "the push would remove {lost} from the index {name}, which has {had}, and leave {left}; push \
         all platforms together, use another tag, or remove platforms with --replace-index"
    )]
    Dropped {
        /// The image's name in the registry.
        name: String,
        /// The platforms of the index.
        had: String,
        /// The platforms of the push.
        left: String,
        /// The platforms that only the index has.
        lost: String,
    },
    /// The layers of the old base are not the lowest ones of the image.
    #[error(
        "the image was not built on the old base, so it cannot be rebased onto {name}; name its base with --base"
    )]
    NotABase {
        /// Name of the new base.
        name: String,
    },
    /// The image could not be read from the registry.
    #[error("cannot read {name}")]
    Remote {
        /// The name of the image in the registry.
        name: String,
        /// The error of the registry client.
        source: RegistryError,
    },
    /// The image does not support the requested platform.
    #[error("{name} has no image for {wanted}, only for {has}")]
    NoPlatform {
        /// The name of the image in the registry.
        name: String,
        /// The platform that was requested.
        wanted: String,
        /// The platforms that are available.
        has: String,
    },
    /// Images of registries cannot be joined.
    #[error("cannot join the images: {why}")]
    Join {
        /// The reason as text.
        why: String,
    },
    /// A layer could not be fetched from its known source.
    #[error("cannot get a layer from {place}")]
    Origin {
        /// The repository or bucket directory.
        place: String,
        /// The error of the registry client.
        source: RegistryError,
    },
    /// A layer could not be read from the OCI layout that is its known source.
    #[error("cannot get a layer")]
    Layout(#[source] Box<super::LayoutError>),
    /// A source has other content than expected.
    #[error("the blob {want} at {place} is damaged: its digest is {got}")]
    WrongBlob {
        /// The repository, layout or bucket directory.
        place: String,
        /// The digest of the requested blob.
        want: Digest,
        /// The digest of the content.
        got: Digest,
    },
    /// The manifest in the store is invalid.
    #[error("the image {manifest} cannot be read")]
    Manifest {
        /// The digest of the manifest.
        manifest: Digest,
        /// The error that caused this one.
        source: ManifestError,
    },
    /// The config in the store is invalid.
    #[error("the image {manifest} cannot be read")]
    Config {
        /// The digest of the manifest.
        manifest: Digest,
        /// The error that caused this one.
        source: ConfigError,
    },
    /// The digest refers to an index, and one of its images must be chosen.
    #[error("{manifest} is an index of several images; choose one by its platform")]
    Index {
        /// The digest of the index.
        manifest: Digest,
    },
    /// Manifest and config have different numbers of layers.
    #[error("the manifest {manifest} has {n_layers} layers, but its config {n_diff_ids}")]
    LayerCount {
        /// The digest of the manifest.
        manifest: Digest,
        /// Number of layers in the manifest.
        n_layers: usize,
        /// Number of DiffIDs in the config.
        n_diff_ids: usize,
    },
    /// A layer has an unknown media type.
    #[error("the image {manifest} has a layer of type {media_type}, which is not a layer type")]
    LayerType {
        /// The digest of the manifest.
        manifest: Digest,
        /// The media type as text.
        media_type: String,
    },
    /// The target cannot take this number of images.
    #[error(
        "a docker archive takes one image, any other target at least one; there are {n_images}"
    )]
    ImageCount {
        /// The number of images given.
        n_images: usize,
    },
    /// The target directory is not an OCI layout that an image can be added to.
    #[error("{} is not the index of an OCI layout: {reason}; remove it or choose another directory", path.display())]
    NoLayout {
        /// The path of the file.
        path: PathBuf,
        /// The cause as text.
        reason: String,
    },
}

impl ExportError {
    /// Makes the error of a refused manifest.
    pub(crate) fn of_push(name: String, top: Descriptor, source: RegistryError) -> Self {
        if source.is_immutable_tag() {
            return Self::ImmutableTag { name, top: Box::new(top), source };
        }
        Self::Registry { name, source }
    }
}

/// Counts of files and attributes that a directory gets only with `--allow local.special`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkippedFiles {
    /// Number of omitted devices.
    pub devices: usize,
    /// Number of files and directories that lost set-user-ID or set-group-ID bits (chmod(2)).
    pub set_ids: usize,
    /// Number of extended attributes such as file capabilities (capabilities(7)).
    pub attributes: usize,
}

impl std::fmt::Display for SkippedFiles {
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

/// Content that a directory could not store. The rest was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportWarning {
    /// A device, which only root can create (mknod(2)).
    #[error("{path} is a device, which only root can create: it was omitted")]
    Device {
        /// The path of the device.
        path: TreePath,
    },
    /// An extended attribute could not be set.
    #[error(
        "{path} has lost its attribute {name}: only root can set it, and not on every file system"
    )]
    Attribute {
        /// The path of the file.
        path: TreePath,
        /// The attribute's name, as in `security.capability`.
        name: String,
    },
    /// Files that could act with the rights of others were omitted.
    #[error("omitted from {}: {what}; `--allow local.special` keeps them", directory.display())]
    LeftOut {
        /// Path of the target directory.
        directory: PathBuf,
        /// The numbers of files.
        what: SkippedFiles,
    },
    /// Owners without a mapping in this user namespace (user_namespaces(7)).
    #[error("some files have lost their owners, which do not exist in this user namespace")]
    Owners,
}
