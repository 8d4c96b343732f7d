//! The merged file tree of an image, with access to the content of each file.

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

/// An image's merged tree and its opened layers.
pub(super) struct Rootfs<'s> {
    store: &'s Store,
    tree: Tree,
    /// The start of walks.
    top: TreePath,
    sources: BTreeMap<DiffId, LayerContent>,
}

/// The source of a layer's file contents.
enum LayerContent {
    /// The uncompressed tar, read by offset.
    Tar(OsFile),
    /// The unpacked directory, read by path.
    Directory(LowerDirectory),
}

/// An entry of the merged tree.
pub(super) enum RootfsEntry<'a> {
    Directory(&'a Meta),
    /// Any other file type.
    Node(&'a Meta, &'a Node),
    /// A hard link to the file at this path, which came earlier in the walk.
    HardLink(TreePath, &'a Meta),
}

/// The opened content of a file.
enum FileContent<'a> {
    Whole(OsFile),
    Range(&'a OsFile, u64),
    Inline(&'a [u8]),
}

impl<'s> Rootfs<'s> {
    /// Merges the layers and opens those with files in the merged tree.
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
                sources.insert(*diff_id, open_layer(store, *diff_id, listing, options)?);
            }
        }
        Ok(Self { store, tree, top: TreePath::root(), sources })
    }

    /// Iterates over the tree depth-first, directories before their content. Omits the root.
    pub(super) fn entries(&self) -> impl Iterator<Item = (TreePath, RootfsEntry<'_>)> {
        let mut first_paths: HashMap<usize, TreePath> = HashMap::new();
        self.tree.walk(&self.top).map(move |(path, node)| {
            let found = match node {
                TreeNode::Dir(directory) => RootfsEntry::Directory(&directory.meta),
                TreeNode::Leaf(leaf) => match leaf.identity().map(|id| first_paths.entry(id)) {
                    Some(Entry::Occupied(first)) => {
                        RootfsEntry::HardLink(first.get().clone(), leaf.meta())
                    }
                    Some(Entry::Vacant(none)) => {
                        none.insert(path.clone());
                        RootfsEntry::Node(leaf.meta(), leaf.node())
                    }
                    None => RootfsEntry::Node(leaf.meta(), leaf.node()),
                },
            };
            (path, found)
        })
    }

    /// Returns the names in each directory of the tree, which may be none.
    pub(super) fn names(&self) -> BTreeMap<TreePath, BTreeSet<Vec<u8>>> {
        let mut names = BTreeMap::from([(TreePath::root(), BTreeSet::new())]);
        for (path, _) in self.tree.walk(&self.top) {
            let directory = path.parent().unwrap_or_default();
            let of_directory: &mut BTreeSet<Vec<u8>> = names.entry(directory).or_default();
            of_directory.extend(path.name().map(<[u8]>::to_vec));
        }
        names
    }

    /// Opens a file of the tree for reading. The reader fails at its end if the content does not
    /// match the layer's listing.
    pub(super) fn reader<'a>(&'a self, file: &'a File) -> io::Result<Box<dyn Read + 'a>> {
        let source: Box<dyn Read + 'a> = match self.content(file)? {
            FileContent::Whole(whole) => Box::new(whole),
            FileContent::Range(tar, at) => Box::new(FileRange { tar, at, left: file.size }),
            FileContent::Inline(bytes) => return Ok(Box::new(bytes)),
        };
        Ok(Box::new(CheckedReader {
            source: HashingReader::new(source),
            left: file.size,
            file,
            rootfs: self,
        }))
    }

    /// Checks the hash of a file's content.
    fn check(&self, file: &File, content: ContentHash) -> io::Result<()> {
        let FileOrigin::Layer(place) = &file.origin else { return Ok(()) };
        if content == file.content {
            return Ok(());
        }
        Err(io::Error::other(self.store.damaged_content(place.layer, &place.path)))
    }

    /// Copies a file of the tree to an empty one, inside the kernel where possible. Keeps holes.
    pub(super) fn copy(&self, file: &File, mut to: &OsFile) -> io::Result<()> {
        let (n_copied, content) = match self.content(file)? {
            FileContent::Whole(whole) => {
                let n_copied = holes::copy(&whole, 0, u64::MAX, to)?;
                let piece = FileRange { tar: &whole, at: 0, left: n_copied };
                (n_copied, Some(hash_of(piece)?))
            }
            FileContent::Range(tar, at) => {
                let n_copied = holes::copy(tar, at, file.size, to)?;
                (n_copied, Some(hash_of(FileRange { tar, at, left: file.size })?))
            }
            FileContent::Inline(mut bytes) => (io::copy(&mut bytes, &mut to)?, None),
        };
        if let Some(content) = content {
            self.check(file, content)?;
        }
        if n_copied == file.size {
            return Ok(());
        }
        let want = file.size;
        Err(io::Error::other(format!(
            "the layer has {n_copied} bytes of the file instead of {want}"
        )))
    }

    fn content<'a>(&'a self, file: &'a File) -> io::Result<FileContent<'a>> {
        let (layer, path, tar_at) = match &file.origin {
            FileOrigin::Layer(place) => (&place.layer, &place.path, place.tar_at),
            FileOrigin::Inline(bytes) => return Ok(FileContent::Inline(bytes)),
            FileOrigin::Directory(place) => {
                return Err(io::Error::other(format!("{} is not in a layer", place.path())));
            }
        };
        match self.sources.get(layer) {
            _ if file.size == 0 => Ok(FileContent::Inline(&[])),
            Some(LayerContent::Tar(tar)) => Ok(FileContent::Range(tar, tar_at)),
            Some(LayerContent::Directory(directory)) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let mode = Mode::empty();
                let opened =
                    rustix::fs::openat2(directory.as_fd(), path.as_path(), flags, mode, resolve)?;
                Ok(FileContent::Whole(opened.into()))
            }
            None => {
                Err(io::Error::other(format!("the layer {layer} does not belong to the image")))
            }
        }
    }
}

/// A reader that hashes a layer's file and checks the hash at its end.
struct CheckedReader<'a> {
    source: HashingReader<Box<dyn Read + 'a>>,
    left: u64,
    file: &'a File,
    rootfs: &'a Rootfs<'a>,
}

impl Read for CheckedReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.source.read(to)?;
        let n_before = self.left;
        self.left = self.left.saturating_sub(u64::try_from(n_bytes).unwrap_or(u64::MAX));
        // A caller that knows the size may not read up to the end of file.
        let is_end = self.left == 0 && n_before > 0 || n_bytes == 0 && !to.is_empty();
        if is_end {
            self.rootfs.check(self.file, self.source.hash())?;
        }
        Ok(n_bytes)
    }
}

/// Returns the hash of all bytes of `source`.
fn hash_of(source: impl Read) -> io::Result<ContentHash> {
    let mut source = HashingReader::new(source);
    let mut buffer = vec![0; 256 << 10];
    while source.read(&mut buffer)? > 0 {}
    Ok(source.hash())
}

/// A range of a file that is shared with other readers.
struct FileRange<'a> {
    tar: &'a OsFile,
    at: u64,
    left: u64,
}

impl Read for FileRange<'_> {
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

/// Opens a layer as a directory if it is unpacked, or else as a plain tar: that is made faster than
/// a directory, and it will not be mounted.
fn open_layer(
    store: &Store,
    diff_id: DiffId,
    listing: &PackedListing,
    options: &ExportOptions,
) -> Result<LayerContent> {
    if let Some(directory) = store.layer_directory(diff_id)? {
        return Ok(LayerContent::Directory(directory));
    }
    if listing.stream().any(|entry| is_sparse(entry.item.file())) {
        let options = LayerOptions { clamp_s: None, created_s: 0 };
        return Ok(LayerContent::Directory(store.unpacked(diff_id, &options)?));
    }
    store.pack(diff_id, Packing::None, options.jobs)?;
    Ok(LayerContent::Tar(store.open_blob(diff_id.digest())?))
}

fn is_sparse(file: Option<&File>) -> bool {
    file.and_then(|file| file.origin.tar_at()) == Some(NOT_IN_ONE_PIECE)
}
