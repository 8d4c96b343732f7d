//! Writes OCI layouts, as a tar or a directory (image-spec, image-layout.md), with docker's own
//! `manifest.json` if wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use serde::Serialize;

use crate::archive::TarWriter;
use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{
    ChainId, Descriptor, Digest, Index, ManifestOrIndex, MediaType, Reference, compact, pretty,
};
use crate::pathio::inside::FileInside;
use crate::pathio::output::{Output, open_subdirectory, open_tree};
use crate::pathio::{Context as _, PathError};
use crate::store::{CheckedBlob, Store};
use crate::tree::{ContentHash, File, FileOrigin, Meta, Node, TreePath};

use super::documents::{PackedImage, index_over, pack_some};
use super::layout_reader::LayoutReader;
use super::{ExportError, ExportOptions, Image, ImageGroup, Result};

const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_FILE: &str = "index.json";
/// Docker's own table of contents, read by `docker load` before version 25 and by `docker-archive:`
/// of other tools (<https://github.com/moby/docker-image-spec>).
const DOCKER_MANIFEST_FILE: &str = "manifest.json";
const BLOBS: &str = "blobs/sha256";

/// The full name: containerd's annotation, which `docker load` and `ctr import` read.
const NAME: &str = "io.containerd.image.name";
/// The tag (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CREATED: &str = "org.opencontainers.image.created";

/// A layout to be written: its blobs in order, and its tables of contents.
#[derive(Default)]
struct LayoutBuilder {
    blobs: BTreeMap<Digest, LayoutBlob>,
    entries: Vec<Descriptor>,
    for_docker: Vec<DockerEntry>,
}

enum LayoutBlob {
    Bytes(Vec<u8>),
    /// A blob of the store, with its size.
    Stored(u64),
}

/// An entry of docker's `manifest.json`: one image.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes a layout as a tar: entries sorted, owned by root, with the time 0.
pub(super) fn write_archive(
    store: &Store,
    groups: &[ImageGroup<'_>],
    out: &mut dyn Write,
    options: &ExportOptions,
    for_docker: bool,
) -> Result<Descriptor> {
    let mut layout = LayoutBuilder::default();
    let mut top = None;
    for group in groups {
        // Docker's own table of contents cannot list indexes.
        if for_docker && (group.is_index || group.images.len() != 1) {
            return Err(ExportError::ImageCount { n_images: group.images.len() });
        }
        top = Some(layout.add(store, group, options)?);
    }
    let top = top.ok_or(ExportError::ImageCount { n_images: 0 })?;
    // Sorted like the blobs, and after them: `blobs` comes first alphabetically.
    let mut files: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    files.insert(INDEX_FILE, pretty(&index_of(layout.entries.clone())));
    files.insert(LAYOUT_FILE, LAYOUT.to_vec());
    if for_docker {
        files.insert(DOCKER_MANIFEST_FILE, compact(&layout.for_docker));
    }
    let mut tar = TarWriter::new(out);
    put_directory(&mut tar, "blobs")?;
    put_directory(&mut tar, BLOBS)?;
    for (digest, blob) in &layout.blobs {
        let (size, mut content) = blob.open(store, *digest)?;
        put_file(&mut tar, &blob_name(*digest), size, &mut content)?;
    }
    for (name, bytes) in &files {
        put_file(&mut tar, name, n_bytes(bytes), &mut bytes.as_slice())?;
    }
    tar.finish()?;
    Ok(top)
}

/// Writes a layout into a directory, or adds the image to the existing layout and moves its names
/// to this image.
pub(super) fn write_directory(
    store: &Store,
    images: &[Image],
    directory: &Path,
    options: &ExportOptions,
) -> Result<Descriptor> {
    let mut layout = LayoutBuilder::default();
    let top = layout.add(store, &options.group(images), options)?;
    let index = merged(&directory.join(INDEX_FILE), layout.entries.clone())?;
    layout.write(store, directory, &index)?;
    Ok(top)
}

/// Writes an artifact with its document into a directory that is a layout of its own. Its layers are in the
/// store, or in the layout already. Artifacts with other tags stay; blobs that none of them needs are removed.
///
/// # Errors
/// [`ExportError::Store`] if a layer is damaged; [`ExportError::Io`].
pub fn write_artifact(
    store: &Store,
    directory: &Path,
    tag: &str,
    artifact: &PackedImage,
    document: &[u8],
) -> Result<()> {
    let in_store = artifact.layers.iter().filter(|layer| store.has_blob(layer.digest));
    let mut blobs: BTreeMap<Digest, LayoutBlob> =
        in_store.map(|layer| (layer.digest, LayoutBlob::Stored(layer.size))).collect();
    blobs.insert(artifact.config.digest, LayoutBlob::Bytes(document.to_vec()));
    blobs.insert(artifact.digest(), LayoutBlob::Bytes(artifact.manifest.clone()));
    let mut entry = artifact.descriptor.clone();
    entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    let (others, mut kept) = others_in(directory, tag);
    let layout = LayoutBuilder { blobs, ..LayoutBuilder::default() };
    layout.write(store, directory, &index_of(others.into_iter().chain([entry]).collect()))?;
    kept.extend(layout.blobs.keys().copied());
    kept.extend(artifact.layers.iter().map(|layer| layer.digest));
    remove_others(directory, &kept)
}

/// Returns the entries of a layout with other tags, and all blobs that these need. A damaged layout has none.
fn others_in(directory: &Path, tag: &str) -> (Vec<Descriptor>, BTreeSet<Digest>) {
    let reader = LayoutReader::new(directory);
    let (mut entries, mut blobs) = (Vec::new(), BTreeSet::new());
    for entry in reader.entries().unwrap_or_default() {
        let name = entry.annotations.get(REF_NAME);
        let Some(manifest) = reader.document(entry.digest).ok() else { continue };
        if let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&manifest)
            && name.is_some_and(|name| name != tag)
        {
            blobs.extend([entry.digest, manifest.config.digest]);
            blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
            entries.push(entry);
        }
    }
    (entries, blobs)
}

/// Removes the blobs of a layout that are not `kept`.
fn remove_others(directory: &Path, kept: &BTreeSet<Digest>) -> Result<()> {
    let shown = directory.join(BLOBS);
    let blobs = open_blobs(&open_tree(directory)?, directory)?;
    // An `O_PATH` descriptor cannot be listed (open(2)).
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let blobs = rustix::fs::openat(&blobs, ".", flags, Mode::empty()).context("open", &shown)?;
    for entry in rustix::fs::Dir::read_from(&blobs).context("list", &shown)? {
        let entry = entry.context("list", &shown)?;
        let name = entry.file_name();
        let is_kept = kept.iter().any(|digest| name.to_bytes() == digest.hex().as_bytes());
        // Only names of blobs: the user may have named another directory by mistake.
        if !is_kept && name.to_bytes().len() == 64 {
            rustix::fs::unlinkat(&blobs, name, AtFlags::empty()).context("remove from", &shown)?;
        }
    }
    Ok(())
}

impl LayoutBuilder {
    /// Writes missing blobs, and then the index. Follows no symbolic link.
    fn write(&self, store: &Store, directory: &Path, index: &Index) -> Result<()> {
        let top = open_tree(directory)?;
        let blobs = open_blobs(&top, directory)?;
        for (digest, blob) in &self.blobs {
            let (name, shown) = (digest.hex(), directory.join(blob_name(*digest)));
            let (size, mut content) = blob.open(store, *digest)?;
            // A blob of another length was written incompletely.
            if is_file_of_size(&blobs, &name, size) {
                continue;
            }
            put(&blobs, &name, &shown, |out| io::copy(&mut content, out).map(drop))?;
        }
        let put = |name: &str, bytes: &[u8]| {
            put(&top, name, &directory.join(name), |out| out.write_all(bytes))
        };
        put(LAYOUT_FILE, LAYOUT)?;
        put(INDEX_FILE, &pretty(index))
    }

    /// Adds the images, compressed. Several, one for each platform, get an index. Returns the
    /// descriptor that a name refers to.
    fn add(
        &mut self,
        store: &Store,
        group: &ImageGroup<'_>,
        options: &ExportOptions,
    ) -> Result<Descriptor> {
        let mut packed = Vec::with_capacity(group.images.len());
        for image in group.images {
            let is_exported = is_exported(image, group);
            let one = pack_some(store, image, &is_exported, options)?;
            let layers = one.layers.iter().zip(&is_exported);
            let layers = layers.filter(|(_, is_exported)| **is_exported).map(|(layer, _)| layer);
            self.blobs.extend(layers.map(|layer| (layer.digest, LayoutBlob::Stored(layer.size))));
            self.blobs.insert(one.config.digest, LayoutBlob::Bytes(image.config_bytes().to_vec()));
            self.blobs.insert(one.digest(), LayoutBlob::Bytes(one.manifest.clone()));
            self.for_docker.push(docker_entry(&one, group.names));
            packed.push(one);
        }
        let top = match packed.as_slice() {
            [only] if !group.is_index => only.descriptor.clone(),
            several => {
                let (bytes, descriptor) = index_over(several, group.annotations, options);
                self.blobs.insert(descriptor.digest, LayoutBlob::Bytes(bytes));
                descriptor
            }
        };
        self.entries.extend(entries(&top, group));
        Ok(top)
    }
}

/// Returns for each layer, base first, whether the archive contains it.
fn is_exported(image: &Image, group: &ImageGroup<'_>) -> Vec<bool> {
    let mut stack: Option<ChainId> = None;
    let mut is_exported = Vec::with_capacity(image.layers().len());
    for layer in image.layers() {
        let next = stack.map_or(ChainId::base(layer.diff_id), |below| below.push(layer.diff_id));
        is_exported.push(!group.left_out.is_some_and(|known| known.contains(&next)));
        stack = Some(next);
    }
    is_exported
}

impl LayoutBlob {
    fn open<'a>(&'a self, store: &Store, digest: Digest) -> Result<(u64, BlobReader<'a>)> {
        Ok(match self {
            Self::Bytes(bytes) => (n_bytes(bytes), BlobReader::Bytes(bytes)),
            Self::Stored(size) => (*size, BlobReader::Stored(store.open_checked_blob(digest)?)),
        })
    }
}

enum BlobReader<'a> {
    Bytes(&'a [u8]),
    Stored(CheckedBlob),
}

impl Read for BlobReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.read(to),
            Self::Stored(file) => file.read(to),
        }
    }
}

fn blob_name(digest: Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

fn n_bytes(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Returns one index entry for each name, or one without a name.
fn entries(manifest: &Descriptor, group: &ImageGroup<'_>) -> Vec<Descriptor> {
    let entry = |name: Option<&Reference>| {
        let mut entry = manifest.clone();
        let mut annotate = |key: &str, value: &str| {
            entry.annotations.insert(key.to_owned(), value.to_owned());
        };
        group.created.iter().for_each(|created| annotate(CREATED, created));
        if let Some(name) = name {
            annotate(NAME, &name.to_string());
            name.tag().iter().for_each(|tag| annotate(REF_NAME, tag));
        }
        entry
    };
    if group.names.is_empty() {
        return vec![entry(None)];
    }
    group.names.iter().map(|name| entry(Some(name))).collect()
}

const fn index_of(manifests: Vec<Descriptor>) -> Index {
    let media_type = Some(MediaType::OciIndex);
    Index { schema_version: 2, media_type, manifests, annotations: BTreeMap::new() }
}

/// Reads the index at `path` and replaces the entries that have the names of `ours`.
fn merged(path: &Path, ours: Vec<Descriptor>) -> Result<Index> {
    let (directory, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    let bytes = match FileInside::new(directory, name, path).read(MAX_DOCUMENT_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(index_of(ours)),
        Err(error) => return Err(error.into()),
    };
    let bad = |reason: String| ExportError::NoLayout { path: directory.join(INDEX_FILE), reason };
    let mut index = match ManifestOrIndex::parse(&bytes).map_err(|error| bad(error.to_string()))? {
        ManifestOrIndex::Index(index) => index,
        ManifestOrIndex::Manifest(_) => {
            return Err(bad("it is the manifest of one image".to_owned()));
        }
    };
    index.manifests.retain(|old| !ours.iter().any(|new| replaces(new, old)));
    index.manifests.extend(ours);
    Ok(index)
}

/// Returns whether `new` takes the name of `old`, or makes it redundant.
fn replaces(new: &Descriptor, old: &Descriptor) -> bool {
    let same = |key| old.annotations.get(key) == new.annotations.get(key);
    let nameless = !old.annotations.contains_key(NAME) && !old.annotations.contains_key(REF_NAME);
    let is_same_image = new.digest == old.digest;
    (nameless && is_same_image)
        || (new.annotations.contains_key(NAME) && same(NAME) && same(REF_NAME))
}

fn docker_entry(packed: &PackedImage, names: &[Reference]) -> DockerEntry {
    let tagged = names.iter().filter(|name| name.tag().is_some());
    DockerEntry {
        config: blob_name(packed.config.digest),
        repo_tags: tagged.map(Reference::familiar).collect(),
        layers: packed.layers.iter().map(|layer| blob_name(layer.digest)).collect(),
    }
}

fn tree_path(name: &str) -> TreePath {
    TreePath::new(name.as_bytes()).expect("names in a layout are plain")
}

fn put_directory(tar: &mut TarWriter<impl Write>, name: &str) -> Result<()> {
    let node = Node::Directory { opaque: false };
    tar.node(&tree_path(name), &Meta::root(0o755, 0), &node, &mut io::empty())?;
    Ok(())
}

fn put_file(
    tar: &mut TarWriter<impl Write>,
    name: &str,
    size: u64,
    content: &mut dyn Read,
) -> Result<()> {
    // The writer uses only the size, not the hash or origin of this file.
    let origin = FileOrigin::Inline([].into());
    let node = Node::File(File { size, content: ContentHash::of(b""), origin });
    tar.node(&tree_path(name), &Meta::root(0o644, 0), &node, content)?;
    Ok(())
}

/// Opens or creates the directory of a layout's blobs.
fn open_blobs(top: &OwnedFd, directory: &Path) -> Result<OwnedFd> {
    let mut at = top.try_clone().context("open", directory)?;
    let mut shown = directory.to_owned();
    for name in BLOBS.split('/') {
        shown.push(name);
        at = open_subdirectory(&at, name, &shown)?;
    }
    Ok(at)
}

fn is_file_of_size(directory: &OwnedFd, name: &str, size: u64) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(size)
    })
}

/// Writes a file of the layout atomically.
fn put(
    directory: &OwnedFd,
    name: &str,
    shown: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let directory = directory.try_clone().context("open the directory of", shown)?;
    let mut out = Output::replace(directory, OsStr::new(name), shown)?;
    fill(&mut out).map_err(|source| PathError::new("write", shown, source))?;
    Ok(out.finish()?)
}
