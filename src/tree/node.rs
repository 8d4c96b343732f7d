//! What a file is: its properties, what only its kind has, where its content lies, and the one
//! written-down form in which all of that is hashed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::oci::DiffId;

use super::{DirectoryPlace, Item, TreePath};

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
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// Extended attributes by full name, such as `security.capability`; usually none.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// The attribute of file capabilities (capabilities(7)).
pub const CAPABILITY_XATTR: &[u8] = b"security.capability";

/// Returns whether images keep an extended attribute: file capabilities and what users set. Others
/// speak to this machine's kernel: labels, access lists, and the marks of overlayfs, which in a user
/// namespace are `user.overlay.*`.
#[must_use]
pub fn is_kept_xattr(name: &[u8]) -> bool {
    let is_user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    (name == CAPABILITY_XATTR || is_user) && !name.contains(&0)
}

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
    /// In a layer of the store. Boxed, so that files that lie elsewhere need no space for it.
    Layer(Box<LayerPlace>),
    /// In a directory that the driver has opened.
    Directory(DirectoryPlace),
    /// Right here.
    Inline(Arc<[u8]>),
}

/// A place in a layer: in its directory at `path`, or in its tar at `tar_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlace {
    /// The layer.
    pub layer: DiffId,
    /// The file's path in it.
    pub path: TreePath,
    /// Offset of the content in the uncompressed tar, bytes.
    pub tar_at: u64,
}

impl FileOrigin {
    /// At `path` in the directory with the driver's number `opened`.
    #[must_use]
    pub fn directory(opened: u32, path: TreePath) -> Self {
        Self::Directory(DirectoryPlace::new(opened, path))
    }

    /// Offset of the content in the tar of the layer that the file lies in, if it does.
    #[must_use]
    pub const fn tar_at(&self) -> Option<u64> {
        match self {
            Self::Layer(place) => Some(place.tar_at),
            Self::Directory(_) | Self::Inline(_) => None,
        }
    }

    /// At `path` in a layer, or at `tar_at` in its tar.
    #[must_use]
    pub fn layer(layer: DiffId, path: TreePath, tar_at: u64) -> Self {
        Self::Layer(Box::new(LayerPlace { layer, path, tar_at }))
    }
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
    /// A directory; `opaque` hides what lower layers have in it (image-spec, layer.md, "Opaque
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
            Item::Opaque => self.field(b"opaque"),
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
