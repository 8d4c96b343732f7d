//! The tar of a layer, read from a blob or written from its directory.

use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::archive::{self, DigestWriter, PipelinedHasher, ReadAhead};
use crate::oci::DiffId;
use crate::pathio::Context as _;
use crate::tree::{File, FileOrigin, TreePath};

use super::unpack::{self, UnpackOptions, Whiteouts};
use super::{LayerOptions, Store, StoreError, emulates_owners, other_ids, private_files};

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Returns the options with which layers are unpacked into the store.
    pub(super) fn unpack_options(&self) -> UnpackOptions {
        UnpackOptions {
            ownership: !emulates_owners(),
            devices: !self.user_namespace,
            whiteouts: Whiteouts::Overlay { user_xattr: self.user_namespace },
            bounds: self.archive_bounds,
        }
    }

    /// Returns whether the store has the layer as a blob, from which it can be unpacked again.
    pub(super) fn has_tar(&self, layer: DiffId) -> Result<bool> {
        Ok(self.has_blob(layer.digest()) || !self.packed(layer)?.is_empty())
    }

    /// Opens the layer's uncompressed tar from one of its blobs; the digest is not checked.
    pub(super) fn open_tar(&self, diff_id: DiffId) -> Result<Box<dyn Read + Send>> {
        if self.has_blob(diff_id.digest()) {
            return Ok(Box::new(self.open_blob(diff_id.digest())?));
        }
        let Some(packed) = self.packed(diff_id)?.into_iter().next() else {
            if !self.may_set_owners() && other_ids::write_tar(self, diff_id)? {
                return Ok(Box::new(self.open_blob(diff_id.digest())?));
            }
            return Err(other_ids::missing_layer(self, diff_id));
        };
        let blob = self.open_blob(packed.blob)?;
        let path = self.root().join("blobs/sha256").join(packed.blob.hex());
        let (_found, tar) =
            archive::decoder(Box::new(blob), &self.archive_bounds).context("unpack", &path)?;
        // Decompressed on another thread: it takes about as long as what the caller does with the tar.
        Ok(Box::new(ReadAhead::new(tar)))
    }

    /// Writes the layer's tar into `sink`, from a blob or the directory, and checks its digest.
    /// Returns its length.
    ///
    /// # Errors
    /// [`StoreError::WrongDiffId`] or [`StoreError::Io`] (source [`StoreError::Corrupt`]) if the blob
    /// or directory is damaged; [`StoreError::Missing`], [`StoreError::Archive`].
    pub fn write_tar(&self, diff_id: DiffId, sink: &mut dyn Write) -> Result<u64> {
        let root = self.root().to_owned();
        let mut hashed = DigestWriter::new(sink);
        // The tar of another program can only be reproduced from a blob, not from the directory.
        let is_directory_only = !self.has_tar(diff_id)?;
        if is_directory_only && self.has_directory(diff_id) {
            let listing = self.listing(diff_id)?;
            let directory = self.layer_directory(diff_id)?;
            let directory = directory.ok_or_else(|| other_ids::missing_layer(self, diff_id))?;
            let open = |_file: &File, path: &TreePath| -> io::Result<Box<dyn Read>> {
                Ok(Box::new(private_files::open_layer_file(directory.as_fd(), path)?))
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

    /// Returns the damage of the blob that [`Store::open_tar`] reads, or `error` if it has none.
    pub(super) fn damage_or(&self, diff_id: DiffId, error: StoreError) -> StoreError {
        self.blob_damage(diff_id).unwrap_or(error)
    }

    /// Checks the blob that [`Store::open_tar`] reads. Returns its damage, and removes a damaged blob.
    pub(super) fn blob_damage(&self, diff_id: DiffId) -> Option<StoreError> {
        let blob = if self.has_blob(diff_id.digest()) {
            diff_id.digest()
        } else {
            self.packed(diff_id).ok()?.first()?.blob
        };
        self.open_checked_blob(blob).ok()?.check().err().map(StoreError::Io)
    }

    /// Opens a file of a layer in its plain tar or its directory. If the layer is only compressed, its
    /// plain tar is stored first.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::DamagedLayer`], [`StoreError::WrongDiffId`] or
    /// [`StoreError::Io`].
    pub fn open_layer_file(
        &self,
        layer: DiffId,
        path: &TreePath,
        tar_at: u64,
        size: u64,
    ) -> Result<Box<dyn Read + Send>> {
        let in_one_piece = tar_at != archive::NOT_IN_ONE_PIECE;
        if in_one_piece && !self.has_blob(layer.digest()) && !self.has_directory(layer) {
            self.store_plain_tar(layer)?;
        }
        if in_one_piece && self.has_blob(layer.digest()) {
            let mut tar = self.open_blob(layer.digest())?;
            tar.seek(SeekFrom::Start(tar_at)).context("read", self.root())?;
            return Ok(Box::new(tar.take(size)));
        }
        if !self.may_set_owners() {
            return Ok(Box::new(self.unpack_layer_file(layer, path)?));
        }
        let directory = self.unpacked(layer, &LayerOptions { clamp_s: None, created_s: 0 })?;
        Ok(Box::new(
            private_files::open_layer_file(directory.as_fd(), path)
                .context("open", path.as_path())?,
        ))
    }

    /// Unpacks a layer into a work directory, with the owners of this process, and opens one file.
    pub(super) fn unpack_layer_file(
        &self,
        layer: DiffId,
        path: &TreePath,
    ) -> Result<std::fs::File> {
        let work = self.work_directory()?;
        let into = work.directory("fs")?;
        let options = UnpackOptions {
            ownership: false,
            devices: false,
            whiteouts: Whiteouts::Keep,
            bounds: self.archive_bounds,
        };
        let origin = |path: &TreePath, tar_at| FileOrigin::layer(layer, path.clone(), tar_at);
        unpack::unpack(&mut self.open_tar(layer)?, into.as_fd(), &options, &origin)
            .map_err(|source| StoreError::UnpackLayer { layer, source })?;
        Ok(private_files::open_layer_file(into.as_fd(), path).context("open", path.as_path())?)
    }

    /// Stores the plain tar of a compressed layer.
    pub(super) fn store_plain_tar(&self, diff_id: DiffId) -> Result<()> {
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

/// Hashes a layer's tar while it is read.
pub(super) struct LayerTarReader {
    source: Box<dyn Read + Send>,
    hasher: PipelinedHasher,
}

impl LayerTarReader {
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, hasher: PipelinedHasher::hasher() }
    }

    /// Reads the rest, which a tar reader leaves after the end marker; returns DiffID and length.
    pub(super) fn finish(mut self) -> Result<(DiffId, u64)> {
        let path = Path::new("a layer");
        io::copy(&mut self.source, &mut self.hasher).context("read", path)?;
        let (digest, n_bytes) = self.hasher.digest().context("hash", path)?;
        Ok((DiffId::new(digest), n_bytes))
    }
}

impl Read for LayerTarReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.source.read(to)?;
        self.hasher.write_all(to.get(..n_bytes).unwrap_or_default())?;
        Ok(n_bytes)
    }
}
