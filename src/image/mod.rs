//! Exports images: OCI layouts, docker archives, directories, tars, registries and buckets. `load`
//! imports them, and `verify` checks a layout with an independent reader.
//!
//! An exporter takes a finished image of the store. It never changes that image, and it does not
//! know how the image was made. New layers are compressed during the export, once: the store keeps
//! the compressed blob. Layers of a base image are exported unchanged.

mod archive_output;
mod blob_directory;
mod blob_file;
mod documents;
mod engine;
mod error;
mod fetch;
mod join;
mod layout;
mod layout_reader;
mod load;
mod push;
mod push_verbatim;
mod rebase;
mod remote;
mod replaced;
mod rootfs;
mod rootfs_directory;
mod rootfs_tar;
mod stored_image;
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

pub use blob_directory::{DirectoryUpload, renew_in_directory, send_to_directory};
pub use documents::{PackedImage, compression_of, is_packed, pack, pack_layers};
pub use engine::{Engine, EngineError};
pub use error::{ExportError, ExportWarning, SkippedFiles};
pub use fetch::{
    fetch_from, fetch_layer, fetch_temporarily, is_obtainable, read_remote_blob, read_small_blob,
};
pub use join::{
    CombineOptions, Combined, CombinedPart, JoinSource, ResolvedSource, combine, copy, resolve,
};
pub use layout::write_artifact;
pub use layout_reader::{LayoutError, LayoutReader};
#[doc(hidden)]
pub use load::probe_table;
pub use load::{LoadError, LoadOptions, LoadSource, LoadedImage, load};
pub use push::{LARGE_BYTES, push, push_all, push_bytes, push_layer, push_layers};
pub use push_verbatim::{is_unmodified, push_verbatim};
pub use rebase::{BASE_DIGEST, BASE_NAME, Rebase, is_base, rebase};
pub use remote::read_remote;
pub use replaced::{RegistryRetries, Replaced, check_platforms, replaced};
pub use stored_image::{Image, ImageLayer, StoredImages};
pub use verify::{VerifiedImage, VerifyError, verify_layout};

/// Images that share their names: a single one, or one for each of several platforms.
#[derive(Debug, Clone, Copy)]
pub struct ImageGroup<'a> {
    /// The images, one for each platform.
    pub images: &'a [Image],
    /// True if an index lists them, even a single one.
    pub is_index: bool,
    /// The names that an archive or layout gives them.
    pub names: &'a [Reference],
    /// Creation time (RFC 3339) for the annotation `org.opencontainers.image.created`. `None` omits
    /// it.
    pub created: Option<&'a str>,
    /// Annotations of the index, in addition to those of the options.
    pub annotations: &'a BTreeMap<String, String>,
    /// Stacks of layers whose top layer a docker archive omits, because the reader has it.
    pub left_out: Option<&'a BTreeSet<ChainId>>,
}

type Result<T> = std::result::Result<T, ExportError>;

/// Options of an export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// Compression of new layers.
    pub packing: Packing,
    /// True if the base image's layers are recompressed, too, where their compression differs.
    pub force_packing: bool,
    /// True if documents and layers get Docker's media types instead of the OCI's.
    pub docker_media_types: bool,
    /// Maximum number of parallel threads.
    pub jobs: NonZeroUsize,
    /// True if a single image gets an index, too.
    pub always_index: bool,
    /// The names that an archive or layout gives the image.
    pub names: Vec<Reference>,
    /// Creation time (RFC 3339) for the annotation `org.opencontainers.image.created`. `None` omits
    /// it.
    pub created: Option<String>,
    /// Annotations in addition to those of the images. Docker's media types have none.
    pub annotations: Vec<Annotation>,
    /// True if the image is pushed without a tag.
    pub by_digest: bool,
    /// Names in registries whose indexes must not lose platforms to the images: a push checks them before it
    /// sends a manifest.
    pub guarded_names: Vec<Reference>,
    /// True if a push does not fail where the registry does not replace the tag.
    pub ignores_immutable_tags: bool,
    /// True if an image is not pushed again whose tag the registry has just shown. Its layers are then not
    /// asked for.
    pub trusts_tag: bool,
    /// True if files go into one directory for each platform. `None`: only with an index.
    pub split: Option<bool>,
    /// True if a directory gets devices, set-user-ID bits and file capabilities.
    pub keeps_special: bool,
    /// True if a directory loses all files that are not in the image.
    pub deletes_others: bool,
}

/// For an index without annotations.
static NO_ANNOTATIONS: BTreeMap<String, String> = BTreeMap::new();

impl ExportOptions {
    /// Returns the options for layers that are compressed so.
    #[must_use]
    pub const fn of_layers(packing: Packing, jobs: NonZeroUsize) -> Self {
        Self {
            packing,
            force_packing: false,
            docker_media_types: false,
            jobs,
            always_index: false,
            names: Vec::new(),
            created: None,
            annotations: Vec::new(),
            by_digest: false,
            guarded_names: Vec::new(),
            ignores_immutable_tags: false,
            trusts_tag: false,
            split: None,
            keeps_special: false,
            deletes_others: false,
        }
    }

    /// Returns the images with the names of these options.
    fn group<'a>(&'a self, images: &'a [Image]) -> ImageGroup<'a> {
        let (names, created) = (self.names.as_slice(), self.created.as_deref());
        let is_index = images.len() != 1 || self.always_index;
        ImageGroup {
            images,
            is_index,
            names,
            created,
            annotations: &NO_ANNOTATIONS,
            left_out: None,
        }
    }
}

/// The file or directory of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportTarget {
    /// An OCI layout as a tar (image-spec, image-layout.md).
    OciArchive(PathBuf),
    /// An OCI layout as a directory. The image is added to an existing layout.
    OciDirectory(PathBuf),
    /// An archive for `docker load`, which is an OCI layout as well.
    DockerArchive(PathBuf),
    /// The image's files in a directory, over existing ones.
    Directory(PathBuf),
    /// The image's files as a tar.
    Tar(PathBuf),
}

/// The format of an export to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFormat {
    /// An OCI layout as a tar (image-spec, image-layout.md).
    OciArchive,
    /// An archive for `docker load`, which is an OCI layout as well.
    DockerArchive,
    /// The image's files as a tar.
    Tar,
}

/// Writes `image` to `target` and returns the descriptor of its manifest, or of its config if only
/// files are written. A file appears under its name when it is complete. The path `-` is standard
/// output.
///
/// # Errors
/// [`ExportError::Store`] if a layer is missing or damaged; [`ExportError::Io`];
/// [`ExportError::Archive`].
pub fn export(
    store: &Store,
    image: &Image,
    target: &ExportTarget,
    options: &ExportOptions,
) -> Result<Descriptor> {
    export_all(store, slice::from_ref(image), target, options, &mut |_warning| {})
}

/// Exports one image, or one for each of several platforms, like [`export`]. Several are listed by
/// an index in layouts, whose descriptor is returned. In directories and tars they go below the
/// name of their platform, as in `linux_arm64`. `warn` gets what a directory could not store.
///
/// # Errors
/// The same as [`export`]; [`ExportError::ImageCount`] for a docker archive of several images.
pub fn export_all(
    store: &Store,
    images: &[Image],
    target: &ExportTarget,
    options: &ExportOptions,
    warn: &mut dyn FnMut(ExportWarning),
) -> Result<Descriptor> {
    let (path, form) = match target {
        ExportTarget::OciArchive(path) => (path, StreamFormat::OciArchive),
        ExportTarget::DockerArchive(path) => (path, StreamFormat::DockerArchive),
        ExportTarget::Tar(path) => (path, StreamFormat::Tar),
        ExportTarget::OciDirectory(path) => {
            return layout::write_directory(store, images, path, options);
        }
        ExportTarget::Directory(path) => {
            let all = rootfs_of_all(store, images, options)?;
            for (platform, rootfs) in &all {
                let to = rootfs_directory::Destination {
                    directory: path,
                    platform: platform.as_deref(),
                    keeps_special: options.keeps_special,
                    deletes_others: options.deletes_others,
                };
                rootfs_directory::write(rootfs, to, warn)?;
            }
            let platforms: Vec<&str> = all.iter().filter_map(|(name, _)| name.as_deref()).collect();
            if options.deletes_others && !platforms.is_empty() {
                rootfs_directory::delete_others(path, &platforms)?;
            }
            return first_config(images, options);
        }
    };
    let started = Instant::now();
    let written =
        archive_output::write(path, |out| export_stream(store, images, form, out, options))?;
    tracing::debug!(?target, manifest = %written.digest, took = ?started.elapsed(), "output written");
    Ok(written)
}

/// Writes several images, each with names of its own, into one archive. Shared layers are stored
/// once. The names in `options` are ignored.
///
/// # Errors
/// The same as [`export`]; [`ExportError::ImageCount`] for a docker archive with an index, and for
/// a tar of files.
pub fn save(
    store: &Store,
    groups: &[ImageGroup<'_>],
    form: StreamFormat,
    path: &Path,
    options: &ExportOptions,
) -> Result<()> {
    archive_output::write(path, |out| save_stream(store, groups, form, out, options))?;
    Ok(())
}

/// Writes images into `out` like [`save`] and returns the descriptor of the last one.
///
/// # Errors
/// The same as [`save`].
pub fn save_stream(
    store: &Store,
    groups: &[ImageGroup<'_>],
    form: StreamFormat,
    out: &mut dyn Write,
    options: &ExportOptions,
) -> Result<Descriptor> {
    let for_docker = match form {
        StreamFormat::OciArchive => false,
        StreamFormat::DockerArchive => true,
        StreamFormat::Tar => return Err(ExportError::ImageCount { n_images: groups.len() }),
    };
    layout::write_archive(store, groups, out, options, for_docker)
}

/// Exports images into `out` like [`export_all`].
///
/// # Errors
/// The same as [`save`].
pub fn export_stream(
    store: &Store,
    images: &[Image],
    form: StreamFormat,
    out: &mut dyn Write,
    options: &ExportOptions,
) -> Result<Descriptor> {
    let group = options.group(images);
    match form {
        StreamFormat::OciArchive => layout::write_archive(store, &[group], out, options, false),
        StreamFormat::DockerArchive => layout::write_archive(store, &[group], out, options, true),
        StreamFormat::Tar => {
            rootfs_tar::write(&rootfs_of_all(store, images, options)?, out)?;
            first_config(images, options)
        }
    }
}

/// Returns each image's files, with the name of its platform's directory if there is an index.
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

/// Returns the descriptor of an export without a manifest: the config, of several images the first.
fn first_config(images: &[Image], options: &ExportOptions) -> Result<Descriptor> {
    let first = images.first().ok_or(ExportError::ImageCount { n_images: 0 })?;
    Ok(config_of(first, options))
}
