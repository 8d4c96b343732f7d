//! A file's properties, type and content location, and the canonical encoding in which they are
//! hashed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::oci::DiffId;

use super::{FileInDirectory, LayerItem, TreePath};

/// The BLAKE3 hash of a file's content. Used by rbuild only, in cache keys and listings, never in
/// an image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Wraps the 32 bytes of a BLAKE3 hash.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Hashes `bytes` with BLAKE3.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// Returns the 32 bytes of the hash.
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

/// The digest of everything in a tree or layer but its times: paths, contents, modes, owners,
/// links, extended attributes. Equal trees made at different times have the same digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentDigest([u8; 32]);

impl ContentDigest {
    /// Wraps the 32 bytes of a content digest.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the content digest of a layer from a registry, which its DiffId determines.
    #[must_use]
    pub fn of_pulled(layer: DiffId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"rbuild/pulled-layer/v1");
        hasher.update(layer.digest().as_bytes());
        Self(hasher.finalize().into())
    }

    /// Returns the 32 bytes of the digest.
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

/// Extended attributes by full name, such as `security.capability` (xattr(7)); usually none.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// The attribute of file capabilities (capabilities(7)).
pub const CAPABILITY_XATTR: &[u8] = b"security.capability";

/// Returns whether images keep an extended attribute: file capabilities and `user.*` are kept.
/// Others only matter to this machine's kernel: security labels, access control lists, and the
/// marks of overlayfs, which in a user namespace are named `user.overlay.*`
/// (<https://docs.kernel.org/filesystems/overlayfs.html>).
#[must_use]
pub fn is_kept_xattr(name: &[u8]) -> bool {
    let is_user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    (name == CAPABILITY_XATTR || is_user) && !name.contains(&0)
}

/// The properties that every file has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission, set-id and sticky bits: `mode & 0o7777` (inode(7)).
    pub mode: u32,
    /// The owner's user id inside the image.
    pub uid: u32,
    /// The group id inside the image.
    pub gid: u32,
    /// The modification time in whole seconds since 1970.
    pub mtime_s: i64,
    /// The extended attributes; `None` when there are none, which saves 16 bytes a file.
    pub xattrs: Option<Box<Xattrs>>,
}

impl Meta {
    /// Returns the properties of a file of root with this mode and time.
    #[must_use]
    pub const fn root(mode: u32, mtime_s: i64) -> Self {
        Self { mode, uid: 0, gid: 0, mtime_s, xattrs: None }
    }

    /// Iterates over the extended attributes, in order of their names.
    pub fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.xattrs.iter().flat_map(|xattrs| xattrs.iter()).map(|(name, value)| (&**name, &**value))
    }
}

/// A device number (makedev(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The major number: the driver.
    pub major: u32,
    /// The minor number: the driver's device.
    pub minor: u32,
}

/// The location of a file's bytes. It does not identify them; the hash does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOrigin {
    /// A layer of the store. Boxed, so files elsewhere need no space for it.
    Layer(Box<FileInLayer>),
    /// A directory that the driver has opened.
    Directory(FileInDirectory),
    /// The bytes themselves.
    Inline(Arc<[u8]>),
}

/// A file in a layer: at `path` in its directory, or at `tar_at` in its tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInLayer {
    /// The DiffId of the layer.
    pub layer: DiffId,
    /// The path in the layer's directory.
    pub path: TreePath,
    /// The offset of the content in the uncompressed tar, in bytes.
    pub tar_at: u64,
}

impl FileOrigin {
    /// Returns the location `path` in the directory that the driver has numbered `opened`.
    #[must_use]
    pub fn directory(opened: u32, path: TreePath) -> Self {
        Self::Directory(FileInDirectory::new(opened, path))
    }

    /// Returns the offset of the content in its layer's tar, if the file is in a layer.
    #[must_use]
    pub const fn tar_at(&self) -> Option<u64> {
        match self {
            Self::Layer(place) => Some(place.tar_at),
            Self::Directory(_) | Self::Inline(_) => None,
        }
    }

    /// Returns the location in a layer: `path` in its directory, `tar_at` in its tar.
    #[must_use]
    pub fn layer(layer: DiffId, path: TreePath, tar_at: u64) -> Self {
        Self::Layer(Box::new(FileInLayer { layer, path, tar_at }))
    }
}

/// The content of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The length in bytes.
    pub size: u64,
    /// The hash of the bytes.
    pub content: ContentHash,
    /// The location of the bytes.
    pub origin: FileOrigin,
}

/// The type of a file, and the data that only this type has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory; an opaque one hides the contents of lower layers (image-spec, layer.md, "Opaque
    /// Whiteout").
    Directory {
        /// True if files of lower layers in it are hidden.
        opaque: bool,
    },
    /// A regular file with its content.
    File(File),
    /// A symbolic link and its target, not resolved.
    Symlink(Box<[u8]>),
    /// A character device with its number.
    CharDevice(Device),
    /// A block device with its number.
    BlockDevice(Device),
    /// A named pipe (fifo(7)).
    Fifo,
}

/// Hashes tree content in a canonical encoding: each field is preceded by its length.
#[derive(Debug)]
pub struct ContentWriter {
    hasher: blake3::Hasher,
}

impl ContentWriter {
    /// Starts a digest with a domain tag, which contains a version.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        let mut writer = Self { hasher: blake3::Hasher::new() };
        writer.field(domain.as_bytes());
        writer
    }

    /// Appends bytes, preceded by their length.
    pub fn field(&mut self, bytes: &[u8]) {
        self.number(u64::try_from(bytes.len()).expect("a slice is shorter than 2^64"));
        self.hasher.update(bytes);
    }

    /// Appends a number as 8 bytes, little-endian.
    pub fn number(&mut self, number: u64) {
        self.hasher.update(&number.to_le_bytes());
    }

    /// Appends an item of a layer.
    pub fn item(&mut self, item: &LayerItem) {
        match item {
            LayerItem::Node(meta, node) => {
                self.meta(meta);
                self.node(node);
            }
            LayerItem::HardLink(target) => {
                self.field(b"link");
                self.field(target.as_bytes());
            }
            LayerItem::Whiteout => self.field(b"whiteout"),
            LayerItem::Opaque => self.field(b"opaque"),
        }
    }

    /// Appends a node: its type and the data of that type.
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

    /// Appends mode, owners and extended attributes, but not the time.
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

    /// Returns the digest of everything that was appended.
    #[must_use]
    pub fn finish(self) -> ContentDigest {
        ContentDigest(self.hasher.finalize().into())
    }
}
