//! Images out of archives and directories that somebody else wrote: OCI layouts and what `docker save`
//! gives, in whatever way the tar is packed.
//!
//! Nothing is believed: a blob has to be what its name says, a layer what its config says. What was
//! read before an error stays in the store as blobs that nothing needs.

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

use super::{ExportError, Loaded, Replaced, replaced};

use archive::Contents;

type Result<T> = std::result::Result<T, LoadError>;

/// Where images are read from.
pub enum LoadSource {
    /// A tar, packed or not.
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

/// What is taken of what is there.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// What the source is called in messages.
    pub shown: String,
    /// Only images for this platform.
    pub platform: Option<Platform>,
    /// How many threads may work at once.
    pub jobs: NonZeroUsize,
}

/// An image that is in the store now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its manifest or index.
    pub top: Digest,
    /// Its names; they are set already.
    pub names: Vec<Reference>,
    /// The images that lost their names to it.
    pub replaced: Vec<Replaced>,
}

/// Why images could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is something else.
    #[error(
        "{shown} holds no images: it has neither an index.json, as OCI layouts have, nor a manifest.json, as `docker save` writes it"
    )]
    NoImages {
        /// The source.
        shown: String,
    },
    /// There is nothing for the platform that was asked for.
    #[error("{shown} has no image for {platform}")]
    Platform {
        /// The source.
        shown: String,
        /// What was asked for.
        platform: Platform,
    },
    /// The tar is no good.
    #[error("{shown} cannot be read")]
    Archive {
        /// The source.
        shown: String,
        /// Why.
        source: ArchiveError,
    },
    /// A document is no good.
    #[error("{name} in {shown} cannot be used: {reason}")]
    Document {
        /// The source.
        shown: String,
        /// The document.
        name: String,
        /// Why.
        reason: String,
    },
    /// Something that a document names is not there.
    #[error("{shown} lacks {name}, which {by} names")]
    Missing {
        /// The source.
        shown: String,
        /// What is not there.
        name: String,
        /// The document.
        by: String,
    },
    /// A blob is not what its name says.
    #[error("{name} in {shown} holds {got}: it is damaged")]
    WrongBlob {
        /// The source.
        shown: String,
        /// The blob.
        name: String,
        /// The kind of file.
        got: Digest,
    },
    /// The image cannot be used.
    #[error("{shown} has an image that cannot be used")]
    Image {
        /// The source.
        shown: String,
        /// Why.
        source: Box<ExportError>,
    },
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] PathError),
}

/// Reads all images of `source` into the store and gives them their names.
///
/// # Errors
/// [`LoadError`]; then no name was set.
pub fn load(store: &Store, source: LoadSource, options: &LoadOptions) -> Result<Vec<LoadedImage>> {
    let contents = match source {
        LoadSource::Stream(stream) => Contents::of_archive(store, stream, &options.shown)?,
        LoadSource::Directory(directory) => Contents::of_directory(&directory, &options.shown)?,
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
        Loaded::load(store, image.top).map_err(|error| contents.bad_image(error))?;
    }
    for image in &mut images {
        // A digest that an archive claims for another image names nothing.
        image.names.retain(|name| name.digest().is_none_or(|digest| digest == image.top));
        for name in &image.names {
            image.replaced.extend(replaced(store, name, image.top)?);
            store.tags().set(name, image.top)?;
        }
    }
    Ok(images)
}
