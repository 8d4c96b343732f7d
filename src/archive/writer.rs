//! Writes a layer's tar, byte for byte like BuildKit's differ for the same files (Go's
//! `archive/tar` in PAX format), so that DiffIDs can be compared.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufWriter, Read, Write};

use tar::Header;

use crate::limits::MAX_NAME_BYTES_OF_ARCHIVE;
use crate::tree::{Device, LayerItem, Meta, Node, TreePath, is_kept_xattr};

use super::fields::{ascii, cut_name, is_ascii, split_name};
use super::header::{BLOCK, ZERO_BLOCK, octal_limit, put_bytes, put_octal, seal};
use super::pax::{self, Records, XATTR_PREFIX};
use super::{ArchiveError, OPAQUE_NAME, WHITEOUT_PREFIX};

/// The size of the output buffer: a pipe or thread behind it is woken rarely.
const BUFFER_BYTES: usize = 256 * 1024;

/// Maximum size of PAX records that Go's reader accepts, which most unpackers use
/// (`maxSpecialFileSize`, archive/tar).
const MAX_PAX_BYTES: usize = 1024 * 1024;

/// A writer of a layer's tar.
///
/// PAX records are used only where plain ustar has no representation: long or non-ASCII names,
/// large ids, sizes and times, extended attributes. User names, atime and ctime are never written.
pub struct TarWriter<W: Write> {
    out: BufWriter<W>,
    offset: u64,
    buffer: Vec<u8>,
    /// The properties that a later hard link must repeat: unpackers apply a link's own mode and
    /// owners.
    metas: HashMap<TreePath, Meta>,
    /// The total size of all extended attributes so far.
    n_xattr_bytes: u64,
}

impl<W: Write> fmt::Debug for TarWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TarWriter({} bytes)", self.offset)
    }
}

/// The values of a header, before their encoding is chosen.
struct EntryHeader<'a> {
    name: Vec<u8>,
    link: Vec<u8>,
    kind: u8,
    meta: &'a Meta,
    size: u64,
    device: Device,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive in `out`.
    pub fn new(out: W) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER_BYTES, out),
            offset: 0,
            buffer: vec![0; BUFFER_BYTES],
            metas: HashMap::new(),
            n_xattr_bytes: 0,
        }
    }

    /// Returns the number of bytes written so far.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes the item at `path`. For a file, `content` must return exactly its size. Returns the
    /// offset of the content in the tar.
    ///
    /// # Errors
    /// [`ArchiveError::SizeChanged`] and `Content` for a file that has changed; `Unwritable` for
    /// the root and for a hard link whose target this method has not written; `Write`.
    pub fn entry(
        &mut self,
        path: &TreePath,
        item: &LayerItem,
        content: &mut dyn Read,
    ) -> Result<u64, ArchiveError> {
        match item {
            LayerItem::Whiteout => self.whiteout(path),
            LayerItem::Opaque => self.opaque(path),
            LayerItem::HardLink(target) => {
                let unknown =
                    || unwritable(path, "it is a hard link to a file that does not precede it");
                let meta = self.metas.get(target).ok_or_else(unknown)?.clone();
                self.hard_link(path, target, &meta)
            }
            LayerItem::Node(meta, node) => {
                if !item.is_directory() {
                    self.metas.insert(path.clone(), meta.clone());
                }
                self.node(path, meta, node, content)
            }
        }
    }

    /// Writes a file of any type; later hard links of [`Self::entry`] cannot refer to it.
    ///
    /// # Errors
    /// Those of [`Self::entry`].
    pub fn node(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        node: &Node,
        content: &mut dyn Read,
    ) -> Result<u64, ArchiveError> {
        let mut head = EntryHeader {
            name: path.as_bytes().to_vec(),
            link: Vec::new(),
            kind: b'0',
            meta,
            size: 0,
            device: Device { major: 0, minor: 0 },
        };
        match node {
            Node::Directory { opaque } => {
                head.kind = b'5';
                head.name.push(b'/');
                let at = self.head(path, &head)?;
                if *opaque {
                    self.opaque(path)?;
                }
                return Ok(at);
            }
            Node::File(file) => {
                head.size = file.size;
                let at = self.head(path, &head)?;
                self.content(path, file.size, content)?;
                return Ok(at);
            }
            Node::Symlink(target) => (head.kind, head.link) = (b'2', target.to_vec()),
            Node::CharDevice(device) => (head.kind, head.device) = (b'3', *device),
            Node::BlockDevice(device) => (head.kind, head.device) = (b'4', *device),
            Node::Fifo => head.kind = b'6',
        }
        self.head(path, &head)
    }

    /// Writes a hard link to `target`, whose own mode and owners are `meta`.
    ///
    /// # Errors
    /// Those of [`Self::entry`].
    pub fn hard_link(
        &mut self,
        path: &TreePath,
        target: &TreePath,
        meta: &Meta,
    ) -> Result<u64, ArchiveError> {
        let head = EntryHeader {
            name: path.as_bytes().to_vec(),
            link: target.as_bytes().to_vec(),
            kind: b'1',
            meta,
            size: 0,
            device: Device { major: 0, minor: 0 },
        };
        self.head(path, &head)
    }

    /// Writes the whiteout of `path`.
    ///
    /// # Errors
    /// Those of [`Self::entry`].
    pub fn whiteout(&mut self, path: &TreePath) -> Result<u64, ArchiveError> {
        let (Some(name), Some(parent)) = (path.name(), path.parent()) else {
            return Err(unwritable(path, "the root cannot be removed"));
        };
        self.marker(&parent.join(&[WHITEOUT_PREFIX, name].concat()))
    }

    /// Writes the opaque whiteout of the directory `path`.
    ///
    /// # Errors
    /// Those of [`Self::entry`].
    pub fn opaque(&mut self, path: &TreePath) -> Result<u64, ArchiveError> {
        self.marker(&path.join(OPAQUE_NAME))
    }

    /// Ends the archive with 1024 zero bytes, and returns the sink.
    ///
    /// # Errors
    /// [`ArchiveError::Write`], the error of the sink.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.put(&ZERO_BLOCK)?;
        self.put(&ZERO_BLOCK)?;
        self.out.into_inner().map_err(|error| ArchiveError::Write(error.into_error()))
    }

    /// Writes an empty file of mode 0 from 1970, as whiteouts are.
    fn marker(&mut self, path: &TreePath) -> Result<u64, ArchiveError> {
        let head = EntryHeader {
            name: path.as_bytes().to_vec(),
            link: Vec::new(),
            kind: b'0',
            meta: &Meta::default(),
            size: 0,
            device: Device { major: 0, minor: 0 },
        };
        self.head(path, &head)
    }

    fn head(&mut self, path: &TreePath, head: &EntryHeader<'_>) -> Result<u64, ArchiveError> {
        if path.is_root() {
            return Err(unwritable(path, "the root has no entry in a layer"));
        }
        if u64::from(head.device.major.max(head.device.minor)) >= octal_limit(8) {
            return Err(unwritable(path, "its device number is too large"));
        }
        self.count_xattrs(path, head)?;
        let mut records = head.records();
        let only_path = records.len() == 1 && records.contains_key(&b"path"[..]);
        let split = if only_path { split_name(&head.name) } else { None };
        if split.is_some() {
            records.clear();
        }
        if !records.is_empty() {
            self.pax(path, &head.name, &records)?;
        }
        let header = head.header(split.unwrap_or((&[], &head.name)), !records.is_empty());
        self.put(header.as_bytes())?;
        Ok(self.offset)
    }

    /// Checks that the extended attributes can be written and read back.
    fn count_xattrs(
        &mut self,
        path: &TreePath,
        head: &EntryHeader<'_>,
    ) -> Result<(), ArchiveError> {
        for (name, value) in head.xattrs() {
            // A record's key ends at the first `=` (POSIX pax(1), "pax Extended Header").
            if name.contains(&b'=') {
                return Err(unwritable(path, "the name of an extended attribute contains `=`"));
            }
            self.n_xattr_bytes += n_bytes(name) + n_bytes(value);
        }
        if self.n_xattr_bytes > MAX_NAME_BYTES_OF_ARCHIVE {
            return Err(unwritable(
                path,
                "the archive has more than 512 MiB of extended attributes",
            ));
        }
        Ok(())
    }

    fn pax(&mut self, path: &TreePath, name: &[u8], records: &Records) -> Result<(), ArchiveError> {
        let bytes = pax::encode(records);
        if bytes.len() > MAX_PAX_BYTES {
            return Err(unwritable(path, "its name or attributes are too long"));
        }
        // Go names it `PaxHeaders.0` between the directory and the file.
        let (directory, file) = match name.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => name.split_at_checked(slash + 1).unwrap_or((name, &[])),
            None => (&[][..], name),
        };
        let slash: &[u8] = if file.is_empty() { b"" } else { b"/" };
        let pax_name = ascii(&[directory, b"PaxHeaders.0", slash, file].concat());
        let cut = pax_name.get(..100).unwrap_or(&pax_name);
        let cut = cut.strip_suffix(b"/").unwrap_or(cut);
        let mut header = Header::new_ustar();
        let fields = header.as_old_mut();
        put_bytes(&mut fields.name, cut);
        fields.linkflag = [b'x'];
        put_octal(&mut fields.mode, 0);
        put_octal(&mut fields.uid, 0);
        put_octal(&mut fields.gid, 0);
        put_octal(&mut fields.size, n_bytes(&bytes));
        put_octal(&mut fields.mtime, 0);
        seal(&mut header);
        self.put(header.as_bytes())?;
        self.put(&bytes)?;
        self.pad()
    }

    fn content(
        &mut self,
        path: &TreePath,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        let changed = || ArchiveError::SizeChanged { path: path.clone(), want: size };
        let mut left = size;
        loop {
            // One byte more than expected, so the end is noticed without a second full buffer.
            let want = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX);
            let end = want.min(self.buffer.len());
            let space = self.buffer.get_mut(..end).unwrap_or_default();
            let n_read = match content.read(space) {
                Ok(0) if left == 0 => break,
                Ok(0) => return Err(changed()),
                Ok(n_read) => n_read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ArchiveError::Content { path: path.clone(), source }),
            };
            let read = space.get(..n_read).unwrap_or_default();
            left = left.checked_sub(n_bytes(read)).ok_or_else(changed)?;
            self.out.write_all(read).map_err(ArchiveError::Write)?;
            self.offset += n_bytes(read);
        }
        self.pad()
    }

    fn pad(&mut self) -> Result<(), ArchiveError> {
        let block = n_bytes(&ZERO_BLOCK);
        let missing = usize::try_from((block - self.offset % block) % block).unwrap_or(0);
        self.put(ZERO_BLOCK.get(..missing).unwrap_or_default())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.out.write_all(bytes).map_err(ArchiveError::Write)?;
        self.offset += n_bytes(bytes);
        Ok(())
    }
}

impl EntryHeader<'_> {
    /// Iterates over the extended attributes that a layer keeps. BuildKit only keeps capabilities;
    /// docker, podman and containerd set every attribute in a layer.
    fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.meta.xattrs().filter(|(name, _)| is_kept_xattr(name))
    }

    /// Returns the records for values that plain ustar cannot represent.
    fn records(&self) -> Records {
        let mut records = Records::new();
        let mut add = |key: &[u8], value: Vec<u8>| drop(records.insert(key.to_vec(), value));
        let meta = self.meta;
        if self.name.len() > 100 || !is_ascii(&self.name) {
            add(b"path", self.name.clone());
        }
        if self.link.len() > 100 || !is_ascii(&self.link) {
            add(b"linkpath", self.link.clone());
        }
        for (key, id) in [(b"uid", meta.uid), (b"gid", meta.gid)] {
            if u64::from(id) >= octal_limit(8) {
                add(key, id.to_string().into_bytes());
            }
        }
        if self.size >= octal_limit(12) {
            add(b"size", self.size.to_string().into_bytes());
        }
        if !u64::try_from(meta.mtime_s).is_ok_and(|time| time < octal_limit(12)) {
            add(b"mtime", meta.mtime_s.to_string().into_bytes());
        }
        for (name, value) in self.xattrs() {
            add(&[XATTR_PREFIX, name].concat(), value.to_vec());
        }
        records
    }

    fn header(&self, (prefix, name): (&[u8], &[u8]), has_records: bool) -> Header {
        let mut header = Header::new_ustar();
        if let Some(ustar) = header.as_ustar_mut() {
            put_octal(&mut ustar.dev_major, u64::from(self.device.major));
            put_octal(&mut ustar.dev_minor, u64::from(self.device.minor));
            put_bytes(&mut ustar.prefix, prefix);
        }
        let fields = header.as_old_mut();
        if has_records {
            put_bytes(&mut fields.name, &cut_name(ascii(name)));
            put_bytes(&mut fields.linkname, &cut_name(ascii(&self.link)));
        } else {
            put_bytes(&mut fields.name, name);
            put_bytes(&mut fields.linkname, &self.link);
        }
        fields.linkflag = [self.kind];
        put_octal(&mut fields.mode, u64::from(self.meta.mode & 0o7777));
        put_octal(&mut fields.uid, u64::from(self.meta.uid));
        put_octal(&mut fields.gid, u64::from(self.meta.gid));
        put_octal(&mut fields.size, self.size);
        put_octal(&mut fields.mtime, u64::try_from(self.meta.mtime_s).unwrap_or(0));
        seal(&mut header);
        header
    }
}

fn unwritable(path: &TreePath, what: &'static str) -> ArchiveError {
    ArchiveError::Unwritable { path: path.clone(), what }
}

fn n_bytes(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a slice is shorter than 2^64")
}

const _: () = assert!(BLOCK == 512);
