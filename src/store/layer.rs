//! Layers by identity: what is known of each, its directory, its listing, its packed forms.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::{ListingError, PackedListing};
use crate::limits::MAX_LISTING_BYTES;
use crate::oci::{Descriptor, DiffId, LayerCompression};
use crate::pathio::{self, PathError};
use crate::tree::{ContentDigest, File, FileOrigin, TreePath};

use super::forms::TarSource;
use super::listed::Listed;
use super::scan;
use super::work::open_directory;
use super::{LayerRecord, PackedRecord, Store, StoreError, WorkDirectory, guard};

/// Opens the content of a file that a layer in the making names.
pub type OpenContent<'a> = dyn Fn(&File, &TreePath) -> io::Result<Box<dyn Read>> + Sync + 'a;

/// The directory of a layer below, shared by all that mount it.
pub type LowerDirectory = Arc<OwnedFd>;

/// Which form a new layer is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A directory that can be mounted: a later step runs in it.
    Directory,
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

impl Store {
    /// What is known of a layer; `None` when the store neither has it in any form nor knows where
    /// to get it.
    ///
    /// # Errors
    /// The index's.
    pub fn layer(&self, diff_id: DiffId) -> Result<Option<LayerRecord>> {
        let Some(record) = self.with_index(|index| index.layer(diff_id))? else { return Ok(None) };
        let here = self.has_directory(diff_id)
            || self.has_blob(diff_id.digest())
            || !self.packed(diff_id)?.is_empty()
            || self.adopt(diff_id)?
            || !self.sources(diff_id)?.is_empty();
        Ok(here.then_some(record))
    }

    /// Whether the store has the layer in some form, with a record or as a pulled blob.
    ///
    /// # Errors
    /// The index's.
    pub fn has_layer(&self, diff_id: DiffId) -> Result<bool> {
        if !self.packed(diff_id)?.is_empty() {
            return Ok(true);
        }
        if self.with_index(|index| index.layer(diff_id))?.is_none() {
            return Ok(false);
        }
        Ok(self.has_directory(diff_id) || self.has_blob(diff_id.digest()) || self.adopt(diff_id)?)
    }

    pub(super) fn layer_path(&self, diff_id: DiffId) -> PathBuf {
        self.root().join("layers").join(diff_id.digest().hex())
    }

    pub(super) fn has_directory(&self, diff_id: DiffId) -> bool {
        let path = self.layer_path(diff_id).join(self.form_name(None));
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

    /// Returns the layer's own directory, fitted to no stack, if it is unpacked.
    ///
    /// # Errors
    /// [`StoreError::DamagedLayer`]; the kernel's, with the path.
    pub fn layer_directory(&self, diff_id: DiffId) -> Result<Option<LowerDirectory>> {
        self.layer_form(diff_id, None)
    }

    /// Returns the directory of one form of the layer, if it is unpacked; see [`Store::unpacked_on`].
    pub(super) fn layer_form(
        &self,
        diff_id: DiffId,
        fitting: Option<ContentDigest>,
    ) -> Result<Option<LowerDirectory>> {
        let path = self.layer_path(diff_id).join(self.form_name(fitting));
        let is_there = rustix::fs::access(&path, rustix::fs::Access::EXISTS).is_ok();
        if !is_there || self.with_index(|index| index.layer(diff_id))?.is_none() {
            return Ok(None);
        }
        let directory = Arc::new(open_directory(&path)?);
        self.check_form(diff_id, fitting, &directory)?;
        Ok(Some(directory))
    }

    /// The layer's listing; made from its tar if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the store has the layer in no form.
    pub fn listing(&self, diff_id: DiffId) -> Result<Arc<PackedListing>> {
        if let Some(listing) = self.known_listings().get(&diff_id) {
            return Ok(Arc::clone(listing));
        }
        let listing = match self.listing_if_there(diff_id)? {
            Some(listing) => listing,
            None => {
                self.scan(diff_id)?;
                let listing = self.listing_if_there(diff_id)?;
                listing.ok_or_else(|| StoreError::Record {
                    path: self.listing_path(diff_id),
                    reason: "it is gone again".to_owned(),
                })?
            }
        };
        let listing = Arc::new(listing);
        self.known_listings().insert(diff_id, Arc::clone(&listing));
        Ok(listing)
    }

    /// The listing of a layer, if it was listed; it is read anew each time, and not kept in memory.
    ///
    /// # Errors
    /// If it cannot be read, or is no listing.
    pub fn listing_if_there(&self, diff_id: DiffId) -> Result<Option<PackedListing>> {
        let path = self.listing_path(diff_id);
        let bytes = match guard::read_file(&path, MAX_LISTING_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let listing = PackedListing::new(bytes, diff_id);
        let damaged = |error: ListingError| StoreError::Record { path, reason: error.to_string() };
        let listing = listing.map_err(damaged)?;
        // An old listing is rebuilt from the layer's archive, if there is one.
        let is_to_be_made = listing.is_unprotected()
            && (self.has_blob(diff_id.digest()) || !self.packed(diff_id)?.is_empty());
        Ok((!is_to_be_made).then_some(listing))
    }

    fn listing_path(&self, diff_id: DiffId) -> PathBuf {
        self.layer_path(diff_id).join("tree")
    }

    fn known_listings(&self) -> std::sync::MutexGuard<'_, BTreeMap<DiffId, Arc<PackedListing>>> {
        // Nothing panics while it is held, and a map is whole between calls anyway.
        self.listings.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lists a layer from its tar, without unpacking it.
    fn scan(&self, diff_id: DiffId) -> Result<()> {
        let mut tar = TarSource::new(self.open_tar(diff_id)?);
        let origin = |path: &TreePath, tar_at| FileOrigin::layer(diff_id, path.clone(), tar_at);
        let listing = scan::list(&mut tar, &self.unpack_options(), &origin)
            .map_err(|source| StoreError::UnpackLayer { layer: diff_id, source })
            .map_err(|error| self.damage_or(diff_id, error))?;
        let (got, tar_bytes) = tar.finish()?;
        if got != diff_id {
            return Err(self.damage_or(diff_id, StoreError::WrongDiffId { want: diff_id, got }));
        }
        let listed = self.list(&listing)?;
        let record = LayerRecord { content: listed.content(), tar_bytes, created_s: 0 };
        self.publish_layer(diff_id, &record, &listed, None, None)
    }

    /// Gives a finished layer its name. That it is there already is success: then what is below
    /// `work` stays where it is, because it may be mounted, and goes with the process.
    ///
    /// Look-up, rename and record are one to other processes: what one has recorded may be mounted,
    /// and no other one takes it away.
    pub(super) fn publish_layer(
        &self,
        diff_id: DiffId,
        record: &LayerRecord,
        listing: &Listed,
        work: Option<&WorkDirectory>,
        fitting: Option<ContentDigest>,
    ) -> Result<()> {
        let _alone = self.lock_publishing(diff_id)?;
        let home = self.layer_path(diff_id);
        if let Err(error) = guard::create_directory(&home)
            && error != rustix::io::Errno::EXIST
        {
            return Err(PathError::new("create directory", home, error).into());
        }
        let known = self.with_index(|index| index.layer(diff_id))?.is_some();
        let to = home.join(self.form_name(fitting));
        if !known || self.listing_if_there(diff_id)?.is_none() {
            pathio::rename(listing.path(), &home.join("tree"))?;
        }
        let is_there = || rustix::fs::access(&to, rustix::fs::Access::EXISTS).is_ok();
        if work.is_some() && known && is_there() {
            self.drop_if_damaged(diff_id, fitting)?;
        }
        let was_there = is_there();
        if let Some(work) = work {
            self.publish_directory(&work.path().join("fs"), &to, known)?;
            self.trusted().insert((diff_id, fitting));
        }
        let is_new = work.is_some() && !was_there;
        self.with_index(|index| index.put_layer(diff_id, record, is_new))
    }

    /// Moves a finished directory to its place. One that is there without a record makes way: a process
    /// that ended, or a machine that crashed, has left it before anybody could mount it.
    fn publish_directory(&self, from: &Path, to: &Path, known: bool) -> Result<()> {
        use rustix::io::Errno;
        for _ in 0..2 {
            match rustix::fs::rename(from, to) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST | Errno::NOTEMPTY) if known => return Ok(()),
                Err(Errno::EXIST | Errno::NOTEMPTY) => {
                    pathio::rename(to, &self.process_directory()?.fresh())?;
                }
                Err(error) => return Err(PathError::new("rename a directory to", to, error).into()),
            }
        }
        Ok(())
    }
}
