//! Loads images from untrusted archives and directories: OCI layouts and the output of `docker
//! save`, with any compression of the tar.
//!
//! Everything is verified: each blob against the digest in its name, each layer against its config.
//! Content read before an error stays in the store as unreferenced blobs.

mod archive;
mod docker;
mod layers;
mod layout;

#[doc(hidden)]
pub use docker::probe_table;

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::oci::{Digest, Platform, Reference};
use crate::pathio::PathError;
use crate::store::{Store, StoreError};

use super::{ExportError, Replaced, StoredImages, replaced};

use archive::ImageArchive;

type Result<T> = std::result::Result<T, LoadError>;

/// The source of a load.
pub enum LoadSource {
    /// A tar, compressed or not.
    Stream(Box<dyn Read + Send>),
    /// The directory of an OCI layout.
    Directory(PathBuf),
}

impl std::fmt::Debug for LoadSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(_) => f.write_str("Stream"),
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
        }
    }
}

/// Options of a load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The source's name in messages.
    pub shown: String,
    /// Loads only images for this platform.
    pub platform: Option<Platform>,
    /// Maximum number of parallel threads.
    pub jobs: NonZeroUsize,
}

/// An image that was loaded into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// The digest of its manifest or index.
    pub top: Digest,
    /// Its names, which the store has set already.
    pub names: Vec<Reference>,
    /// The images whose names it took.
    pub replaced: Vec<Replaced>,
}

/// The reason why images could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The source is neither an OCI layout nor a docker archive.
    #[error(
        "{shown} holds no images: it has neither an index.json, as OCI layouts have, nor a manifest.json, as `docker save` writes it"
    )]
    NoImages {
        /// The name of the source.
        shown: String,
    },
    /// The source has no image for the requested platform.
    #[error("{shown} has no image for {platform}")]
    Platform {
        /// The name of the source.
        shown: String,
        /// The platform that was requested.
        platform: Platform,
    },
    /// The tar could not be read.
    #[error("{shown} cannot be read")]
    Archive {
        /// The name of the source.
        shown: String,
        /// The error that caused this one.
        source: ArchiveError,
    },
    /// A document is invalid.
    #[error("{name} in {shown} cannot be used: {reason}")]
    Document {
        /// The name of the source.
        shown: String,
        /// The document's name in the source.
        name: String,
        /// The cause, as text for the message.
        reason: String,
    },
    /// A document refers to missing content.
    #[error("{shown} lacks {name}, which {by} refers to")]
    Missing {
        /// The name of the source.
        shown: String,
        /// The missing file or blob.
        name: String,
        /// The document's name in the source.
        by: String,
    },
    /// A blob does not match the digest in its name.
    #[error("{name} in {shown} is damaged: its digest is {got}")]
    WrongBlob {
        /// The name of the source.
        shown: String,
        /// The blob's name in the source.
        name: String,
        /// The digest of its content.
        got: Digest,
    },
    /// The image is unusable.
    #[error("{shown} has an image that cannot be used")]
    Image {
        /// The name of the source.
        shown: String,
        /// The error that caused this one.
        source: Box<ExportError>,
    },
    /// The store failed to save content.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] PathError),
}

/// Loads all images of `source` into the store and sets their names.
///
/// # Errors
/// [`LoadError`]. No name was set then.
pub fn load(store: &Store, source: LoadSource, options: &LoadOptions) -> Result<Vec<LoadedImage>> {
    let contents = match source {
        LoadSource::Stream(stream) => ImageArchive::of_archive(store, stream, &options.shown)?,
        LoadSource::Directory(directory) => ImageArchive::of_directory(&directory, &options.shown)?,
    };
    let mut images = match (&contents.index, &contents.manifest) {
        (Some(index), _) => layout::images(store, &contents, index, options)?,
        (None, Some(manifest)) => docker::images(store, &contents, manifest, options)?,
        (None, None) => return Err(LoadError::NoImages { shown: options.shown.clone() }),
    };
    if let (Some(_), Some(manifest)) = (&contents.index, &contents.manifest) {
        docker::add_names(store, &contents, manifest, &mut images)?;
    }
    for image in &images {
        StoredImages::load(store, image.top).map_err(|error| contents.bad_image(error))?;
    }
    for image in &mut images {
        // A name with the digest of another image is ignored.
        image.names.retain(|name| name.digest().is_none_or(|digest| digest == image.top));
        for name in &image.names {
            image.replaced.extend(replaced(store, name, image.top)?);
            store.tags().set(name, image.top)?;
        }
    }
    Ok(images)
}
