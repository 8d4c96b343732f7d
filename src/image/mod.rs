//! Where images go to: OCI layouts, docker archives, folders, tars, registries; and `verify`, which
//! reads a layout back with the eyes of others.
//!
//! A sink takes a finished image of the store. It never changes the store's image, and it knows
//! nothing of how the image was made. What is new is packed on the way out, once: the store keeps
//! the packed form. Layers of a base image go out as they came in.

mod documents;
mod error;
mod layout;
mod place;
mod push;
mod reader;
mod source;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::archive::Packing;
use crate::oci::{Descriptor, Reference};
use crate::store::Store;

pub use documents::{Packed, pack};
pub use error::ExportError;
pub use push::push;
pub use reader::{LayoutError, LayoutReader};
pub use source::{Image, ImageLayer};

type Result<T> = std::result::Result<T, ExportError>;

/// How an image is written out.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// How new layers are packed.
    pub packing: Packing,
    /// Whether the base image's layers are packed in this way too, where they are not.
    pub force_packing: bool,
    /// Whether documents and layers get Docker's media types instead of the OCI's.
    pub docker_media_types: bool,
    /// How many threads may work at once.
    pub jobs: NonZeroUsize,
    /// The names that an archive or layout says the image has.
    pub names: Vec<Reference>,
    /// When it was made, RFC 3339, for the annotation of that name; `None` leaves it out.
    pub created: Option<String>,
}

/// A file or folder that an image is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An OCI layout as one tar.
    OciArchive(PathBuf),
    /// An OCI layout; if there is one, the image is added to it.
    OciFolder(PathBuf),
    /// What `docker load` takes; it is an OCI layout as well.
    DockerArchive(PathBuf),
}

/// What an image is written to a stream as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamForm {
    /// An OCI layout as one tar.
    OciArchive,
    /// What `docker load` takes; it is an OCI layout as well.
    DockerArchive,
}

/// Writes `image` to `target` and gives the descriptor of its manifest. An archive appears under
/// its name when it is complete; the path `-` is standard output.
///
/// # Errors
/// The store's when a layer is not there or damaged; the kernel's, with the path.
pub fn export(
    store: &Store,
    image: &Image,
    target: &Target,
    options: &ExportOptions,
) -> Result<Descriptor> {
    let (path, form) = match target {
        Target::OciArchive(path) => (path, StreamForm::OciArchive),
        Target::DockerArchive(path) => (path, StreamForm::DockerArchive),
        Target::OciFolder(path) => return layout::write_folder(store, image, path, options),
    };
    place::write(path, |out| export_stream(store, image, form, out, options))
}

/// As [`export`], into `out`.
///
/// # Errors
/// As there.
pub fn export_stream(
    store: &Store,
    image: &Image,
    form: StreamForm,
    out: &mut dyn Write,
    options: &ExportOptions,
) -> Result<Descriptor> {
    match form {
        StreamForm::OciArchive => layout::write_archive(store, image, out, options, false),
        StreamForm::DockerArchive => layout::write_archive(store, image, out, options, true),
    }
}
