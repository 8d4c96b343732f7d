//! Unpacked layers as they have to be on the layers below them.
//!
//! Nearly every layer is the same directory wherever it lies. One that does not list its directories,
//! or removes what is not there, has to be another one on another base (see [`OverlayAdjustments`]): each form
//! lies beside the others in the layer's directory, under a name that says how it differs from the
//! layer alone, and the index remembers which form goes with which stack.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{OptionalExtension as _, params};

use crate::oci::{ChainId, DiffId};
use crate::tree::{ContentDigest, FileOrigin, LayerEntries, OverlayAdjustments, Tree, TreePath};

use super::forms::TarSource;
use super::index::Index;
use super::layer::{LayerOptions, LowerDirectory};
use super::unpack::{self, Disk, Unpacked};
use super::{LayerRecord, Store, StoreError, WorkDirectory};

type Result<T> = std::result::Result<T, StoreError>;

/// A layer that was just unpacked, alone in a work directory.
struct Fresh {
    unpacked: Unpacked,
    tar_bytes: u64,
    work: WorkDirectory,
    into: LowerDirectory,
}

impl Store {
    /// Returns the layer's directory, for its contents alone: it may not fit on the layers below.
    /// Unpacks the layer if needed.
    ///
    /// # Errors
    /// [`StoreError::WrongDiffId`] when the bytes are not what the image promised.
    pub fn unpacked(&self, diff_id: DiffId, options: &LayerOptions) -> Result<LowerDirectory> {
        if let Some(directory) = self.layer_directory(diff_id)? {
            return Ok(directory);
        }
        let fresh = self.unpack_alone(diff_id)?;
        self.publish_fresh(diff_id, &fresh, None, options)?;
        Ok(fresh.into)
    }

    /// Returns the layer's directory as it has to be on the layers `below`, base first. Unpacks the
    /// layer if needed; `begin` is called before that.
    ///
    /// # Errors
    /// As [`Store::unpacked`].
    pub fn unpacked_on(
        &self,
        diff_id: DiffId,
        below: &[DiffId],
        options: &LayerOptions,
        begin: &dyn Fn(),
    ) -> Result<LowerDirectory> {
        let chain = below.iter().copied().chain([diff_id]);
        let chain = ChainId::of(chain).unwrap_or_else(|| ChainId::base(diff_id));
        if let Some(directory) = self.known_form(chain, diff_id)? {
            return Ok(directory);
        }
        // Of several processes one unpacks it.
        let _alone = self.lock_unpacking(diff_id)?;
        if let Some(directory) = self.known_form(chain, diff_id)? {
            return Ok(directory);
        }
        let mut fresh = None;
        let fitting = match self.listing_if_there(diff_id)? {
            Some(listing) => self.fitting(&listing, below)?,
            None => {
                begin();
                let made = fresh.insert(self.unpack_alone(diff_id)?);
                self.fitting(&made.unpacked.listing, below)?
            }
        };
        let form = (!fitting.is_empty()).then(|| fitting.digest());
        let directory = match (self.layer_form(diff_id, form)?, fresh) {
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
                self.publish_fresh(diff_id, &fresh, form, options)?;
                fresh.into
            }
        };
        self.with_index(|index| index.put_stacked(chain, diff_id, form))?;
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

    fn known_form(&self, chain: ChainId, diff_id: DiffId) -> Result<Option<LowerDirectory>> {
        match self.with_index(|index| index.stacked(chain, diff_id))? {
            Some(form) => self.layer_form(diff_id, form),
            None => Ok(None),
        }
    }

    fn unpack_alone(&self, diff_id: DiffId) -> Result<Fresh> {
        let work = self.work_directory()?;
        let into = Arc::new(work.directory("fs")?);
        let mut tar = TarSource::new(self.open_tar(diff_id)?);
        let origin = |path: &TreePath, tar_at| FileOrigin::layer(diff_id, path.clone(), tar_at);
        let unpacked = unpack::unpack(&mut tar, into.as_fd(), &self.unpack_options(), &origin)
            .map_err(|source| StoreError::UnpackLayer { layer: diff_id, source })
            .map_err(|error| self.damage_or(diff_id, error))?;
        let (got, tar_bytes) = tar.finish()?;
        if got != diff_id {
            return Err(self.damage_or(diff_id, StoreError::WrongDiffId { want: diff_id, got }));
        }
        Ok(Fresh { unpacked, tar_bytes, work, into })
    }

    fn fit(&self, diff_id: DiffId, fresh: &Fresh, fitting: &OverlayAdjustments) -> Result<()> {
        if fitting.is_empty() {
            return Ok(());
        }
        let disk = Disk::new(fresh.into.as_fd(), self.unpack_options());
        let fitted = disk.and_then(|mut disk| disk.fit(fitting));
        fitted.map_err(|source| StoreError::UnpackLayer { layer: diff_id, source })
    }

    fn publish_fresh(
        &self,
        diff_id: DiffId,
        fresh: &Fresh,
        form: Option<ContentDigest>,
        options: &LayerOptions,
    ) -> Result<()> {
        let listed = self.list(&fresh.unpacked.listing)?;
        let (content, tar_bytes) = (listed.content(), fresh.tar_bytes);
        let record = LayerRecord { content, tar_bytes, created_s: options.created_s };
        self.publish_layer(diff_id, &record, &listed, Some(&fresh.work), form)
    }
}

impl Index {
    /// Returns the form of `layer` on top of `chain`; `None` if it was never unpacked there, and
    /// `Some(None)` if it is the layer's own.
    fn stacked(&self, chain: ChainId, layer: DiffId) -> Result<Option<Option<ContentDigest>>> {
        const SQL: &str = "SELECT form FROM stacked WHERE chain = ?1 AND diff_id = ?2";
        let values = params![chain.to_string(), layer.to_string()];
        let form = self.check(self.connection.prepare_cached(SQL).and_then(|mut statement| {
            statement.query_row(values, |row| row.get::<_, Option<Vec<u8>>>(0)).optional()
        }))?;
        let digest = |form: Vec<u8>| Ok(ContentDigest::new(self.hash(&form)?));
        form.map(|form| form.map(digest).transpose()).transpose()
    }

    fn put_stacked(
        &self,
        chain: ChainId,
        layer: DiffId,
        form: Option<ContentDigest>,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO stacked (chain, diff_id, form) VALUES (?1, ?2, ?3)
            ON CONFLICT (chain) DO UPDATE SET diff_id = ?2, form = ?3";
        let form = form.map(|form| form.as_bytes().to_vec());
        let values = params![chain.to_string(), layer.to_string(), form];
        self.check(self.connection.execute(SQL, values)).map(drop)
    }
}
