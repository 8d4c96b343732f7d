//! Layers by DiffID: record, directory, listing, blobs; and how a finished layer is published.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::archive::{ListingError, PackedListing};
use crate::limits::MAX_LISTING_BYTES;
use crate::oci::{Descriptor, DiffId, LayerCompression};
use crate::pathio::{self, PathError};
use crate::pool;
use crate::tree::{ContentDigest, FileOrigin, TreePath};

use super::layer_records::OTHER_PACKER;
use super::layer_tar::LayerTarReader;
use super::listing_draft::FinishedListing;
use super::private_files::open_directory;
use super::{
    LayerRecord, LowerDirectory, PackedRecord, Store, StoreError, StoreLock, WorkDirectory,
    listing_scan, other_ids, private_files, unpacked_check,
};

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Returns the record of a layer; `None` if the store has neither the layer nor a source of it.
    ///
    /// # Errors
    /// [`StoreError::Index`], [`StoreError::Record`] or [`StoreError::Io`].
    pub fn layer(&self, diff_id: DiffId) -> Result<Option<LayerRecord>> {
        let Some(record) = self.with_index(|index| index.layer(diff_id))? else { return Ok(None) };
        let here = self.has_directory(diff_id)
            || self.has_blob(diff_id.digest())
            || !self.packed(diff_id)?.is_empty()
            || other_ids::repack(self, diff_id)?
            || !self.layer_sources().of_layer(diff_id)?.is_empty();
        Ok(here.then_some(record))
    }

    /// Returns whether the store has the layer, as a directory, a tar or a compressed blob.
    ///
    /// # Errors
    /// [`StoreError::Index`], [`StoreError::Record`] or [`StoreError::Io`].
    pub fn has_layer(&self, diff_id: DiffId) -> Result<bool> {
        if !self.packed(diff_id)?.is_empty() {
            return Ok(true);
        }
        if self.with_index(|index| index.layer(diff_id))?.is_none() {
            return Ok(false);
        }
        Ok(self.has_directory(diff_id)
            || self.has_blob(diff_id.digest())
            || other_ids::repack(self, diff_id)?)
    }

    /// Returns the length of a layer's uncompressed tar, even if the layer is elsewhere; `None` if it
    /// is unknown.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn tar_bytes(&self, diff_id: DiffId) -> Result<Option<u64>> {
        let n_bytes = self.with_index(|index| index.tar_bytes(diff_id))?;
        Ok(n_bytes.filter(|n_bytes| *n_bytes > 0))
    }

    /// Returns the blobs that hold the layer and exist.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::Record`].
    pub fn packed(&self, diff_id: DiffId) -> Result<Vec<PackedRecord>> {
        let packed = self.with_index(|index| index.packed(diff_id))?;
        Ok(packed.into_iter().filter(|packed| self.has_blob(packed.blob)).collect())
    }

    /// Records that the blob `layer`, which another program compressed, holds the layer `diff_id`.
    ///
    /// # Errors
    /// [`StoreError::Index`] or [`StoreError::NoSpace`].
    pub fn record_pulled(
        &self,
        diff_id: DiffId,
        layer: &Descriptor,
        compression: LayerCompression,
    ) -> Result<()> {
        let (blob, level, bytes) = (layer.digest, OTHER_PACKER, layer.size);
        let record = PackedRecord { blob, compression, level, bytes };
        self.with_index(|index| index.put_packed(diff_id, &record))
    }

    /// Returns the error for a layer that the store does not have, or has only under other ids, where
    /// it cannot be read.
    #[must_use]
    pub fn missing_layer(&self, diff_id: DiffId) -> StoreError {
        other_ids::missing_layer(self, diff_id)
    }

    /// Returns the error for a file of a layer whose content does not match its hash. The damaged blob
    /// is removed, or the damaged directory set aside.
    #[must_use]
    pub fn damaged_content(&self, layer: DiffId, path: &TreePath) -> StoreError {
        unpacked_check::damaged_content(self, layer, path)
    }

    /// Returns the directory of a layer: its listing, its files, and its damaged files.
    pub(super) fn layer_path(&self, diff_id: DiffId) -> PathBuf {
        self.root().join("layers").join(diff_id.digest().hex())
    }

    /// Returns the name of an unpacked layer in [`Store::layer_path`]. It depends on the ids of this
    /// process, and on the fitting if the layer was adapted to the layers below it.
    pub(super) fn directory_name(&self, fitting: Option<ContentDigest>) -> String {
        let own = format!("{}{}", other_ids::UNPACKED, self.id_map.suffix());
        fitting.map_or_else(|| own.clone(), |fitting| format!("{own}-{fitting}"))
    }

    /// Returns whether an entry of [`Store::layer_path`] is an unpacked layer with the ids of this
    /// process.
    pub(super) fn is_own_directory(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.directory_name(None));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// Returns whether the layer is unpacked, adapted to no layers below it.
    pub(super) fn has_directory(&self, diff_id: DiffId) -> bool {
        let path = self.layer_path(diff_id).join(self.directory_name(None));
        access(path, Access::EXISTS).is_ok()
    }

    /// Returns the directory of the layer, adapted to no layers below it, if it is unpacked.
    ///
    /// # Errors
    /// [`StoreError::DamagedLayer`] if it does not match its listing; [`StoreError::Index`],
    /// [`StoreError::Record`] or [`StoreError::Io`].
    pub fn layer_directory(&self, diff_id: DiffId) -> Result<Option<LowerDirectory>> {
        self.fitted_directory(diff_id, None)
    }

    /// Returns the directory of the layer with this fitting, if it is unpacked; see
    /// [`Store::unpacked_on`].
    pub(super) fn fitted_directory(
        &self,
        diff_id: DiffId,
        fitting: Option<ContentDigest>,
    ) -> Result<Option<LowerDirectory>> {
        let path = self.layer_path(diff_id).join(self.directory_name(fitting));
        let exists = access(&path, Access::EXISTS).is_ok();
        if !exists || self.with_index(|index| index.layer(diff_id))?.is_none() {
            return Ok(None);
        }
        let directory = Arc::new(open_directory(&path)?);
        unpacked_check::check(self, diff_id, fitting, &directory)?;
        Ok(Some(directory))
    }

    /// Returns the layer's listing. If there is none, the layer's tar is listed.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if the store has no tar of the layer; [`StoreError::UnpackLayer`],
    /// [`StoreError::WrongDiffId`] or [`StoreError::Io`] if the tar is damaged;
    /// [`StoreError::Record`] if the listing is.
    pub fn listing(&self, diff_id: DiffId) -> Result<Arc<PackedListing>> {
        if let Some(listing) = self.known_listings().get(&diff_id) {
            return Ok(Arc::clone(listing));
        }
        let listing = match self.listing_if_exists(diff_id)? {
            Some(listing) => listing,
            None => {
                self.list_from_tar(diff_id)?;
                let listing = self.listing_if_exists(diff_id)?;
                listing.ok_or_else(|| StoreError::Record {
                    path: self.listing_path(diff_id),
                    reason: "it was removed while it was used".to_owned(),
                })?
            }
        };
        let listing = Arc::new(listing);
        self.known_listings().insert(diff_id, Arc::clone(&listing));
        Ok(listing)
    }

    /// Reads the listing of a layer, if it exists. Each call reads the file: the caller decides how
    /// long the listing stays in memory.
    ///
    /// # Errors
    /// [`StoreError::Record`] if it is damaged; [`StoreError::Io`].
    pub fn listing_if_exists(&self, diff_id: DiffId) -> Result<Option<PackedListing>> {
        let path = self.listing_path(diff_id);
        let bytes = match private_files::read_file(&path, MAX_LISTING_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let listing = PackedListing::new(bytes, diff_id);
        let damaged = |error: ListingError| StoreError::Record { path, reason: error.to_string() };
        let listing = listing.map_err(damaged)?;
        // Listings of earlier versions have no checksum: they are rebuilt if the layer has a tar.
        let is_outdated = listing.is_unprotected()
            && (self.has_blob(diff_id.digest()) || !self.packed(diff_id)?.is_empty());
        Ok((!is_outdated).then_some(listing))
    }

    fn listing_path(&self, diff_id: DiffId) -> PathBuf {
        self.layer_path(diff_id).join("tree")
    }

    fn known_listings(&self) -> MutexGuard<'_, BTreeMap<DiffId, Arc<PackedListing>>> {
        pool::lock(&self.listings)
    }

    /// Lists a layer from its tar without unpacking it, and publishes the listing.
    fn list_from_tar(&self, diff_id: DiffId) -> Result<()> {
        let mut tar = LayerTarReader::new(self.open_tar(diff_id)?);
        let origin = |path: &TreePath, tar_at| FileOrigin::layer(diff_id, path.clone(), tar_at);
        let listing = listing_scan::list(&mut tar, &self.unpack_options(), &origin)
            .map_err(|source| StoreError::UnpackLayer { layer: diff_id, source })
            .map_err(|error| self.damage_or(diff_id, error))?;
        let (got, tar_bytes) = tar.finish()?;
        if got != diff_id {
            return Err(self.damage_or(diff_id, StoreError::WrongDiffId { want: diff_id, got }));
        }
        let listed = FinishedListing::write(&self.work, &listing)?;
        let record = LayerRecord { content: listed.content(), tar_bytes, created_s: 0 };
        self.publish_layer(diff_id, &record, &listed, None, None)
    }

    /// Publishes a finished layer: moves its listing, and the directory `fs` of `work` if given, to
    /// their final names, and records the layer. If the layer is already published, the directory
    /// stays in `work`, because it may be mounted, and is removed when the process ends.
    ///
    /// Look-up, rename and record happen under one lock: a recorded layer may be mounted, so no other
    /// process replaces it.
    pub(super) fn publish_layer(
        &self,
        diff_id: DiffId,
        record: &LayerRecord,
        listing: &FinishedListing,
        work: Option<&WorkDirectory>,
        fitting: Option<ContentDigest>,
    ) -> Result<()> {
        let _lock = StoreLock::of_publishing(self.root(), diff_id)?;
        let home = self.layer_path(diff_id);
        if let Err(error) = private_files::create_directory(&home)
            && error != Errno::EXIST
        {
            return Err(PathError::new("create directory", home, error).into());
        }
        let known = self.with_index(|index| index.layer(diff_id))?.is_some();
        let to = home.join(self.directory_name(fitting));
        if !known || self.listing_if_exists(diff_id)?.is_none() {
            pathio::rename(listing.path(), &home.join("tree"))?;
        }
        let exists = || access(&to, Access::EXISTS).is_ok();
        if work.is_some() && known && exists() {
            unpacked_check::set_aside_if_damaged(self, diff_id, fitting)?;
        }
        let existed = exists();
        if let Some(work) = work {
            self.publish_directory(&work.path().join("fs"), &to, known)?;
            unpacked_check::trusted(self).insert((diff_id, fitting));
        }
        let is_new = work.is_some() && !existed;
        self.with_index(|index| index.put_layer(diff_id, record, is_new))
    }

    /// Renames a finished directory to `to`. An existing directory without a record is moved away: a
    /// process that was killed, or a crash of the machine, left it before it could be mounted.
    fn publish_directory(&self, from: &Path, to: &Path, known: bool) -> Result<()> {
        for _ in 0..2 {
            match rustix::fs::rename(from, to) {
                Ok(()) => return Ok(()),
                // rename(2) replaces empty directories only.
                Err(Errno::EXIST | Errno::NOTEMPTY) if known => return Ok(()),
                Err(Errno::EXIST | Errno::NOTEMPTY) => {
                    pathio::rename(to, &self.work.process()?.fresh_path())?;
                }
                Err(error) => return Err(PathError::new("rename a directory to", to, error).into()),
            }
        }
        Ok(())
    }
}
