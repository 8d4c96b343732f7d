//! What stands in a layer, and the listing that names all of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::oci::DiffId;

use super::TreePath;

/// BLAKE3 of a file's content: rbuild's own name for it, in cache keys and listings only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Takes the 32 bytes of a BLAKE3 hash.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// A name for all that a tree or layer holds but its mtimes: paths, contents, modes, owners,
/// links, extended attributes. Equal trees made at different times share it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentDigest([u8; 32]);

impl ContentDigest {
    /// Takes the 32 bytes of a hash that names content.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The content of a layer that came from a registry: its DiffId says it all.
    #[must_use]
    pub fn of_pulled(layer: DiffId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"rbuild/pulled-layer/v1");
        hasher.update(layer.digest().as_bytes());
        Self(hasher.finalize().into())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// Extended attributes by full name, such as `security.capability`; usually none.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What every file has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission, set-id and sticky bits: `mode & 0o7777`.
    pub mode: u32,
    /// Owner, as the image sees it.
    pub uid: u32,
    /// Group, as the image sees it.
    pub gid: u32,
    /// Modification time in whole seconds since 1970.
    pub mtime_s: i64,
    /// Extended attributes; `None` when there are none, which saves 16 bytes a file.
    pub xattrs: Option<Box<Xattrs>>,
}

impl Meta {
    /// Root's file with this mode and time.
    #[must_use]
    pub const fn root(mode: u32, mtime_s: i64) -> Self {
        Self { mode, uid: 0, gid: 0, mtime_s, xattrs: None }
    }

    /// The extended attributes, in order of their names.
    pub fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.xattrs.iter().flat_map(|xattrs| xattrs.iter()).map(|(name, value)| (&**name, &**value))
    }
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// Where a file's bytes can be read. It says nothing of what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOrigin {
    /// In a layer of the store: in its folder at `path`, or in its tar at `tar_at`.
    Layer {
        /// The layer.
        layer: DiffId,
        /// The file's path in it.
        path: TreePath,
        /// Offset of the content in the uncompressed tar, bytes.
        tar_at: u64,
    },
    /// In a folder that the driver has opened: the context, or an archive that was unpacked.
    Folder {
        /// The driver's number for the folder.
        folder: u32,
        /// The file's path in it.
        path: TreePath,
    },
    /// Right here.
    Inline(Arc<[u8]>),
}

/// A regular file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Length in bytes.
    pub size: u64,
    /// What it is.
    pub content: ContentHash,
    /// Where it is.
    pub origin: FileOrigin,
}

/// What kind of file it is, and what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder; `opaque` hides what lower layers have in it (image-spec, layer.md, "Opaque
    /// Whiteout").
    Directory {
        /// Whether lower layers' files in it are hidden.
        opaque: bool,
    },
    /// A regular file.
    File(File),
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// What a layer says about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Here is a file.
    Node(Meta, Node),
    /// The same file as the one at this path, which comes earlier in the layer.
    HardLink(TreePath),
    /// What lower layers have here is gone.
    Whiteout,
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where; never the root.
    pub path: TreePath,
    /// What.
    pub item: Item,
}

/// A layer's entries in the order of its tar: depth-first, names in byte order, each path once, a
/// hard link after the file that it links to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayerListing {
    entries: Vec<Entry>,
}

/// A layer that is still to be written: entries whose contents lie elsewhere.
pub type Layer = LayerListing;

impl LayerListing {
    /// Sorts `entries` into layer order. Of several entries for one path the last one counts, as
    /// when a tar is unpacked.
    ///
    /// A hard link that would come before its target trades places with it: the file is where its
    /// first path is.
    #[must_use]
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.retain(|entry| !entry.path.is_root());
        // Stable, so equal paths keep their order and the last of them can be kept.
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.reverse();
        entries.dedup_by(|later, kept| later.path == kept.path);
        entries.reverse();
        link_forward(&mut entries);
        Self { entries }
    }

    /// The entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries, to fill in what is known only after the layer was written.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    /// The entry at `path`.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&Item> {
        let at = self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()?;
        self.entries.get(at).map(|entry| &entry.item)
    }

    /// How many bytes the regular files have together.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.item.file().map_or(0, |file| file.size)).sum()
    }

    /// The content digest: everything but mtimes, in a form that is written down here (domain tag,
    /// then for each entry its path, kind and properties, each with its length in front).
    #[must_use]
    pub fn content_digest(&self) -> ContentDigest {
        let mut key = ContentWriter::new("rbuild/layer-content/v1");
        for entry in &self.entries {
            key.field(entry.path.as_bytes());
            key.item(&entry.item);
        }
        key.finish()
    }
}

/// Gives each group of hard links its file at the first of its paths.
fn link_forward(entries: &mut [Entry]) {
    let mut moved: BTreeMap<TreePath, TreePath> = BTreeMap::new();
    for at in 0..entries.len() {
        let Some((done, rest)) = entries.split_at_mut_checked(at) else { return };
        let Some((entry, later)) = rest.split_first_mut() else { return };
        let Item::HardLink(target) = &mut entry.item else { continue };
        if let Some(first) = moved.get(target) {
            *target = first.clone();
        }
        if *target == entry.path {
            continue;
        }
        let earlier = done.binary_search_by(|other| other.path.cmp(target)).is_ok();
        if earlier {
            continue;
        }
        let Ok(found) = later.binary_search_by(|other| other.path.cmp(target)) else { continue };
        if let Some(file) = later.get_mut(found) {
            moved.insert(file.path.clone(), entry.path.clone());
            std::mem::swap(&mut file.item, &mut entry.item);
            file.item = Item::HardLink(entry.path.clone());
        }
    }
}

impl Item {
    /// The regular file, if it is one.
    #[must_use]
    pub const fn file(&self) -> Option<&File> {
        match self {
            Self::Node(_, Node::File(file)) => Some(file),
            Self::Node(..) | Self::HardLink(_) | Self::Whiteout => None,
        }
    }

    /// Whether it is a folder.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        matches!(self, Self::Node(_, Node::Directory { .. }))
    }
}

/// Hashes tree content in one written-down form: every field has its length in front.
#[derive(Debug)]
pub struct ContentWriter {
    hasher: blake3::Hasher,
}

impl ContentWriter {
    /// Starts with a domain tag, which holds a version.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        let mut writer = Self { hasher: blake3::Hasher::new() };
        writer.field(domain.as_bytes());
        writer
    }

    /// Appends bytes of any length.
    pub fn field(&mut self, bytes: &[u8]) {
        self.number(u64::try_from(bytes.len()).expect("a slice is shorter than 2^64"));
        self.hasher.update(bytes);
    }

    /// Appends a number.
    pub fn number(&mut self, number: u64) {
        self.hasher.update(&number.to_le_bytes());
    }

    /// Appends what a layer says about a path.
    pub fn item(&mut self, item: &Item) {
        match item {
            Item::Node(meta, node) => {
                self.meta(meta);
                self.node(node);
            }
            Item::HardLink(target) => {
                self.field(b"link");
                self.field(target.as_bytes());
            }
            Item::Whiteout => self.field(b"whiteout"),
        }
    }

    /// Appends a node: its kind, and what only that kind has.
    pub fn node(&mut self, node: &Node) {
        match node {
            Node::Directory { opaque } => {
                self.field(b"directory");
                self.number(u64::from(*opaque));
            }
            Node::File(file) => {
                self.field(b"file");
                self.number(file.size);
                self.field(file.content.as_bytes());
            }
            Node::Symlink(target) => {
                self.field(b"symlink");
                self.field(target);
            }
            Node::CharDevice(device) => self.device(b"char", *device),
            Node::BlockDevice(device) => self.device(b"block", *device),
            Node::Fifo => self.field(b"fifo"),
        }
    }

    fn device(&mut self, kind: &[u8], device: Device) {
        self.field(kind);
        self.number(u64::from(device.major));
        self.number(u64::from(device.minor));
    }

    /// Appends mode, owners and extended attributes; not the mtime.
    pub fn meta(&mut self, meta: &Meta) {
        self.number(u64::from(meta.mode));
        self.number(u64::from(meta.uid));
        self.number(u64::from(meta.gid));
        for (name, value) in meta.xattrs() {
            self.field(name);
            self.field(value);
        }
        self.field(b"");
    }

    /// The digest of all that was appended.
    #[must_use]
    pub fn finish(self) -> ContentDigest {
        ContentDigest(self.hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    fn file(text: &str, mtime_s: i64) -> Item {
        let bytes: Arc<[u8]> = text.as_bytes().into();
        let content = ContentHash::of(&bytes);
        let origin = FileOrigin::Inline(bytes);
        let size = u64::try_from(text.len()).unwrap();
        Item::Node(Meta::root(0o644, mtime_s), Node::File(File { size, content, origin }))
    }

    fn entry(at: &str, item: Item) -> Entry {
        Entry { path: path(at), item }
    }

    #[test]
    fn listing_sorts_and_keeps_the_last_entry_of_a_path() {
        let listing = LayerListing::new(vec![
            entry("b", file("1", 0)),
            entry("a", file("2", 0)),
            entry("b", file("3", 0)),
        ]);
        assert_eq!(listing.entries(), [entry("a", file("2", 0)), entry("b", file("3", 0))]);
    }

    #[test]
    fn listing_puts_a_hard_linked_file_at_its_first_path() {
        let listing = LayerListing::new(vec![
            entry("z", file("1", 0)),
            entry("a", Item::HardLink(path("z"))),
            entry("m", Item::HardLink(path("z"))),
        ]);
        let want = [
            entry("a", file("1", 0)),
            entry("m", Item::HardLink(path("a"))),
            entry("z", Item::HardLink(path("a"))),
        ];
        assert_eq!(listing.entries(), want);
    }

    #[test]
    fn content_digest_ignores_only_times() {
        let digest = |at: &str, text: &str, mtime_s| {
            LayerListing::new(vec![entry(at, file(text, mtime_s))]).content_digest()
        };
        assert_eq!(digest("a", "x", 1), digest("a", "x", 2));
        assert_ne!(digest("a", "x", 1), digest("b", "x", 1));
        assert_ne!(digest("a", "x", 1), digest("a", "y", 1));
        assert_eq!(
            format!("{:?}", LayerListing::default().content_digest()),
            "095e0b7de623a57532f7c37263fd0b0b4a11d3aebccdf618c5b8f69ef86a93b6"
        );
    }
}
