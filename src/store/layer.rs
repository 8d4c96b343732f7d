//! Layers in their forms: an unpacked folder, a plain tar, packed blobs. A form is made when
//! somebody needs it, once, and remembered.

use std::collections::BTreeMap;
use std::fs::File as OsFile;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};

use crate::archive::{self, DigestWriter, Packing, Pipelined, PipelinedHasher};
use crate::oci::{Descriptor, DiffId, Digest, LayerCompression};
use crate::pathio::{self, Context as _, PathError};
use crate::pool;
use crate::tree::{
    ContentDigest, Entry, File, FileOrigin, Item, Layer, LayerListing, Node, TreePath,
};

use super::layer_diff::{self, DiffOptions};
use super::scan;
use super::unpack::{self, UnpackOptions, Whiteouts};
use super::work::open_folder;
use super::{LayerRecord, PackedRecord, Store, StoreError, WorkFolder};

/// A listing on disk is no longer than this: a million files with long names.
const MAX_LISTING_BYTES: u64 = 1 << 30;

/// A layer unpacks to no more than this: what a disk may hold, against archives that grow forever.
pub(crate) const MAX_LAYER_BYTES: u64 = 1 << 40;
/// And to no more files than this.
pub(crate) const MAX_LAYER_ENTRIES: u64 = 20_000_000;

/// Opens the content of a file that a layer in the making names.
pub type OpenContent<'a> = dyn Fn(&File, &TreePath) -> io::Result<Box<dyn Read>> + Sync + 'a;

/// The folder of a layer below, shared by all that mount it.
pub type LowerFolder = Arc<OwnedFd>;

/// Which form a new layer is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A folder that can be mounted: a later step runs in it.
    Folder,
    /// A plain tar: nobody mounts it.
    Tar,
}

/// A layer that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDone {
    /// Its identity.
    pub diff_id: DiffId,
    /// Its name by content, its length and age.
    pub record: LayerRecord,
}

/// How new layers are made.
#[derive(Debug, Clone, Copy)]
pub struct LayerOptions {
    /// Later file times become this one.
    pub clamp_s: Option<i64>,
    /// When the layer is made.
    pub created_s: i64,
}

type Result<T> = std::result::Result<T, StoreError>;

/// Identity, length, listing, and the folder's home where there is one.
type Written = (DiffId, u64, LayerListing, Option<WorkFolder>);

/// What is written to a pipe at once.
const PIPE_BYTES: usize = 64 << 10;

impl Store {
    /// What is known of a layer; `None` when the store does not have it in any form.
    ///
    /// # Errors
    /// The index's.
    pub fn layer(&self, diff_id: DiffId) -> Result<Option<LayerRecord>> {
        let Some(record) = self.with_index(|index| index.layer(diff_id))? else { return Ok(None) };
        let here = self.has_folder(diff_id)
            || self.has_blob(diff_id.digest())
            || self.packed(diff_id)?.iter().any(|packed| self.has_blob(packed.blob));
        Ok(here.then_some(record))
    }

    /// Whether the store has the layer in some form, with a record or as a pulled blob.
    ///
    /// # Errors
    /// The index's.
    pub fn has_layer(&self, diff_id: DiffId) -> Result<bool> {
        Ok(!self.packed(diff_id)?.is_empty() || self.layer(diff_id)?.is_some())
    }

    fn layer_path(&self, diff_id: DiffId) -> PathBuf {
        self.root().join("layers").join(diff_id.digest().hex())
    }

    fn has_folder(&self, diff_id: DiffId) -> bool {
        let path = self.layer_path(diff_id).join("fs");
        rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok()
    }

    /// The packed forms that are there.
    ///
    /// # Errors
    /// The index's.
    pub fn packed(&self, diff_id: DiffId) -> Result<Vec<PackedRecord>> {
        let packed = self.with_index(|index| index.packed(diff_id))?;
        Ok(packed.into_iter().filter(|packed| self.has_blob(packed.blob)).collect())
    }

    /// Remembers that the blob `layer` is a packed form of `diff_id`, as a registry gave it.
    ///
    /// # Errors
    /// The index's.
    pub fn record_pulled(
        &self,
        diff_id: DiffId,
        layer: &Descriptor,
        compression: LayerCompression,
    ) -> Result<()> {
        let record = PackedRecord { blob: layer.digest, compression, level: -1, bytes: layer.size };
        self.with_index(|index| index.put_packed(diff_id, &record))
    }

    /// The layer's folder, if it is unpacked.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn layer_folder(&self, diff_id: DiffId) -> Result<Option<LowerFolder>> {
        if !self.has_folder(diff_id) || self.with_index(|index| index.layer(diff_id))?.is_none() {
            return Ok(None);
        }
        Ok(Some(Arc::new(open_folder(&self.layer_path(diff_id).join("fs"))?)))
    }

    /// The layer's folder; unpacks the layer if it is not there. `lowers` are the folders below,
    /// base first: a parent that the archive does not name has their mode and owner.
    ///
    /// # Errors
    /// [`StoreError::WrongDiffId`] when the bytes are not what the image promised.
    pub fn unpacked(
        &self,
        diff_id: DiffId,
        lowers: &[LowerFolder],
        options: &LayerOptions,
    ) -> Result<LowerFolder> {
        if let Some(folder) = self.layer_folder(diff_id)? {
            return Ok(folder);
        }
        let work = self.work_folder()?;
        let into = work.folder("fs")?;
        let mut tar = TarSource::new(self.open_tar(diff_id)?);
        let unpack_options = self.unpack_options();
        let origin = |path: &TreePath, tar_at| FileOrigin::Layer {
            layer: diff_id,
            path: path.clone(),
            tar_at,
        };
        let unpacked = unpack::unpack(&mut tar, into.as_fd(), &unpack_options, &origin)?;
        let (got, tar_bytes) = tar.finish()?;
        if got != diff_id {
            return Err(StoreError::WrongDiffId { want: diff_id, got });
        }
        inherit_metadata(into.as_fd(), &unpacked.implied, lowers)?;
        let record = LayerRecord {
            content: ContentDigest::of_pulled(diff_id),
            tar_bytes,
            created_s: options.created_s,
        };
        self.publish_layer(diff_id, &record, &unpacked.listing, Some(&work))?;
        Ok(Arc::new(into))
    }

    /// The layer's listing; made from its tar if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the store has the layer in no form.
    pub fn listing(&self, diff_id: DiffId) -> Result<Arc<LayerListing>> {
        if let Some(listing) = self.known_listings().get(&diff_id) {
            return Ok(Arc::clone(listing));
        }
        let path = self.layer_path(diff_id).join("tree");
        let listing = match pathio::read(&path, MAX_LISTING_BYTES) {
            Ok(bytes) => archive::from_bytes(&bytes, diff_id).map_err(|error| {
                StoreError::Record { path: path.clone(), reason: error.to_string() }
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.scan(diff_id)?,
            Err(error) => return Err(error.into()),
        };
        let listing = Arc::new(listing);
        self.known_listings().insert(diff_id, Arc::clone(&listing));
        Ok(listing)
    }

    fn known_listings(&self) -> std::sync::MutexGuard<'_, BTreeMap<DiffId, Arc<LayerListing>>> {
        // Nothing panics while it is held, and a map is whole between calls anyway.
        self.listings.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lists a layer from its tar, without unpacking it.
    fn scan(&self, diff_id: DiffId) -> Result<LayerListing> {
        let mut tar = TarSource::new(self.open_tar(diff_id)?);
        let origin = |path: &TreePath, tar_at| FileOrigin::Layer {
            layer: diff_id,
            path: path.clone(),
            tar_at,
        };
        let listing = scan::list(&mut tar, &origin)?;
        let (got, tar_bytes) = tar.finish()?;
        if got != diff_id {
            return Err(StoreError::WrongDiffId { want: diff_id, got });
        }
        let content = ContentDigest::of_pulled(diff_id);
        let record = LayerRecord { content, tar_bytes, created_s: 0 };
        self.publish_layer(diff_id, &record, &listing, None)?;
        Ok(listing)
    }

    /// Gives a finished layer its name. That it is there already is success: then what is below
    /// `work` stays where it is, because it may be mounted, and goes with the process.
    fn publish_layer(
        &self,
        diff_id: DiffId,
        record: &LayerRecord,
        listing: &LayerListing,
        work: Option<&WorkFolder>,
    ) -> Result<()> {
        let home = self.layer_path(diff_id);
        if let Err(error) = rustix::fs::mkdir(&home, Mode::from_raw_mode(0o755))
            && error != rustix::io::Errno::EXIST
        {
            return Err(PathError::new("create folder", home, error).into());
        }
        let known = self.with_index(|index| index.layer(diff_id))?.is_some();
        let tree = home.join("tree");
        if !known || rustix::fs::access(&tree, rustix::fs::Access::EXISTS).is_err() {
            let draft = self.process_folder()?.fresh();
            pathio::write(&draft, &archive::to_bytes(listing))?;
            pathio::rename(&draft, &tree)?;
        }
        if let Some(work) = work {
            self.publish_folder(&work.path().join("fs"), &home.join("fs"), known)?;
        }
        self.with_index(|index| index.put_layer(diff_id, record))
    }

    /// Moves a finished folder to its place; one that was left there by a machine that crashed
    /// makes way.
    fn publish_folder(&self, from: &Path, to: &Path, known: bool) -> Result<()> {
        use rustix::io::Errno;
        for _ in 0..2 {
            match rustix::fs::rename(from, to) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST | Errno::NOTEMPTY) if known => return Ok(()),
                Err(Errno::EXIST | Errno::NOTEMPTY) => {
                    let aside = self.process_folder()?.fresh();
                    // Somebody else may have moved it away in between: the next rename tells.
                    let _moved = rustix::fs::rename(to, aside);
                }
                Err(error) => return Err(PathError::new("rename a folder to", to, error).into()),
            }
        }
        Ok(())
    }

    /// Makes a layer of what a RUN left in the upper folder `fs` of `work`, over `lowers`.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn layer_from_upper(
        &self,
        work: &WorkFolder,
        upper: BorrowedFd<'_>,
        lowers: &[LowerFolder],
        skip: &[TreePath],
        options: &LayerOptions,
    ) -> Result<LayerDone> {
        let lowers: Vec<BorrowedFd<'_>> = lowers.iter().map(|lower| lower.as_fd()).collect();
        let diff_options = DiffOptions { user_xattr: self.user_namespace, skip };
        let mut changed = layer_diff::diff_upper(upper, &lowers, &diff_options)?;
        clamp(&mut changed, options.clamp_s, Some(upper))?;
        let mut hasher = PipelinedHasher::hasher();
        let unnamed = DiffId::new(Digest::of(b""));
        let origin = |path: &TreePath, tar_at| FileOrigin::Layer {
            layer: unnamed,
            path: path.clone(),
            tar_at,
        };
        let mut listing = layer_diff::write_layer(changed, upper, &origin, &mut hasher)?;
        let (digest, tar_bytes) = hasher.digest().context("hash a layer of", work.path())?;
        let diff_id = DiffId::new(digest);
        name_origins(&mut listing, diff_id);
        let record = LayerRecord {
            content: listing.content_digest(),
            tar_bytes,
            created_s: options.created_s,
        };
        self.publish_layer(diff_id, &record, &listing, Some(work))?;
        self.known_listings().insert(diff_id, Arc::new(listing));
        Ok(LayerDone { diff_id, record })
    }

    /// Makes a layer of entries whose contents `open` gives, in the form that is needed.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when a content is not what its hash says.
    pub fn layer_from_entries(
        &self,
        layer: Layer,
        open: &OpenContent<'_>,
        form: Form,
        options: &LayerOptions,
    ) -> Result<(LayerDone, Option<LowerFolder>)> {
        let mut entries = layer.entries().to_vec();
        clamp(&mut entries, options.clamp_s, None)?;
        entries.iter_mut().for_each(keep_layer_xattrs);
        let planned = LayerListing::new(entries);
        let (diff_id, tar_bytes, mut listing, work) = match form {
            Form::Tar => self.write_tar_form(planned, open)?,
            Form::Folder => self.write_folder_form(&planned, open)?,
        };
        name_origins(&mut listing, diff_id);
        let content = listing.content_digest();
        let record = LayerRecord { content, tar_bytes, created_s: options.created_s };
        let folder = work.as_ref().map(|work| open_folder(&work.path().join("fs"))).transpose()?;
        self.publish_layer(diff_id, &record, &listing, work.as_ref())?;
        self.known_listings().insert(diff_id, Arc::new(listing));
        Ok((LayerDone { diff_id, record }, folder.map(Arc::new)))
    }

    /// Writes entries whose contents `open` gives as the folder `fs` of a work folder: for a mount
    /// and not for a layer.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when a content is not what its hash says.
    pub fn folder_from_entries(&self, layer: &Layer, open: &OpenContent<'_>) -> Result<WorkFolder> {
        let (_id, _n_bytes, _listing, work) = self.write_folder_form(layer, open)?;
        work.map_or_else(|| self.work_folder(), Ok)
    }

    fn write_tar_form(&self, mut listing: LayerListing, open: &OpenContent<'_>) -> Result<Written> {
        let draft = Pipelined::new(self.draft()?);
        let open = |file: &File, path: &TreePath| open(file, path);
        let (draft, offsets) = archive::write_listing_checked(&listing, &open, draft)?;
        set_offsets(&mut listing, &offsets);
        let draft = draft.finish().context("write a blob in", self.root())?;
        let (digest, tar_bytes) = self.publish(draft)?;
        Ok((DiffId::new(digest), tar_bytes, listing, None))
    }

    /// The tar goes through a pipe to the unpacker: one thread reads and hashes, the other makes
    /// files.
    fn write_folder_form(&self, planned: &LayerListing, open: &OpenContent<'_>) -> Result<Written> {
        let work = self.work_folder()?;
        let into = work.folder("fs")?;
        let unnamed = DiffId::new(Digest::of(b""));
        let origin = |path: &TreePath, tar_at| FileOrigin::Layer {
            layer: unnamed,
            path: path.clone(),
            tar_at,
        };
        let (mut reader, writer) = io::pipe().context("make a pipe for", work.path())?;
        let (written, unpacked) = pool::scope(|scope| {
            let writer = scope.spawn(move || {
                let open = |file: &File, path: &TreePath| open(file, path);
                let sink = DigestWriter::new(io::BufWriter::with_capacity(PIPE_BYTES, writer));
                archive::write_listing_checked(planned, &open, sink).map(|(sink, _offsets)| {
                    let (_pipe, digest, n_bytes) = sink.finish();
                    (DiffId::new(digest), n_bytes)
                })
            });
            let options = self.unpack_options();
            let unpacked = unpack::unpack(&mut reader, into.as_fd(), &options, &origin);
            // The writer must learn that nobody reads any more, or it waits forever.
            drop(reader);
            (pool::join(writer), unpacked)
        });
        let (diff_id, tar_bytes) = written?;
        Ok((diff_id, tar_bytes, unpacked?.listing, Some(work)))
    }

    fn unpack_options(&self) -> UnpackOptions {
        UnpackOptions {
            ownership: true,
            devices: !self.user_namespace,
            whiteouts: Whiteouts::Overlay { user_xattr: self.user_namespace },
            max_bytes: MAX_LAYER_BYTES,
            max_entries: MAX_LAYER_ENTRIES,
        }
    }

    /// The layer's tar, uncompressed, from a form that holds it; not checked here.
    fn open_tar(&self, diff_id: DiffId) -> Result<Box<dyn Read + Send>> {
        if self.has_blob(diff_id.digest()) {
            return Ok(Box::new(self.open_blob(diff_id.digest())?));
        }
        let Some(packed) = self.packed(diff_id)?.into_iter().next() else {
            return Err(StoreError::Missing { what: format!("the layer {diff_id}") });
        };
        let blob = self.open_blob(packed.blob)?;
        let path = self.root().join("blobs/sha256").join(packed.blob.hex());
        let (_found, tar) = archive::decoder(Box::new(blob)).context("unpack", &path)?;
        Ok(tar)
    }

    /// Writes the layer's tar into `sink`, from whatever form is there, and checks it.
    ///
    /// # Errors
    /// [`StoreError::WrongDiffId`] when the form is damaged.
    pub fn write_tar(&self, diff_id: DiffId, sink: &mut dyn Write) -> Result<u64> {
        let root = self.root().to_owned();
        let mut hashed = DigestWriter::new(sink);
        // A tar that others wrote comes out byte for byte of its blob only, never of its folder.
        let is_folder_only = !self.has_blob(diff_id.digest()) && self.packed(diff_id)?.is_empty();
        if is_folder_only && self.has_folder(diff_id) {
            let listing = self.listing(diff_id)?;
            let folder = self.layer_folder(diff_id)?;
            let folder = folder
                .ok_or_else(|| StoreError::Missing { what: format!("the layer {diff_id}") })?;
            let open = |_file: &File, path: &TreePath| -> io::Result<Box<dyn Read>> {
                Ok(Box::new(open_in(folder.as_fd(), path)?))
            };
            archive::write_listing(&listing, &open, &mut hashed)?;
        } else {
            let mut tar = self.open_tar(diff_id)?;
            io::copy(&mut tar, &mut hashed).context("copy a layer of", &root)?;
        }
        let (_sink, digest, n_bytes) = hashed.finish();
        match DiffId::new(digest) {
            got if got == diff_id => Ok(n_bytes),
            got => Err(StoreError::WrongDiffId { want: diff_id, got }),
        }
    }

    /// The layer as a blob packed in this way; packs it if there is none yet.
    ///
    /// # Errors
    /// [`StoreError::WrongDiffId`] when the form that it is made from is damaged.
    pub fn pack(
        &self,
        diff_id: DiffId,
        packing: Packing,
        jobs: NonZeroUsize,
    ) -> Result<PackedRecord> {
        let (compression, level) = match packing {
            Packing::None => (LayerCompression::None, 0),
            Packing::Gzip { level } => (LayerCompression::Gzip, i32::try_from(level).unwrap_or(9)),
            Packing::Zstd { level } => (LayerCompression::Zstd, level),
        };
        if packing == Packing::None && self.has_blob(diff_id.digest()) {
            let blob = diff_id.digest();
            let bytes = self.open_blob(blob)?.metadata().context("examine", self.root())?.len();
            return Ok(PackedRecord { blob, compression, level, bytes });
        }
        let same =
            |packed: &PackedRecord| packed.compression == compression && packed.level == level;
        if let Some(found) = self.packed(diff_id)?.into_iter().find(same) {
            return Ok(found);
        }
        let draft = self.draft()?;
        let mut packer =
            archive::packer(draft, packing, jobs).context("pack a layer of", self.root())?;
        self.write_tar(diff_id, &mut packer)?;
        let draft = packer.finish().context("pack a layer of", self.root())?;
        let (blob, bytes) = self.publish(draft)?;
        let record = PackedRecord { blob, compression, level, bytes };
        self.with_index(|index| index.put_packed(diff_id, &record))?;
        Ok(record)
    }

    /// Opens a file of a layer: in its folder, or in its plain tar. A layer that is only packed is
    /// unpacked first.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn open_layer_file(
        &self,
        layer: DiffId,
        path: &TreePath,
        tar_at: u64,
        size: u64,
    ) -> Result<Box<dyn Read + Send>> {
        if tar_at != archive::NOT_IN_ONE_PIECE && self.has_blob(layer.digest()) {
            let mut tar = self.open_blob(layer.digest())?;
            tar.seek(SeekFrom::Start(tar_at)).context("read", self.root())?;
            return Ok(Box::new(tar.take(size)));
        }
        let options = LayerOptions { clamp_s: None, created_s: 0 };
        let folder = self.unpacked(layer, &[], &options)?;
        Ok(Box::new(open_in(folder.as_fd(), path).context("open", path.as_path())?))
    }
}

/// A tar that is hashed while it is read.
struct TarSource {
    source: Box<dyn Read + Send>,
    hasher: PipelinedHasher,
}

impl TarSource {
    fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, hasher: PipelinedHasher::hasher() }
    }

    /// Reads what is left, which a tar reader may not ask for, and gives identity and length.
    fn finish(mut self) -> Result<(DiffId, u64)> {
        let path = Path::new("a layer");
        io::copy(&mut self.source, &mut self.hasher).context("read", path)?;
        let (digest, n_bytes) = self.hasher.digest().context("hash", path)?;
        Ok((DiffId::new(digest), n_bytes))
    }
}

impl Read for TarSource {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.source.read(to)?;
        self.hasher.write_all(to.get(..n_bytes).unwrap_or_default())?;
        Ok(n_bytes)
    }
}

/// A layer's tar has no other attribute, so neither has its folder.
fn keep_layer_xattrs(entry: &mut Entry) {
    let Item::Node(meta, _) = &mut entry.item else { return };
    if let Some(xattrs) = &mut meta.xattrs {
        xattrs.retain(|name, _| &**name == archive::CAPABILITY_XATTR);
        if xattrs.is_empty() {
            meta.xattrs = None;
        }
    }
}

/// Opens a regular file of an unpacked layer without following links out of it.
fn open_in(folder: BorrowedFd<'_>, path: &TreePath) -> io::Result<OsFile> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(folder, path.as_path(), flags, Mode::empty(), resolve)?.into())
}

/// After the layer has its identity, its files are found in it.
fn name_origins(listing: &mut LayerListing, diff_id: DiffId) {
    for entry in listing.entries_mut() {
        let Item::Node(_, Node::File(file)) = &mut entry.item else { continue };
        let tar_at = match &file.origin {
            FileOrigin::Layer { tar_at, .. } => *tar_at,
            FileOrigin::Folder { .. } | FileOrigin::Inline(_) => 0,
        };
        let path = entry.path.clone();
        file.origin = FileOrigin::Layer { layer: diff_id, path, tar_at };
    }
}

fn set_offsets(listing: &mut LayerListing, offsets: &[u64]) {
    let unnamed = DiffId::new(Digest::of(b""));
    for (entry, tar_at) in listing.entries_mut().zip(offsets) {
        let Item::Node(_, Node::File(file)) = &mut entry.item else { continue };
        let path = entry.path.clone();
        file.origin = FileOrigin::Layer { layer: unnamed, path, tar_at: *tar_at };
    }
}

/// Sets later times to `clamp_s`, on disk as well: a later step must not see what the layer does
/// not say.
fn clamp(entries: &mut [Entry], clamp_s: Option<i64>, upper: Option<BorrowedFd<'_>>) -> Result<()> {
    let Some(clamp_s) = clamp_s else { return Ok(()) };
    for entry in entries {
        let Item::Node(meta, _) = &mut entry.item else { continue };
        if meta.mtime_s <= clamp_s {
            continue;
        }
        meta.mtime_s = clamp_s;
        if let Some(upper) = upper {
            set_mtime(upper, &entry.path, clamp_s)?;
        }
    }
    Ok(())
}

fn set_mtime(folder: BorrowedFd<'_>, path: &TreePath, mtime_s: i64) -> Result<()> {
    let time = Timespec { tv_sec: mtime_s, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    // No step runs while its layer is made, so nobody can put a link on the way.
    rustix::fs::utimensat(folder, path.as_path(), &times, AtFlags::SYMLINK_NOFOLLOW)
        .context("set the time of", path.as_path())?;
    Ok(())
}

/// Gives folders that an archive does not name the mode and owner that they have below.
fn inherit_metadata(
    into: BorrowedFd<'_>,
    implied: &[TreePath],
    lowers: &[LowerFolder],
) -> Result<()> {
    for path in implied {
        let stat = |lower: &LowerFolder| {
            rustix::fs::statat(lower.as_fd(), path.as_path(), AtFlags::SYMLINK_NOFOLLOW).ok()
        };
        let Some(below) = lowers.iter().rev().find_map(stat) else { continue };
        let (uid, gid) = (below.st_uid, below.st_gid);
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(into, path.as_path(), flags, Mode::empty())
            .context("open folder", path.as_path())?;
        let owner = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(&folder, Some(owner.0), Some(owner.1))
            .context("change the owner of", path.as_path())?;
        let mode = Mode::from_raw_mode(below.st_mode & 0o7777);
        rustix::fs::fchmod(&folder, mode).context("change the mode of", path.as_path())?;
        set_mtime(into, path, below.st_mtime)?;
    }
    Ok(())
}
