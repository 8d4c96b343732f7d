//! The binary encoding of a layer's listing, for the store.
//!
//! It consists of magic and version, the number of entries, the entries, and the first 16 bytes of
//! the BLAKE3 hash of all that. An entry has the number of bytes that its path shares with the
//! previous one, the rest of the path, its type, and the data of that type. Numbers are LEB128,
//! signed ones zigzag-encoded. The location of a file's bytes is not stored, except for their
//! offset in the layer's tar.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::limits::{MAX_ARCHIVE_PATH_BYTES, MAX_LISTING_FIELD_BYTES, MAX_UNTRUSTED_ENTRIES};
use crate::oci::DiffId;
use crate::tree::{
    ContentHash, Device, Entry, File, FileOrigin, LayerEntries, LayerItem, Meta, Node, TreePath,
    Xattrs,
};

use super::{ListingError, NOT_IN_ONE_PIECE};

/// The magic number of version 3. Another layout needs another number.
const MAGIC: [u8; 4] = *b"rbL\x03";

/// The magic number of version 2, which had no checksum.
const MAGIC_2: [u8; 4] = *b"rbL\x02";

/// The magic number of version 1, which had no checksum either. It was written by two code paths
/// that did not always agree.
const MAGIC_1: [u8; 4] = *b"rbL\x01";

/// Length of the truncated hash at the end.
const CHECKSUM_BYTES: usize = 16;

const WHITEOUT: u8 = 0;
const HARD_LINK: u8 = 1;
const DIRECTORY: u8 = 2;
const OPAQUE_DIRECTORY: u8 = 3;
const FILE: u8 = 4;
const SYMLINK: u8 = 5;
const CHAR_DEVICE: u8 = 6;
const BLOCK_DEVICE: u8 = 7;
const FIFO: u8 = 8;
const OPAQUE: u8 = 9;

/// Writes the listing of a layer, entry by entry. Listings that are equal but for locations give
/// equal bytes.
#[derive(Debug)]
pub struct ListingWriter<W> {
    sink: W,
    out: ListingEncoder,
    /// The hash of everything sent to the sink.
    hasher: blake3::Hasher,
    /// The path of the previous entry.
    before: Vec<u8>,
    /// The number of remaining entries.
    n_left: usize,
}

impl<W: Write> ListingWriter<W> {
    /// Starts a listing of `n_entries` entries.
    pub fn new(sink: W, n_entries: usize) -> Self {
        let mut out = ListingEncoder(MAGIC.to_vec());
        out.length(n_entries);
        let hasher = blake3::Hasher::new();
        Self { sink, out, hasher, before: Vec::new(), n_left: n_entries }
    }

    /// Writes the next entry; the content of a file is at `tar_at` in the layer's tar.
    ///
    /// # Errors
    /// The sink's error; also if there are more entries than announced.
    pub fn entry(&mut self, entry: &Entry, tar_at: u64) -> io::Result<()> {
        self.n_left = self.n_left.checked_sub(1).ok_or_else(wrong_number)?;
        let path = entry.path.as_bytes();
        let n_shared = self.before.iter().zip(path).take_while(|(a, b)| a == b).count();
        self.out.length(n_shared);
        let rest = path.get(n_shared..).unwrap_or_default();
        self.out.field(rest);
        self.out.item(&entry.item, tar_at);
        self.before.truncate(n_shared);
        self.before.extend_from_slice(rest);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.out.0);
        self.sink.write_all(&self.out.0)?;
        self.out.0.clear();
        Ok(())
    }

    /// Writes the checksum and returns the sink.
    ///
    /// # Errors
    /// The sink's error; also if there are fewer entries than announced.
    pub fn finish(mut self) -> io::Result<W> {
        if self.n_left > 0 {
            return Err(wrong_number());
        }
        self.flush()?;
        self.sink.write_all(&shortened(&self.hasher.finalize()))?;
        Ok(self.sink)
    }
}

fn wrong_number() -> io::Error {
    io::Error::other("the layer has another number of entries than announced")
}

/// Returns the offset of an entry's content in the tar of its finished layer.
#[must_use]
pub fn tar_at(entry: &Entry) -> u64 {
    entry.item.file().and_then(|file| file.origin.tar_at()).unwrap_or(NOT_IN_ONE_PIECE)
}

/// A finished layer's listing in its encoding, which takes a third of the memory of a
/// [`LayerListing`].
///
/// [`LayerListing`]: crate::tree::LayerListing
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedListing {
    bytes: Vec<u8>,
    layer: DiffId,
    n_entries: usize,
}

impl PackedListing {
    /// Parses the bytes that a [`ListingWriter`] wrote for `layer`.
    ///
    /// # Errors
    /// [`ListingError::UnknownVersion`], `WrongChecksum` or `Damaged` for other bytes.
    pub fn new(bytes: Vec<u8>, layer: DiffId) -> Result<Self, ListingError> {
        let rest = body(&bytes).ok_or(ListingError::UnknownVersion)?;
        if bytes.starts_with(&MAGIC) && !has_right_checksum(&bytes) {
            return Err(ListingError::WrongChecksum);
        }
        let mut entries = ListingEntries::new(rest, layer);
        let n_entries = entries.n_left;
        let mut last: Option<TreePath> = None;
        let in_order = entries.all(|entry| {
            let is_allowed = !entry.path.is_root() || entry.item == LayerItem::Opaque;
            let in_order = is_allowed && last.as_ref().is_none_or(|last| entry.path > *last);
            last = Some(entry.path);
            in_order
        });
        let rest = entries.input.rest;
        if in_order && entries.n_left == 0 && rest.is_empty() {
            return Ok(Self { bytes, layer, n_entries });
        }
        Err(ListingError::Damaged { at: bytes.len() - rest.len() })
    }

    /// Parses a listing that another machine wrote. Its entries need not be those of any layer.
    ///
    /// # Errors
    /// Those of [`Self::new`]; [`ListingError::UnknownVersion`] if it has no checksum;
    /// [`ListingError::TooLarge`] for paths longer than `PATH_MAX` (limits.h), which would make a tree too
    /// deep, or for too many entries.
    pub fn from_untrusted(bytes: Vec<u8>, layer: DiffId) -> Result<Self, ListingError> {
        let listing = Self::new(bytes, layer)?;
        if listing.is_unprotected() {
            return Err(ListingError::UnknownVersion);
        }
        let is_long = |entry: Cow<'_, Entry>| entry.path.as_bytes().len() > MAX_ARCHIVE_PATH_BYTES;
        if listing.n_entries > MAX_UNTRUSTED_ENTRIES || listing.stream().any(is_long) {
            return Err(ListingError::TooLarge);
        }
        Ok(listing)
    }

    /// Returns its encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the DiffId of the layer that it lists.
    #[must_use]
    pub const fn layer(&self) -> DiffId {
        self.layer
    }

    /// Returns whether it has no checksum, because an old rbuild wrote it.
    #[must_use]
    pub fn is_unprotected(&self) -> bool {
        !self.bytes.starts_with(&MAGIC)
    }

    /// Returns whether it is of version 1, whose listings of other tools' layers are not reliable.
    #[must_use]
    pub fn is_of_version_1(&self) -> bool {
        self.bytes.starts_with(&MAGIC_1)
    }
}

/// Returns the bytes between the magic number and the checksum; `None` if the version is unknown.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = bytes.strip_prefix(&MAGIC) {
        let n_bytes = rest.len().saturating_sub(CHECKSUM_BYTES);
        return rest.get(..n_bytes);
    }
    bytes.strip_prefix(&MAGIC_2).or_else(|| bytes.strip_prefix(&MAGIC_1))
}

fn has_right_checksum(bytes: &[u8]) -> bool {
    bytes.split_last_chunk().is_some_and(|(content, sum)| shortened(&blake3::hash(content)) == *sum)
}

fn shortened(hash: &blake3::Hash) -> [u8; CHECKSUM_BYTES] {
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

impl LayerEntries for PackedListing {
    fn stream(&self) -> Box<dyn Iterator<Item = Cow<'_, Entry>> + '_> {
        let rest = body(&self.bytes).unwrap_or_default();
        Box::new(ListingEntries::new(rest, self.layer).map(Cow::Owned))
    }

    fn n_entries(&self) -> usize {
        self.n_entries
    }
}

#[derive(Debug)]
struct ListingEncoder(Vec<u8>);

impl ListingEncoder {
    fn number(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                return self.0.push(low & 0x7f);
            }
            self.0.push(low | 0x80);
        }
    }

    fn length(&mut self, length: usize) {
        self.number(u64::try_from(length).expect("memory is smaller than 2^64"));
    }

    fn signed(&mut self, value: i64) {
        self.number((value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned());
    }

    fn field(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn item(&mut self, item: &LayerItem, tar_at: u64) {
        match item {
            LayerItem::Whiteout => self.0.push(WHITEOUT),
            LayerItem::Opaque => self.0.push(OPAQUE),
            LayerItem::HardLink(target) => {
                self.0.push(HARD_LINK);
                self.field(target.as_bytes());
            }
            LayerItem::Node(meta, node) => {
                self.0.push(kind(node));
                self.meta(meta);
                self.node(node, tar_at);
            }
        }
    }

    fn meta(&mut self, meta: &Meta) {
        self.number(u64::from(meta.mode));
        self.number(u64::from(meta.uid));
        self.number(u64::from(meta.gid));
        self.signed(meta.mtime_s);
        self.length(meta.xattrs().count());
        for (name, value) in meta.xattrs() {
            self.field(name);
            self.field(value);
        }
    }

    fn node(&mut self, node: &Node, tar_at: u64) {
        match node {
            Node::Directory { .. } | Node::Fifo => {}
            Node::File(file) => {
                self.number(file.size);
                self.0.extend_from_slice(file.content.as_bytes());
                // Offset + 1: "not in a tar" is frequent (files of a directory) and thus takes one
                // byte.
                self.number(tar_at.wrapping_add(1));
            }
            Node::Symlink(target) => self.field(target),
            Node::CharDevice(device) | Node::BlockDevice(device) => {
                self.number(u64::from(device.major));
                self.number(u64::from(device.minor));
            }
        }
    }
}

const fn kind(node: &Node) -> u8 {
    match node {
        Node::Directory { opaque: false } => DIRECTORY,
        Node::Directory { opaque: true } => OPAQUE_DIRECTORY,
        Node::File(_) => FILE,
        Node::Symlink(_) => SYMLINK,
        Node::CharDevice(_) => CHAR_DEVICE,
        Node::BlockDevice(_) => BLOCK_DEVICE,
        Node::Fifo => FIFO,
    }
}

/// An iterator over the entries of a listing. It stops at the first malformed one; `n_left` is then
/// not zero.
struct ListingEntries<'a> {
    input: ListingDecoder<'a>,
    layer: DiffId,
    n_left: usize,
    /// The path of the previous entry.
    path: Vec<u8>,
}

impl<'a> ListingEntries<'a> {
    /// Creates an iterator over a listing without its magic number.
    fn new(rest: &'a [u8], layer: DiffId) -> Self {
        let mut input = ListingDecoder { rest };
        // An unreadable number of entries becomes one that is never counted down to zero.
        let n_entries = input.number().and_then(|n| usize::try_from(n).ok());
        Self { input, layer, n_left: n_entries.unwrap_or(usize::MAX), path: Vec::new() }
    }

    fn read(&mut self) -> Option<Entry> {
        let n_shared = usize::try_from(self.input.number()?).ok()?;
        if n_shared > self.path.len() {
            return None;
        }
        self.path.truncate(n_shared);
        self.path.extend_from_slice(self.input.field()?);
        if self.path.len() > MAX_LISTING_FIELD_BYTES {
            return None;
        }
        let path = exact_path(&self.path)?;
        let item = self.input.item(self.layer, &path)?;
        Some(Entry { path, item })
    }
}

impl Iterator for ListingEntries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let n_left = self.n_left.checked_sub(1)?;
        let entry = self.read()?;
        self.n_left = n_left;
        Some(entry)
    }
}

struct ListingDecoder<'a> {
    rest: &'a [u8],
}

impl<'a> ListingDecoder<'a> {
    fn take(&mut self, n_bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n_bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return None;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.number()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn field(&mut self) -> Option<&'a [u8]> {
        let n_bytes = usize::try_from(self.number()?).ok()?;
        if n_bytes > MAX_LISTING_FIELD_BYTES {
            return None;
        }
        self.take(n_bytes)
    }

    fn item(&mut self, layer: DiffId, path: &TreePath) -> Option<LayerItem> {
        let kind = self.byte()?;
        match kind {
            WHITEOUT => return Some(LayerItem::Whiteout),
            OPAQUE => return Some(LayerItem::Opaque),
            HARD_LINK => return exact_path(self.field()?).map(LayerItem::HardLink),
            _ => {}
        }
        let meta = self.meta()?;
        let node = match kind {
            DIRECTORY => Node::Directory { opaque: false },
            OPAQUE_DIRECTORY => Node::Directory { opaque: true },
            FILE => Node::File(self.file(layer, path)?),
            SYMLINK => Node::Symlink(self.field()?.into()),
            CHAR_DEVICE => Node::CharDevice(self.device()?),
            BLOCK_DEVICE => Node::BlockDevice(self.device()?),
            FIFO => Node::Fifo,
            _ => return None,
        };
        Some(LayerItem::Node(meta, node))
    }

    fn meta(&mut self) -> Option<Meta> {
        let (mode, uid, gid) = (self.small()?, self.small()?, self.small()?);
        let mtime_s = self.signed()?;
        let mut xattrs = Xattrs::new();
        for _ in 0..self.number()? {
            let (name, value) = (self.field()?, self.field()?);
            xattrs.insert(name.into(), value.into());
        }
        let xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs));
        Some(Meta { mode, uid, gid, mtime_s, xattrs })
    }

    fn file(&mut self, layer: DiffId, path: &TreePath) -> Option<File> {
        let size = self.number()?;
        let content = ContentHash::new(self.take(32)?.try_into().ok()?);
        let tar_at = self.number()?.wrapping_sub(1);
        let origin = FileOrigin::layer(layer, path.clone(), tar_at);
        Some(File { size, content, origin })
    }

    fn device(&mut self) -> Option<Device> {
        Some(Device { major: self.small()?, minor: self.small()? })
    }
}

/// Parses a path that must already be in normal form.
fn exact_path(bytes: &[u8]) -> Option<TreePath> {
    TreePath::new(bytes).ok().filter(|path| path.as_bytes() == bytes)
}
