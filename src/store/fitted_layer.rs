//! Unpacked layers, adapted to the layers below them where overlayfs needs that.
//!
//! Nearly every layer is the same directory on any base. A layer that does not list its parent
//! directories, or removes files that do not exist, needs another directory on another base (see
//! [`OverlayAdjustments`]). Each such directory is beside the layer's own, with the digest of the fitting in its
//! name. The table `stacked` of the index maps the chain of layers (image-spec, config.md, "Layer
//! ChainID") to the fitting.

use std::io::Read;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{OptionalExtension as _, params};

use crate::archive::{self, ReadAhead};
use crate::oci::{ChainId, DiffId};
use crate::pathio::Context as _;
use crate::tree::{ContentDigest, FileOrigin, LayerEntries, OverlayAdjustments, Tree, TreePath};

use super::index::Index;
use super::layer_tar::LayerTarReader;
use super::listing_draft::FinishedListing;
use super::unpack::{self, DiskTarget, UnpackedArchive};
use super::{
    ArrivingReader, LayerOptions, LayerRecord, LowerDirectory, Store, StoreError, StoreLock,
    WorkDirectory,
};

type Result<T> = std::result::Result<T, StoreError>;

/// A layer that was just unpacked into a work directory, and not fitted yet.
struct NewlyUnpacked {
    unpacked: UnpackedArchive,
    tar_bytes: u64,
    work: WorkDirectory,
    into: LowerDirectory,
}

impl Store {
    /// Returns the layer's own directory, to read files: it is not fitted to any layers below. Unpacks
    /// the layer if needed.
    ///
    /// # Errors
    /// [`StoreError::WrongDiffId`], [`StoreError::UnpackLayer`] or [`StoreError::Io`] (source
    /// [`StoreError::Corrupt`]) if its blob is damaged, [`StoreError::DamagedLayer`] if its directory
    /// is; [`StoreError::Missing`], [`StoreError::OtherIds`], [`StoreError::Index`].
    pub fn unpacked(&self, diff_id: DiffId, options: &LayerOptions) -> Result<LowerDirectory> {
        if let Some(directory) = self.layer_directory(diff_id)? {
            return Ok(directory);
        }
        let fresh = self.unpack_alone(diff_id)?;
        self.publish_unpacked(diff_id, &fresh, None, options)?;
        Ok(fresh.into)
    }

    /// Unpacks a layer from its compressed blob, which is arriving. The bytes are untrusted: the directory
    /// is published only if their uncompressed tar has the layer's DiffID.
    ///
    /// # Errors
    /// Those of [`Store::unpacked`]; [`StoreError::Io`] if the blob does not arrive.
    pub fn unpack_arriving(
        &self,
        diff_id: DiffId,
        blob: ArrivingReader,
        options: &LayerOptions,
    ) -> Result<()> {
        if self.layer_directory(diff_id)?.is_some() {
            return Ok(());
        }
        let decoded = archive::decoder(Box::new(blob), &self.archive_bounds);
        let (_found, tar) = decoded.context("unpack a layer in", self.root())?;
        // Decompressed on another thread, as in `open_tar`.
        let fresh = self.unpack_tar(diff_id, Box::new(ReadAhead::new(tar)))?;
        self.publish_unpacked(diff_id, &fresh, None, options)
    }

    /// Returns the layer's directory, fitted to the layers `below`, base first. Unpacks the layer if
    /// needed, and calls `begin` before that.
    ///
    /// # Errors
    /// The errors of [`Store::unpacked`].
    pub fn unpacked_on(
        &self,
        diff_id: DiffId,
        below: &[DiffId],
        options: &LayerOptions,
        begin: &dyn Fn(),
    ) -> Result<LowerDirectory> {
        let chain = below.iter().copied().chain([diff_id]);
        let chain = ChainId::of(chain).unwrap_or_else(|| ChainId::base(diff_id));
        if let Some(directory) = self.recorded_directory(chain, diff_id)? {
            return Ok(directory);
        }
        // One process unpacks it, and the others then find the directory.
        let _lock = StoreLock::of_unpacking(self.root(), diff_id)?;
        if let Some(directory) = self.recorded_directory(chain, diff_id)? {
            return Ok(directory);
        }
        let mut fresh = None;
        let fitting = match self.listing_if_exists(diff_id)? {
            Some(listing) => self.fitting(&listing, below)?,
            None => {
                begin();
                let made = fresh.insert(self.unpack_alone(diff_id)?);
                self.fitting(&made.unpacked.listing, below)?
            }
        };
        let digest = (!fitting.is_empty()).then(|| fitting.digest());
        let directory = match (self.fitted_directory(diff_id, digest)?, fresh) {
            (Some(directory), None) => directory,
            (_, fresh) => {
                let unpack = || {
                    begin();
                    self.unpack_alone(diff_id)
                };
                let started = Instant::now();
                let fresh = fresh.map_or_else(unpack, Ok)?;
                tracing::debug!(layer = %diff_id, took = ?started.elapsed(), "layer unpacked");
                self.fit(diff_id, &fresh, &fitting)?;
                self.publish_unpacked(diff_id, &fresh, digest, options)?;
                fresh.into
            }
        };
        self.with_index(|index| index.put_fitting(chain, diff_id, digest))?;
        Ok(directory)
    }

    fn fitting(&self, layer: &dyn LayerEntries, below: &[DiffId]) -> Result<OverlayAdjustments> {
        if OverlayAdjustments::are_never_needed(layer) {
            return Ok(OverlayAdjustments::default());
        }
        let mut tree = Tree::default();
        for lower in below {
            tree.apply(&*self.listing(*lower)?);
        }
        Ok(OverlayAdjustments::of(layer, &tree))
    }

    /// Returns the directory that was used on this chain before.
    fn recorded_directory(
        &self,
        chain: ChainId,
        diff_id: DiffId,
    ) -> Result<Option<LowerDirectory>> {
        match self.with_index(|index| index.fitting(chain, diff_id))? {
            Some(fitting) => self.fitted_directory(diff_id, fitting),
            None => Ok(None),
        }
    }

    fn unpack_alone(&self, diff_id: DiffId) -> Result<NewlyUnpacked> {
        let unpacked = self.unpack_tar(diff_id, self.open_tar(diff_id)?);
        unpacked.map_err(|error| {
            let is_content =
                matches!(error, StoreError::UnpackLayer { .. } | StoreError::WrongDiffId { .. });
            if is_content { self.damage_or(diff_id, error) } else { error }
        })
    }

    fn unpack_tar(&self, diff_id: DiffId, tar: Box<dyn Read + Send>) -> Result<NewlyUnpacked> {
        let work = self.work_directory()?;
        let into = Arc::new(work.directory("fs")?);
        let mut tar = LayerTarReader::new(tar);
        let origin = |path: &TreePath, tar_at| FileOrigin::layer(diff_id, path.clone(), tar_at);
        let unpacked = unpack::unpack(&mut tar, into.as_fd(), &self.unpack_options(), &origin)
            .map_err(|source| StoreError::UnpackLayer { layer: diff_id, source })?;
        let (got, tar_bytes) = tar.finish()?;
        if got != diff_id {
            return Err(StoreError::WrongDiffId { want: diff_id, got });
        }
        Ok(NewlyUnpacked { unpacked, tar_bytes, work, into })
    }

    fn fit(
        &self,
        diff_id: DiffId,
        fresh: &NewlyUnpacked,
        fitting: &OverlayAdjustments,
    ) -> Result<()> {
        if fitting.is_empty() {
            return Ok(());
        }
        let disk = DiskTarget::new(fresh.into.as_fd(), self.unpack_options());
        let fitted = disk.and_then(|mut disk| disk.fit(fitting));
        fitted.map_err(|source| StoreError::UnpackLayer { layer: diff_id, source })
    }

    fn publish_unpacked(
        &self,
        diff_id: DiffId,
        fresh: &NewlyUnpacked,
        fitting: Option<ContentDigest>,
        options: &LayerOptions,
    ) -> Result<()> {
        let listed = FinishedListing::write(&self.work, &fresh.unpacked.listing)?;
        let (content, tar_bytes) = (listed.content(), fresh.tar_bytes);
        let record = LayerRecord { content, tar_bytes, created_s: options.created_s };
        self.publish_layer(diff_id, &record, &listed, Some(&fresh.work), fitting)
    }
}

impl Index {
    /// Returns the fitting of `layer` at the top of `chain`: `None` if it was never unpacked there,
    /// `Some(None)` if the layer's own directory fits.
    fn fitting(&self, chain: ChainId, layer: DiffId) -> Result<Option<Option<ContentDigest>>> {
        const SQL: &str = "SELECT form FROM stacked WHERE chain = ?1 AND diff_id = ?2";
        let values = params![chain.to_string(), layer.to_string()];
        let fitting =
            self.check(self.connection.prepare_cached(SQL).and_then(|mut statement| {
                statement.query_row(values, |row| row.get::<_, Option<Vec<u8>>>(0)).optional()
            }))?;
        let digest = |bytes: Vec<u8>| Ok(ContentDigest::new(self.hash(&bytes)?));
        fitting.map(|bytes| bytes.map(digest).transpose()).transpose()
    }

    fn put_fitting(
        &self,
        chain: ChainId,
        layer: DiffId,
        fitting: Option<ContentDigest>,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO stacked (chain, diff_id, form) VALUES (?1, ?2, ?3)
            ON CONFLICT (chain) DO UPDATE SET diff_id = ?2, form = ?3";
        let fitting = fitting.map(|fitting| fitting.as_bytes().to_vec());
        let values = params![chain.to_string(), layer.to_string(), fitting];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }
}
