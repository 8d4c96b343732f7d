//! Where images go to: OCI layouts, docker archives, directories, tars, registries; and `verify`, which
//! reads a layout back with the eyes of others.
//!
//! A sink takes a finished image of the store. It never changes the store's image, and it knows
//! nothing of how the image was made. What is new is packed on the way out, once: the store keeps
//! the packed form. Layers of a base image go out as they came in.

mod blob_file;
mod bucket;
mod documents;
mod engine;
mod error;
mod layout;
mod load;
mod origin;
mod place;
mod push;
mod push_exact;
mod reader;
mod remote;
mod replaced;
mod rootfs;
mod rootfs_directory;
mod rootfs_tar;
mod source;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::slice;
use std::time::Instant;

use crate::archive::Packing;
use crate::oci::{Annotation, ChainId, Descriptor, MediaType, Reference};
use crate::store::Store;

use rootfs::Rootfs;

pub use bucket::{BucketUpload, send_to_bucket};
pub use documents::{Artifact, Packed, pack};
pub use engine::{Engine, EngineError};
pub use error::{ExportError, LeftOut, Warning};
pub use layout::write_artifact;
#[doc(hidden)]
pub use load::probe_table;
pub use load::{LoadError, LoadOptions, LoadSource, LoadedImage, load};
pub use origin::{fetch_for_now, fetch_from, fetch_layer, is_obtainable, read_elsewhere};
pub use push::{push, push_all, push_artifact};
pub use push_exact::{is_as_it_came, push_exact};
pub use reader::{LayoutError, LayoutReader};
pub use remote::read_remote;
pub use replaced::{Patience, Replaced, check_platforms, replaced};
pub use source::{Image, ImageLayer, Loaded};
pub use verify::{Verified, VerifyError, verify_layout};

/// Images that have their names in common: one, or one for each of several platforms.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// The images.
    pub images: &'a [Image],
    /// Whether there is an index over them, if only over one.
    pub is_index: bool,
    /// The names that an archive or layout says they have.
    pub names: &'a [Reference],
    /// When they were made, RFC 3339, for the annotation of that name; `None` leaves it out.
    pub created: Option<&'a str>,
    /// The index's annotations, beside those of the options.
    pub annotations: &'a BTreeMap<String, String>,
    /// Stacks of layers whose top a docker archive leaves out, because the reader has it.
    pub left_out: Option<&'a BTreeSet<ChainId>>,
}

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
    /// Whether a single image goes out under an index, too.
    pub always_index: bool,
    /// The names that an archive or layout says the image has.
    pub names: Vec<Reference>,
    /// When it was made, RFC 3339, for the annotation of that name; `None` leaves it out.
    pub created: Option<String>,
    /// Annotations beside those that the images have; Docker's media types leave all of them out.
    pub annotations: Vec<Annotation>,
    /// Whether a registry gets the image without a tag.
    pub by_digest: bool,
    /// Whether files have a directory for each platform; `None` when there is an index.
    pub split: Option<bool>,
    /// True if a directory of files gets devices, set-id bits and file capabilities.
    pub keeps_special: bool,
}

/// Of an index that has none.
static NO_ANNOTATIONS: BTreeMap<String, String> = BTreeMap::new();

impl ExportOptions {
    /// The images under the names that these options give.
    fn group<'a>(&'a self, images: &'a [Image]) -> Group<'a> {
        let (names, created) = (self.names.as_slice(), self.created.as_deref());
        let is_index = images.len() != 1 || self.always_index;
        Group { images, is_index, names, created, annotations: &NO_ANNOTATIONS, left_out: None }
    }
}

/// A file or directory that an image is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An OCI layout as one tar.
    OciArchive(PathBuf),
    /// An OCI layout; if there is one, the image is added to it.
    OciDirectory(PathBuf),
    /// What `docker load` takes; it is an OCI layout as well.
    DockerArchive(PathBuf),
    /// The image's files in a directory, over what is there.
    Directory(PathBuf),
    /// The image's files as one tar.
    Tar(PathBuf),
}

/// What an image is written to a stream as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamForm {
    /// An OCI layout as one tar.
    OciArchive,
    /// What `docker load` takes; it is an OCI layout as well.
    DockerArchive,
    /// The image's files as one tar.
    Tar,
}

/// Writes `image` to `target` and gives the descriptor of its manifest, or of its config where only
/// its files are written. A file appears under its name when it is complete; the path `-` is
/// standard output.
///
/// # Errors
/// The store's when a layer is not there or damaged; the kernel's, with the path.
pub fn export(
    store: &Store,
    image: &Image,
    target: &Target,
    options: &ExportOptions,
) -> Result<Descriptor> {
    export_all(store, slice::from_ref(image), target, options, &mut |_warning| {})
}

/// As [`export`], for one image or one for each of several platforms: those go into layouts under
/// an index, whose descriptor is the result, and into directories and tars below the name of their
/// platform, as in `linux_arm64`. `warn` is told what a directory could not take.
///
/// # Errors
/// As there; [`ExportError::ImageCount`] for a docker archive of several images.
pub fn export_all(
    store: &Store,
    images: &[Image],
    target: &Target,
    options: &ExportOptions,
    warn: &mut dyn FnMut(Warning),
) -> Result<Descriptor> {
    let (path, form) = match target {
        Target::OciArchive(path) => (path, StreamForm::OciArchive),
        Target::DockerArchive(path) => (path, StreamForm::DockerArchive),
        Target::Tar(path) => (path, StreamForm::Tar),
        Target::OciDirectory(path) => return layout::write_directory(store, images, path, options),
        Target::Directory(path) => {
            for (platform, rootfs) in rootfs_of_all(store, images, options)? {
                let (platform, keeps_special) = (platform.as_deref(), options.keeps_special);
                let to = rootfs_directory::Destination { directory: path, platform, keeps_special };
                rootfs_directory::write(&rootfs, to, warn)?;
            }
            return first_config(images, options);
        }
    };
    let started = Instant::now();
    let written = place::write(path, |out| export_stream(store, images, form, out, options))?;
    tracing::debug!(?target, manifest = %written.digest, took = ?started.elapsed(), "output written");
    Ok(written)
}

/// Writes several images, each with names of its own, into one archive; layers that they share are
/// there once. The names in `options` do not count.
///
/// # Errors
/// As [`export`]; [`ExportError::ImageCount`] for a docker archive with an index, and for a tar of
/// files.
pub fn save(
    store: &Store,
    groups: &[Group<'_>],
    form: StreamForm,
    path: &Path,
    options: &ExportOptions,
) -> Result<()> {
    place::write(path, |out| save_stream(store, groups, form, out, options))?;
    Ok(())
}

/// As [`save`], into `out`; gives what describes the last image.
///
/// # Errors
/// As there.
pub fn save_stream(
    store: &Store,
    groups: &[Group<'_>],
    form: StreamForm,
    out: &mut dyn Write,
    options: &ExportOptions,
) -> Result<Descriptor> {
    let for_docker = match form {
        StreamForm::OciArchive => false,
        StreamForm::DockerArchive => true,
        StreamForm::Tar => return Err(ExportError::ImageCount { n_images: groups.len() }),
    };
    layout::write_archive(store, groups, out, options, for_docker)
}

/// As [`export_all`], into `out`.
///
/// # Errors
/// As there.
pub fn export_stream(
    store: &Store,
    images: &[Image],
    form: StreamForm,
    out: &mut dyn Write,
    options: &ExportOptions,
) -> Result<Descriptor> {
    let group = options.group(images);
    match form {
        StreamForm::OciArchive => layout::write_archive(store, &[group], out, options, false),
        StreamForm::DockerArchive => layout::write_archive(store, &[group], out, options, true),
        StreamForm::Tar => {
            rootfs_tar::write(&rootfs_of_all(store, images, options)?, out)?;
            first_config(images, options)
        }
    }
}

/// Each image's files, with the name of the directory for its platform where there is an index.
fn rootfs_of_all<'s>(
    store: &'s Store,
    images: &[Image],
    options: &ExportOptions,
) -> Result<Vec<(Option<String>, Rootfs<'s>)>> {
    let is_split = options.split.unwrap_or(images.len() != 1 || options.always_index);
    let opened = images.iter().map(|image| {
        let directory = is_split.then(|| image.platform().to_string().replace('/', "_"));
        Ok((directory, Rootfs::open(store, image, options)?))
    });
    opened.collect()
}

fn config_of(image: &Image, options: &ExportOptions) -> Descriptor {
    let docker = options.docker_media_types;
    let media_type = if docker { MediaType::DockerConfig } else { MediaType::OciConfig };
    Descriptor::of(media_type, image.config_bytes())
}

/// What describes files without a manifest: the config, the first one of several.
fn first_config(images: &[Image], options: &ExportOptions) -> Result<Descriptor> {
    let first = images.first().ok_or(ExportError::ImageCount { n_images: 0 })?;
    Ok(config_of(first, options))
}
