//! Writes a layer's tar from its listing.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use crate::tree::{ContentHash, Entry, File, LayerEntries, LayerItem, Meta, Node, TreePath};

use super::{ArchiveError, TarWriter};

/// A function that opens the content of a file in a listing.
pub type OpenFile<'a> = &'a dyn Fn(&File, &TreePath) -> io::Result<Box<dyn Read>>;

/// A reader that computes the BLAKE3 hash of the bytes read.
#[derive(Debug)]
pub struct HashingReader<R> {
    source: R,
    hasher: blake3::Hasher,
}

impl<R: Read> HashingReader<R> {
    /// Creates a reader of `source`.
    pub fn new(source: R) -> Self {
        Self { source, hasher: blake3::Hasher::new() }
    }

    /// Returns the hash of the bytes read so far.
    pub fn hash(&self) -> ContentHash {
        ContentHash::new(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_read = self.source.read(to)?;
        self.hasher.update(to.get(..n_read).unwrap_or_default());
        Ok(n_read)
    }
}

/// Mode and owners of files with hard links, which each link's header repeats.
#[derive(Debug, Default)]
pub(crate) struct LinkMetas(HashMap<TreePath, Meta>);

impl LinkMetas {
    /// Collects them from a layer's entries.
    pub(crate) fn of(entries: &dyn LayerEntries) -> Self {
        let mut metas: HashMap<TreePath, Option<Meta>> = HashMap::new();
        for entry in entries.stream() {
            if let LayerItem::HardLink(target) = &entry.item {
                metas.insert(target.clone(), None);
            }
        }
        if !metas.is_empty() {
            for entry in entries.stream() {
                if let LayerItem::Node(meta, _) = &entry.item
                    && let Some(slot) = metas.get_mut(&entry.path)
                {
                    *slot = Some(meta.clone());
                }
            }
        }
        let known = metas.into_iter().filter_map(|(path, meta)| Some((path, meta?)));
        Self(known.collect())
    }

    /// Replaces the properties of the file at `path`.
    pub(crate) fn update(&mut self, path: &TreePath, meta: &Meta) {
        if let Some(known) = self.0.get_mut(path) {
            *known = meta.clone();
        }
    }

    /// Returns the properties of the file at `target`.
    pub(crate) fn get(&self, path: &TreePath, target: &TreePath) -> Result<&Meta, ArchiveError> {
        self.0.get(target).ok_or_else(|| ArchiveError::Unwritable {
            path: path.clone(),
            what: "it is a hard link to a file that is not in the layer",
        })
    }
}

/// Writes the tar of `entries` into `sink`; `open` returns the content of each file.
///
/// # Errors
/// [`ArchiveError::Content`] if a file cannot be opened or read, `SizeChanged` if its length
/// differs from the listing, `Unwritable`, `Write`.
pub fn write_listing<W: Write>(
    entries: &dyn LayerEntries,
    open: OpenFile<'_>,
    sink: W,
) -> Result<W, ArchiveError> {
    let links = LinkMetas::of(entries);
    let mut tar = TarWriter::new(sink);
    for entry in entries.stream() {
        let Entry { path, item } = &*entry;
        match item {
            LayerItem::Whiteout => tar.whiteout(path)?,
            LayerItem::Opaque => tar.opaque(path)?,
            LayerItem::HardLink(target) => tar.hard_link(path, target, links.get(path, target)?)?,
            LayerItem::Node(meta, node) => {
                let mut content: Box<dyn Read> = match item.file() {
                    Some(file) if file.size > 0 => open(file, path)
                        .map_err(|source| ArchiveError::Content { path: path.clone(), source })?,
                    _ => Box::new(io::empty()),
                };
                tar.node(path, meta, node, &mut content)?
            }
        };
    }
    tar.finish()
}

/// Writes the tar like [`write_listing`], and checks each content against its hash. Calls `written`
/// after each entry, with the offset of its content in the tar.
///
/// # Errors
/// Those of [`write_listing`], and [`ArchiveError::ContentChanged`] if a file differs from the
/// listing. An error of `written` becomes `Write`.
pub fn write_listing_checked<W: Write>(
    entries: &dyn LayerEntries,
    open: OpenFile<'_>,
    sink: W,
    written: &mut dyn FnMut(&Entry, u64) -> io::Result<()>,
) -> Result<W, ArchiveError> {
    let links = LinkMetas::of(entries);
    let mut tar = TarWriter::new(sink);
    for entry in entries.stream() {
        let Entry { path, item } = &*entry;
        let at = match item {
            LayerItem::Whiteout => tar.whiteout(path)?,
            LayerItem::Opaque => tar.opaque(path)?,
            LayerItem::HardLink(target) => tar.hard_link(path, target, links.get(path, target)?)?,
            LayerItem::Node(meta, node @ Node::File(file)) => {
                let content = open(file, path)
                    .map_err(|source| ArchiveError::Content { path: path.clone(), source })?;
                let mut content = HashingReader::new(content);
                let at = tar.node(path, meta, node, &mut content)?;
                if content.hash() != file.content {
                    return Err(ArchiveError::ContentChanged { path: path.clone() });
                }
                at
            }
            LayerItem::Node(meta, node) => tar.node(path, meta, node, &mut io::empty())?,
        };
        written(&entry, at).map_err(ArchiveError::Write)?;
    }
    tar.finish()
}
