//! OCI layouts, as a tar or a directory (image-spec, image-layout.md), with docker's own table of
//! contents where it is wanted.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use serde::Serialize;

use crate::archive::TarWriter;
use crate::limits::MAX_DOCUMENT_BYTES;
use crate::oci::{
    ChainId, Descriptor, Digest, Index, MediaType, Parsed, Reference, compact, pretty,
};
use crate::pathio::inside::FileInside;
use crate::pathio::output::{Output, open_subdirectory, open_tree};
use crate::pathio::{Context as _, PathError};
use crate::store::{CheckedBlob, Store};
use crate::tree::{ContentHash, File, FileOrigin, Meta, Node, TreePath};

use super::documents::{Artifact, Packed, index_over, pack_some, packed_layer, try_each};
use super::{ExportError, ExportOptions, Group, Image, ImageLayer, Result};

const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_FILE: &str = "index.json";
/// What `docker load` before version 25 looks for, and `docker-archive:` of other tools.
const DOCKER_FILE: &str = "manifest.json";
const BLOBS: &str = "blobs/sha256";

/// The full name (containerd's annotation, which `docker load` and `ctr import` read).
const NAME: &str = "io.containerd.image.name";
/// The tag (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CREATED: &str = "org.opencontainers.image.created";

/// The blobs of a layout, in the order in which they are written, and its tables of contents.
#[derive(Default)]
struct Layout {
    blobs: BTreeMap<Digest, Blob>,
    entries: Vec<Descriptor>,
    for_docker: Vec<DockerEntry>,
}

enum Blob {
    Bytes(Vec<u8>),
    /// In the store, with its size.
    Stored(u64),
}

/// One image in the table of contents that `docker load` reads.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes a layout as a tar: entries sorted, all of root's and from 1970.
pub(super) fn write_archive(
    store: &Store,
    groups: &[Group<'_>],
    out: &mut dyn Write,
    options: &ExportOptions,
    for_docker: bool,
) -> Result<Descriptor> {
    let mut layout = Layout::default();
    let mut top = None;
    for group in groups {
        // Docker's own table of contents has no indexes.
        if for_docker && (group.is_index || group.images.len() != 1) {
            return Err(ExportError::ImageCount { n_images: group.images.len() });
        }
        top = Some(layout.add(store, group, options)?);
    }
    let top = top.ok_or(ExportError::ImageCount { n_images: 0 })?;
    // Sorted as the blobs are, and after them: `blobs` comes first in the alphabet.
    let mut files: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    files.insert(INDEX_FILE, pretty(&index_of(layout.entries.clone())));
    files.insert(LAYOUT_FILE, LAYOUT.to_vec());
    if for_docker {
        files.insert(DOCKER_FILE, compact(&layout.for_docker));
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

/// Writes a layout into a directory, or adds the image to the layout that is there: its names now
/// stand for this image.
pub(super) fn write_directory(
    store: &Store,
    images: &[Image],
    directory: &Path,
    options: &ExportOptions,
) -> Result<Descriptor> {
    let mut layout = Layout::default();
    let top = layout.add(store, &options.group(images), options)?;
    let index = merged(&directory.join(INDEX_FILE), layout.entries.clone())?;
    layout.write(store, directory, &index)?;
    Ok(top)
}

/// Writes an artifact into a directory that is a layout of its own: it holds nothing else afterwards.
/// The layers have to be in the store.
///
/// # Errors
/// The store's when a layer is not there or damaged; the kernel's, with the path.
pub fn write_artifact(
    store: &Store,
    directory: &Path,
    tag: &str,
    artifact: &Artifact<'_>,
    options: &ExportOptions,
) -> Result<Digest> {
    let pack = |layer: &ImageLayer| packed_layer(store, layer, options);
    let layers = try_each(artifact.layers, options.jobs, pack)?;
    let document = (artifact.document)(&layers);
    let config = Descriptor::of(artifact.media_type.clone(), &document);
    let packed = Packed::over(config, layers, options);
    let mut blobs: BTreeMap<Digest, Blob> =
        packed.layers.iter().map(|layer| (layer.digest, Blob::Stored(layer.size))).collect();
    blobs.insert(packed.config.digest, Blob::Bytes(document));
    blobs.insert(packed.digest(), Blob::Bytes(packed.manifest.clone()));
    let mut entry = packed.descriptor.clone();
    entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    let layout = Layout { blobs, ..Layout::default() };
    layout.write(store, directory, &index_of(vec![entry]))?;
    layout.remove_others(directory)?;
    Ok(packed.digest())
}

impl Layout {
    /// Writes blobs that are not there yet, and then the index; no symbolic link is followed.
    fn write(&self, store: &Store, directory: &Path, index: &Index) -> Result<()> {
        let top = open_tree(directory)?;
        let blobs = open_blobs(&top, directory)?;
        for (digest, blob) in &self.blobs {
            let (name, shown) = (digest.hex(), directory.join(blob_name(*digest)));
            let (size, mut content) = blob.open(store, *digest)?;
            // A blob of another length is one that was cut short.
            if is_file_of(&blobs, &name, size) {
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

    /// Removes blobs that an earlier index named.
    fn remove_others(&self, directory: &Path) -> Result<()> {
        let shown = directory.join(BLOBS);
        let blobs = open_blobs(&open_tree(directory)?, directory)?;
        // The descriptor of the path alone cannot be listed.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let blobs =
            rustix::fs::openat(&blobs, ".", flags, Mode::empty()).context("open", &shown)?;
        for entry in rustix::fs::Dir::read_from(&blobs).context("list", &shown)? {
            let entry = entry.context("list", &shown)?;
            let name = entry.file_name();
            let ours = self.blobs.keys().any(|digest| name.to_bytes() == digest.hex().as_bytes());
            // Only what can be a blob: the directory may be somebody's home by mistake.
            if !ours && name.to_bytes().len() == 64 {
                rustix::fs::unlinkat(&blobs, name, AtFlags::empty())
                    .context("remove from", &shown)?;
            }
        }
        Ok(())
    }

    /// Packs the images; several, for as many platforms, go under an index. Gives what a name
    /// stands for.
    fn add(
        &mut self,
        store: &Store,
        group: &Group<'_>,
        options: &ExportOptions,
    ) -> Result<Descriptor> {
        let mut packed = Vec::with_capacity(group.images.len());
        for image in group.images {
            let goes_out = goes_out(image, group);
            let one = pack_some(store, image, &goes_out, options)?;
            let layers = one.layers.iter().zip(&goes_out);
            let layers = layers.filter(|(_, goes_out)| **goes_out).map(|(layer, _)| layer);
            self.blobs.extend(layers.map(|layer| (layer.digest, Blob::Stored(layer.size))));
            self.blobs.insert(one.config.digest, Blob::Bytes(image.config_bytes().to_vec()));
            self.blobs.insert(one.digest(), Blob::Bytes(one.manifest.clone()));
            self.for_docker.push(docker_entry(&one, group.names));
            packed.push(one);
        }
        let top = match packed.as_slice() {
            [only] if !group.is_index => only.descriptor.clone(),
            several => {
                let (bytes, descriptor) = index_over(several, group.annotations, options);
                self.blobs.insert(descriptor.digest, Blob::Bytes(bytes));
                descriptor
            }
        };
        self.entries.extend(entries(&top, group));
        Ok(top)
    }
}

/// Which layers go into the archive, base first.
fn goes_out(image: &Image, group: &Group<'_>) -> Vec<bool> {
    let mut stack: Option<ChainId> = None;
    let mut goes_out = Vec::with_capacity(image.layers().len());
    for layer in image.layers() {
        let next = stack.map_or(ChainId::base(layer.diff_id), |below| below.push(layer.diff_id));
        goes_out.push(!group.left_out.is_some_and(|known| known.contains(&next)));
        stack = Some(next);
    }
    goes_out
}

impl Blob {
    fn open<'a>(&'a self, store: &Store, digest: Digest) -> Result<(u64, Content<'a>)> {
        Ok(match self {
            Self::Bytes(bytes) => (n_bytes(bytes), Content::Bytes(bytes)),
            Self::Stored(size) => (*size, Content::Stored(store.open_checked_blob(digest)?)),
        })
    }
}

enum Content<'a> {
    Bytes(&'a [u8]),
    Stored(CheckedBlob),
}

impl Read for Content<'_> {
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

/// One entry for each name, or one without a name.
fn entries(manifest: &Descriptor, group: &Group<'_>) -> Vec<Descriptor> {
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

/// The index at `path` with `ours` in place of what had their names.
fn merged(path: &Path, ours: Vec<Descriptor>) -> Result<Index> {
    let (directory, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    let bytes = match FileInside::new(directory, name, path).read(MAX_DOCUMENT_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(index_of(ours)),
        Err(error) => return Err(error.into()),
    };
    let bad = |reason: String| ExportError::NoLayout { path: directory.join(INDEX_FILE), reason };
    let mut index = match Parsed::parse(&bytes).map_err(|error| bad(error.to_string()))? {
        Parsed::Index(index) => index,
        Parsed::Manifest(_) => return Err(bad("it is the manifest of one image".to_owned())),
    };
    index.manifests.retain(|old| !ours.iter().any(|new| replaces(new, old)));
    index.manifests.extend(ours);
    Ok(index)
}

/// Whether `old` loses its name to `new`, or says no more than it.
fn replaces(new: &Descriptor, old: &Descriptor) -> bool {
    let same = |key| old.annotations.get(key) == new.annotations.get(key);
    let nameless = !old.annotations.contains_key(NAME) && !old.annotations.contains_key(REF_NAME);
    let is_same_image = new.digest == old.digest;
    (nameless && is_same_image)
        || (new.annotations.contains_key(NAME) && same(NAME) && same(REF_NAME))
}

fn docker_entry(packed: &Packed, names: &[Reference]) -> DockerEntry {
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
    // The writer looks at the size only; nobody asks for the hash or the place of this file.
    let origin = FileOrigin::Inline([].into());
    let node = Node::File(File { size, content: ContentHash::of(b""), origin });
    tar.node(&tree_path(name), &Meta::root(0o644, 0), &node, content)?;
    Ok(())
}

/// Opens the directory of a layout's blobs.
fn open_blobs(top: &OwnedFd, directory: &Path) -> Result<OwnedFd> {
    let mut at = top.try_clone().context("open", directory)?;
    let mut shown = directory.to_owned();
    for name in BLOBS.split('/') {
        shown.push(name);
        at = open_subdirectory(&at, name, &shown)?;
    }
    Ok(at)
}

fn is_file_of(directory: &OwnedFd, name: &str, size: u64) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(size)
    })
}

/// Writes a file of the layout, complete or not at all.
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
