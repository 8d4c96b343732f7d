//! The file tree of an image: all layers merged, and where the content of each file is.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File as OsFile;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::archive::{HashingReader, NOT_IN_ONE_PIECE, PackedListing, Packing};
use crate::oci::DiffId;
use crate::pathio::holes;
use crate::store::{LayerOptions, LowerDirectory, Store};
use crate::tree::{
    ContentHash, File, FileOrigin, LayerEntries as _, Meta, Node, Tree, TreeNode, TreePath,
};

use super::{ExportOptions, Image, Result};

/// An image's merged tree, its layers opened.
pub(super) struct Rootfs<'s> {
    store: &'s Store,
    tree: Tree,
    /// Where walks begin.
    top: TreePath,
    sources: BTreeMap<DiffId, Source>,
}

/// Where a layer's contents are read.
enum Source {
    /// In its plain tar, by offset.
    Tar(OsFile),
    /// In its directory, by path.
    Directory(LowerDirectory),
}

/// What stands at a path.
pub(super) enum Found<'a> {
    Directory(&'a Meta),
    /// Anything but a directory.
    Node(&'a Meta, &'a Node),
    /// The same file as at this path, which came before.
    HardLink(TreePath, &'a Meta),
}

/// A file's content, opened.
enum Content<'a> {
    Whole(OsFile),
    Piece(&'a OsFile, u64),
    Here(&'a [u8]),
}

impl<'s> Rootfs<'s> {
    /// Merges the layers and opens those that still hold files.
    pub(super) fn open(store: &'s Store, image: &Image, options: &ExportOptions) -> Result<Self> {
        let diff_ids: Vec<DiffId> = image.layers().iter().map(|layer| layer.diff_id).collect();
        let mut tree = Tree::default();
        let mut listings = Vec::with_capacity(diff_ids.len());
        for diff_id in &diff_ids {
            let listing = store.listing(*diff_id)?;
            tree.apply(&*listing);
            listings.push(listing);
        }
        let used = layers_in(&tree);
        let mut sources = BTreeMap::new();
        for (diff_id, listing) in diff_ids.iter().zip(&listings) {
            if used.contains(diff_id) && !sources.contains_key(diff_id) {
                sources.insert(*diff_id, source(store, *diff_id, listing, options)?);
            }
        }
        Ok(Self { store, tree, top: TreePath::root(), sources })
    }

    /// All that the tree holds, depth-first, a directory before its content; not the root.
    pub(super) fn entries(&self) -> impl Iterator<Item = (TreePath, Found<'_>)> {
        let mut first_paths: HashMap<usize, TreePath> = HashMap::new();
        self.tree.walk(&self.top).map(move |(path, node)| {
            let found = match node {
                TreeNode::Dir(directory) => Found::Directory(&directory.meta),
                TreeNode::Leaf(leaf) => match leaf.identity().map(|id| first_paths.entry(id)) {
                    Some(Entry::Occupied(first)) => {
                        Found::HardLink(first.get().clone(), leaf.meta())
                    }
                    Some(Entry::Vacant(none)) => {
                        none.insert(path.clone());
                        Found::Node(leaf.meta(), leaf.node())
                    }
                    None => Found::Node(leaf.meta(), leaf.node()),
                },
            };
            (path, found)
        })
    }

    /// Reads a file of the tree. At its end it is an error if the content is not that of the layer.
    pub(super) fn reader<'a>(&'a self, file: &'a File) -> io::Result<Box<dyn Read + 'a>> {
        let source: Box<dyn Read + 'a> = match self.content(file)? {
            Content::Whole(whole) => Box::new(whole),
            Content::Piece(tar, at) => Box::new(Piece { tar, at, left: file.size }),
            Content::Here(bytes) => return Ok(Box::new(bytes)),
        };
        Ok(Box::new(Checked {
            source: HashingReader::new(source),
            left: file.size,
            file,
            rootfs: self,
        }))
    }

    /// Checks what was read of a file.
    fn check(&self, file: &File, content: ContentHash) -> io::Result<()> {
        let FileOrigin::Layer(place) = &file.origin else { return Ok(()) };
        if content == file.content {
            return Ok(());
        }
        Err(io::Error::other(self.store.damaged_content(place.layer, &place.path)))
    }

    /// Copies a file of the tree to an empty one, inside the kernel where it can. Holes stay holes.
    pub(super) fn copy(&self, file: &File, mut to: &OsFile) -> io::Result<()> {
        let (n_copied, content) = match self.content(file)? {
            Content::Whole(whole) => {
                let n_copied = holes::copy(&whole, 0, u64::MAX, to)?;
                let piece = Piece { tar: &whole, at: 0, left: n_copied };
                (n_copied, Some(content_of(piece)?))
            }
            Content::Piece(tar, at) => {
                let n_copied = holes::copy(tar, at, file.size, to)?;
                (n_copied, Some(content_of(Piece { tar, at, left: file.size })?))
            }
            Content::Here(mut bytes) => (io::copy(&mut bytes, &mut to)?, None),
        };
        if let Some(content) = content {
            self.check(file, content)?;
        }
        if n_copied == file.size {
            return Ok(());
        }
        let want = file.size;
        Err(io::Error::other(format!("the layer has {n_copied} bytes of it, not {want}")))
    }

    fn content<'a>(&'a self, file: &'a File) -> io::Result<Content<'a>> {
        let (layer, path, tar_at) = match &file.origin {
            FileOrigin::Layer(place) => (&place.layer, &place.path, place.tar_at),
            FileOrigin::Inline(bytes) => return Ok(Content::Here(bytes)),
            FileOrigin::Directory(place) => {
                return Err(io::Error::other(format!("{} is in no layer", place.path())));
            }
        };
        match self.sources.get(layer) {
            _ if file.size == 0 => Ok(Content::Here(&[])),
            Some(Source::Tar(tar)) => Ok(Content::Piece(tar, tar_at)),
            Some(Source::Directory(directory)) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let mode = Mode::empty();
                let opened =
                    rustix::fs::openat2(directory.as_fd(), path.as_path(), flags, mode, resolve)?;
                Ok(Content::Whole(opened.into()))
            }
            None => Err(io::Error::other(format!("the layer {layer} is not one of the image's"))),
        }
    }
}

/// A file of a layer that is hashed while it is read.
struct Checked<'a> {
    source: HashingReader<Box<dyn Read + 'a>>,
    left: u64,
    file: &'a File,
    rootfs: &'a Rootfs<'a>,
}

impl Read for Checked<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.source.read(to)?;
        let n_before = self.left;
        self.left = self.left.saturating_sub(u64::try_from(n_bytes).unwrap_or(u64::MAX));
        // Whoever knows the size does not ask for the end.
        let is_end = self.left == 0 && n_before > 0 || n_bytes == 0 && !to.is_empty();
        if is_end {
            self.rootfs.check(self.file, self.source.hash())?;
        }
        Ok(n_bytes)
    }
}

/// The hash of all that is in `source`.
fn content_of(source: impl Read) -> io::Result<ContentHash> {
    let mut source = HashingReader::new(source);
    let mut buffer = vec![0; 256 << 10];
    while source.read(&mut buffer)? > 0 {}
    Ok(source.hash())
}

/// A part of a file that others read as well.
struct Piece<'a> {
    tar: &'a OsFile,
    at: u64,
    left: u64,
}

impl Read for Piece<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(to.len());
        let n_read = self.tar.read_at(to.get_mut(..n_wanted).unwrap_or_default(), self.at)?;
        let more = u64::try_from(n_read).unwrap_or(u64::MAX);
        self.at = self.at.saturating_add(more);
        self.left = self.left.saturating_sub(more);
        Ok(n_read)
    }
}

fn layers_in(tree: &Tree) -> BTreeSet<DiffId> {
    let top = TreePath::root();
    let files = tree.walk(&top).filter_map(|(_path, node)| {
        let TreeNode::Leaf(leaf) = node else { return None };
        let Node::File(file) = leaf.node() else { return None };
        let FileOrigin::Layer(place) = &file.origin else { return None };
        Some(place.layer)
    });
    files.collect()
}

/// Opens a layer in the form that it has, or else as a plain tar: that is made faster than a
/// directory, and nobody is going to mount it.
fn source(
    store: &Store,
    diff_id: DiffId,
    listing: &PackedListing,
    options: &ExportOptions,
) -> Result<Source> {
    if let Some(directory) = store.layer_directory(diff_id)? {
        return Ok(Source::Directory(directory));
    }
    if listing.stream().any(|entry| is_sparse(entry.item.file())) {
        let options = LayerOptions { clamp_s: None, created_s: 0 };
        return Ok(Source::Directory(store.unpacked(diff_id, &options)?));
    }
    store.pack(diff_id, Packing::None, options.jobs)?;
    Ok(Source::Tar(store.open_blob(diff_id.digest())?))
}

fn is_sparse(file: Option<&File>) -> bool {
    file.and_then(|file| file.origin.tar_at()) == Some(NOT_IN_ONE_PIECE)
}
