//! A layer's forms: an unpacked directory, a plain tar, packed blobs. A form is made when somebody
//! needs it, once, and remembered.

use std::fs::File as OsFile;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::archive::{self, DigestWriter, Packing, PipelinedHasher, ReadAhead};
use crate::oci::{DiffId, LayerCompression};
use crate::pathio::Context as _;
use crate::tree::{File, TreePath};

use super::layer::LayerOptions;
use super::unpack::{UnpackOptions, Whiteouts};
use super::{Draft, PackedRecord, Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    pub(super) fn unpack_options(&self) -> UnpackOptions {
        UnpackOptions {
            ownership: true,
            devices: !self.user_namespace,
            whiteouts: Whiteouts::Overlay { user_xattr: self.user_namespace },
            bounds: self.archive_bounds,
        }
    }

    /// The layer's tar, uncompressed, from a form that holds it; not checked here.
    pub(super) fn open_tar(&self, diff_id: DiffId) -> Result<Box<dyn Read + Send>> {
        if self.has_blob(diff_id.digest()) {
            return Ok(Box::new(self.open_blob(diff_id.digest())?));
        }
        let Some(packed) = self.packed(diff_id)?.into_iter().next() else {
            return Err(self.missing_layer(diff_id));
        };
        let blob = self.open_blob(packed.blob)?;
        let path = self.root().join("blobs/sha256").join(packed.blob.hex());
        let (_found, tar) =
            archive::decoder(Box::new(blob), &self.archive_bounds).context("unpack", &path)?;
        // Decoding goes on beside what is done with the tar: each takes about as long.
        Ok(Box::new(ReadAhead::new(tar)))
    }

    /// Writes the layer's tar into `sink`, from whatever form is there, and checks it.
    ///
    /// # Errors
    /// [`StoreError::WrongDiffId`] when the form is damaged.
    pub fn write_tar(&self, diff_id: DiffId, sink: &mut dyn Write) -> Result<u64> {
        let root = self.root().to_owned();
        let mut hashed = DigestWriter::new(sink);
        // A tar that others wrote comes out byte for byte of its blob only, never of its directory.
        let is_directory_only =
            !self.has_blob(diff_id.digest()) && self.packed(diff_id)?.is_empty();
        if is_directory_only && self.has_directory(diff_id) {
            let listing = self.listing(diff_id)?;
            let directory = self.layer_directory(diff_id)?;
            let directory = directory.ok_or_else(|| self.missing_layer(diff_id))?;
            let open = |_file: &File, path: &TreePath| -> io::Result<Box<dyn Read>> {
                Ok(Box::new(open_in(directory.as_fd(), path)?))
            };
            archive::write_listing(&*listing, &open, &mut hashed)?;
        } else {
            let mut tar = self.open_tar(diff_id)?;
            let copied = io::copy(&mut tar, &mut hashed).context("copy a layer of", &root);
            copied.map_err(|error| self.damage_or(diff_id, error.into()))?;
        }
        let (_sink, digest, n_bytes) = hashed.finish();
        match DiffId::new(digest) {
            got if got == diff_id => Ok(n_bytes),
            got => Err(self.damage_or(diff_id, StoreError::WrongDiffId { want: diff_id, got })),
        }
    }

    /// Returns the damage of the blob that [`Store::open_tar`] reads, if that is why a layer could not
    /// be read; else `error`.
    pub(super) fn damage_or(&self, diff_id: DiffId, error: StoreError) -> StoreError {
        self.blob_damage(diff_id).unwrap_or(error)
    }

    /// Reads the blob that [`Store::open_tar`] reads, and returns its damage. A damaged blob is removed.
    pub(super) fn blob_damage(&self, diff_id: DiffId) -> Option<StoreError> {
        let blob = if self.has_blob(diff_id.digest()) {
            diff_id.digest()
        } else {
            self.packed(diff_id).ok()?.first()?.blob
        };
        self.open_checked_blob(blob).ok()?.check().err().map(StoreError::Io)
    }

    /// The layer as a blob packed in this way; packs it if there is none yet. A plain tar is this
    /// process's own: it is written faster than it is packed, and the store has the layer already.
    ///
    /// # Errors
    /// [`StoreError::WrongDiffId`] when the form that it is made from is damaged.
    pub fn pack(
        &self,
        diff_id: DiffId,
        packing: Packing,
        jobs: NonZeroUsize,
    ) -> Result<PackedRecord> {
        self.pack_beside(diff_id, packing, jobs, &mut io::sink())
    }

    /// As [`Store::pack`]; the blob's bytes go to `beside`, too, as they come: none, if the layer was
    /// packed already.
    ///
    /// # Errors
    /// As there; those of `beside`, which end the packing.
    pub fn pack_beside(
        &self,
        diff_id: DiffId,
        packing: Packing,
        jobs: NonZeroUsize,
        beside: &mut (dyn Write + Send),
    ) -> Result<PackedRecord> {
        if let Some(found) = self.find_packed(diff_id, packing)? {
            return Ok(found);
        }
        let started = Instant::now();
        let both = Both { draft: self.draft()?, beside };
        let mut packer =
            archive::packer(both, packing, jobs).context("pack a layer of", self.root())?;
        self.write_tar(diff_id, &mut packer)?;
        let both = packer.finish().context("pack a layer of", self.root())?;
        tracing::debug!(layer = %diff_id, ?packing, took = ?started.elapsed(), "layer packed");
        let (compression, level) = compression_and_level(packing);
        if packing == Packing::None {
            let (blob, bytes) = self.keep(both.draft);
            return Ok(PackedRecord { blob, compression, level, bytes });
        }
        let (blob, bytes) = self.publish(both.draft)?;
        let record = PackedRecord { blob, compression, level, bytes };
        self.with_index(|index| index.put_packed(diff_id, &record))?;
        Ok(record)
    }

    /// The layer as a blob packed in this way, if it is there.
    ///
    /// # Errors
    /// The index's; the kernel's, with the path.
    pub fn find_packed(&self, diff_id: DiffId, packing: Packing) -> Result<Option<PackedRecord>> {
        let (compression, level) = compression_and_level(packing);
        if packing == Packing::None && self.has_blob(diff_id.digest()) {
            let blob = diff_id.digest();
            let bytes = self.open_blob(blob)?.metadata().context("examine", self.root())?.len();
            return Ok(Some(PackedRecord { blob, compression, level, bytes }));
        }
        let same =
            |packed: &PackedRecord| packed.compression == compression && packed.level == level;
        Ok(self.packed(diff_id)?.into_iter().find(same))
    }

    /// Opens a file of a layer: in its plain tar or in its directory. A layer that is only packed gets
    /// its plain tar first.
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
        let in_one_piece = tar_at != archive::NOT_IN_ONE_PIECE;
        if in_one_piece && !self.has_blob(layer.digest()) && !self.has_directory(layer) {
            self.make_tar(layer)?;
        }
        if in_one_piece && self.has_blob(layer.digest()) {
            let mut tar = self.open_blob(layer.digest())?;
            tar.seek(SeekFrom::Start(tar_at)).context("read", self.root())?;
            return Ok(Box::new(tar.take(size)));
        }
        let directory = self.unpacked(layer, &LayerOptions { clamp_s: None, created_s: 0 })?;
        Ok(Box::new(open_in(directory.as_fd(), path).context("open", path.as_path())?))
    }

    /// Makes the plain form of a packed layer.
    fn make_tar(&self, diff_id: DiffId) -> Result<()> {
        let mut draft = self.draft()?;
        let mut tar = self.open_tar(diff_id)?;
        io::copy(&mut tar, &mut draft).context("unpack a layer in", self.root())?;
        let (digest, _n_bytes) = self.publish(draft)?;
        match DiffId::new(digest) {
            got if got == diff_id => Ok(()),
            got => Err(self.damage_or(diff_id, StoreError::WrongDiffId { want: diff_id, got })),
        }
    }
}

fn compression_and_level(packing: Packing) -> (LayerCompression, i32) {
    match packing {
        Packing::None => (LayerCompression::None, 0),
        Packing::Gzip { level } => (LayerCompression::Gzip, i32::try_from(level).unwrap_or(9)),
        Packing::Zstd { level } => (LayerCompression::Zstd, level),
    }
}

/// A blob in the making, and somebody who gets the same bytes.
struct Both<'a> {
    draft: Draft,
    beside: &'a mut (dyn Write + Send),
}

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = self.draft.write(bytes)?;
        self.beside.write_all(bytes.get(..n_bytes).unwrap_or_default())?;
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.flush()?;
        self.beside.flush()
    }
}

/// A tar that is hashed while it is read.
pub(super) struct TarSource {
    source: Box<dyn Read + Send>,
    hasher: PipelinedHasher,
}

impl TarSource {
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, hasher: PipelinedHasher::hasher() }
    }

    /// Reads what is left, which a tar reader may not ask for, and gives identity and length.
    pub(super) fn finish(mut self) -> Result<(DiffId, u64)> {
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

/// Opens a regular file of an unpacked layer without following links out of it.
pub(super) fn open_in(directory: BorrowedFd<'_>, path: &TreePath) -> io::Result<OsFile> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(directory, path.as_path(), flags, Mode::empty(), resolve)?.into())
}
