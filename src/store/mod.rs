//! The store: blobs, layers in their forms, cache records, tags; many processes at once, any of
//! which may be killed at any instant.
//!
//! ```text
//! version               format number
//! index.db              SQLite, WAL: tags, layers, cache records
//! blobs/sha256/<hex>    manifests, configs, packed and plain layers
//! layers/<hex>/fs       the unpacked form of the layer with that DiffId, mountable
//! layers/<hex>/tree     its listing
//! tags/<hex>            a name of an image; the index is rebuilt from them
//! memo/<hex>            the file hashes of a context, by its path's SHA-256
//! builds/               what happened in builds, a file each
//! cache-mounts/<key>/   for RUN --mount=type=cache
//! id-maps/              the ids under which processes saw the store; see `id_maps`
//! locks/                held while a step is made, and while anything is pruned
//! tmp/<name>/           unfinished work; swept when the process that made it is gone
//! ```
//!
//! A file with a name outside `tmp` is complete: it was written elsewhere and renamed. What is in
//! use is protected from `prune` by a shared `flock` for as long as the process lives.

mod adopt;
mod alone;
mod blob;
mod builds;
mod cache_archive;
mod cache_mount;
mod compare;
mod downloads;
mod error;
mod flatten;
mod forms;
mod gc;
mod guard;
mod id_maps;
mod image;
mod index;
mod inventory;
mod last_use;
mod layer;
mod listed;
mod lock;
mod make;
mod names;
mod rebuild;
mod reserve;
mod scan;
mod schema;
mod sources;
mod space;
mod stacked;
mod step_origin;
mod tags;
mod trust;
mod usage;
mod verify;
mod version;
mod work;

pub mod layer_diff;
pub mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::archive::{ArchiveBounds, PackedListing};
use crate::oci::{DiffId, Digest};
use crate::pathio::Context as _;

pub use alone::Users;
pub use blob::{CheckedBlob, Draft};
pub use builds::{BuildJournal, BuildRecord};
pub use cache_archive::{CacheArchive, HeldCache, Holding};
pub use cache_mount::{CacheMount, CacheRequest, CacheUse};
pub use downloads::DownloadRecord;
pub use error::StoreError;
pub use flatten::FlatDirectory;
pub use gc::{PruneOptions, Pruned};
pub use index::{LayerRecord, PackedRecord, StepRecord, Tag};
pub use inventory::Holder;
pub use layer::{Form, LayerDone, LayerOptions, LowerDirectory, OpenContent};
pub use lock::StepLock;
pub use names::ImageId;
pub use sources::LayerSource;
pub use space::NoSpace;
pub use step_origin::StepOrigin;
pub use usage::{HolderUse, KindUse, LayerUse, Usage, UsageKind};
pub use verify::{Damage, Finding, ReportFinding, Verified};
pub use work::WorkDirectory;

/// An opened store. Shared by reference between threads.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    index: Mutex<index::Index>,
    /// Damage that was found when the store was opened to be checked.
    damage: FoundDamage,
    /// Held shared for the life of the process: `prune` waits for it.
    in_use: lock::Lease,
    /// This process's directory below `tmp`, made when it is first needed.
    work: Mutex<Option<Arc<work::ProcessDirectory>>>,
    /// Blobs that only this process knows, and where they are.
    own_blobs: Mutex<BTreeMap<Digest, PathBuf>>,
    /// Places that did not have the blob which they were said to have.
    lost: Mutex<BTreeSet<(String, Digest)>>,
    /// Listings that were read, by layer.
    listings: Mutex<BTreeMap<DiffId, Arc<PackedListing>>>,
    /// Unpacked layers that this process has made, or found to agree with their listings.
    trusted: Mutex<BTreeSet<trust::UnpackedForm>>,
    user_namespace: bool,
    /// The ids under which this process sees what is unpacked.
    id_map: id_maps::IdMap,
    /// Layers that other ids made and that this process cannot read.
    unreadable: Mutex<BTreeSet<DiffId>>,
    /// Bounds on an archive that is unpacked into the store.
    archive_bounds: ArchiveBounds,
    /// Dropped after the index, which has given its space back then.
    _reserve: reserve::Reserve,
}

/// Damage of which [`Store::open`] makes an error, and which does not keep a store from being checked.
#[derive(Debug, Default)]
struct FoundDamage {
    /// The format number cannot be read.
    version: Option<StoreError>,
    /// The index cannot be used; another one was made of the objects.
    index: Option<StoreError>,
}

/// What a store needs to know of the process that opens it.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// Whether the process is root of a user namespace only: overlay marks then live in `user.`
    /// attributes, and devices cannot be made.
    pub user_namespace: bool,
    /// Seconds since 1970, for records of last use.
    pub now_s: i64,
}

impl Store {
    /// Opens the store at `root`; makes it when it is not there.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] when others could have written into it; [`StoreError::Version`] when another rbuild made it in a form that this one does not know;
    /// IO and database errors with their path.
    pub fn open(root: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        Self::open_with(root, options, reserve::Reserve::keep)
    }

    /// As [`Store::open`], for commands that free space or say what takes it: on a full disk they use
    /// the space that the store keeps for them.
    ///
    /// # Errors
    /// As there.
    pub fn open_to_free(root: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        Self::open_with(root, options, reserve::Reserve::take)
    }

    fn open_with(
        root: &Path,
        options: &OpenOptions,
        reserve: fn(&Path) -> reserve::Reserve,
    ) -> Result<Self, StoreError> {
        let root = guard::open(root)?;
        tracing::debug!(root = %root.display(), "store");
        version::check(&root)?;
        let in_use = lock::Lease::shared(&lock::Lease::of_store(&root))?;
        // Before the index, which a disk that is full of what they left could not hold.
        work::sweep(&root.join("tmp"));
        lock::sweep(&root.join("locks"));
        let reserve = reserve(&root);
        let index =
            index::Index::open(&root.join("index.db"), &root.join("locks/index"), options.now_s)?;
        Self::with_index_of(root, in_use, index, reserve, options)
    }

    fn with_index_of(
        root: PathBuf,
        in_use: lock::Lease,
        index: index::Index,
        reserve: reserve::Reserve,
        options: &OpenOptions,
    ) -> Result<Self, StoreError> {
        let is_upgraded = index.is_upgraded;
        let store = Self::with_parts(root, in_use, index, reserve, options)?;
        if is_upgraded {
            // An earlier rbuild kept names in the index alone.
            store.tags()?.iter().try_for_each(|tag| store.write_tag(tag))?;
        }
        store.restore_lost()?;
        Ok(store)
    }

    fn with_parts(
        root: PathBuf,
        in_use: lock::Lease,
        index: index::Index,
        reserve: reserve::Reserve,
        options: &OpenOptions,
    ) -> Result<Self, StoreError> {
        let id_map = id_maps::IdMap::of_process(&root, options.user_namespace)?;
        Ok(Self {
            root,
            index: Mutex::new(index),
            damage: FoundDamage::default(),
            in_use,
            work: Mutex::new(None),
            own_blobs: Mutex::new(BTreeMap::new()),
            lost: Mutex::new(BTreeSet::new()),
            listings: Mutex::new(BTreeMap::new()),
            trusted: Mutex::new(BTreeSet::new()),
            user_namespace: options.user_namespace,
            id_map,
            unreadable: Mutex::new(BTreeSet::new()),
            archive_bounds: ArchiveBounds::default(),
            _reserve: reserve,
        })
    }

    /// Sets how many bytes one archive may unpack to. Without it, the defaults of
    /// [`ArchiveBounds`] hold.
    #[must_use]
    pub fn with_max_unpacked(mut self, max_bytes: u64) -> Self {
        self.archive_bounds = ArchiveBounds::up_to(max_bytes);
        self
    }

    /// Bounds on an archive that is unpacked into the store.
    #[must_use]
    pub const fn archive_bounds(&self) -> ArchiveBounds {
        self.archive_bounds
    }

    /// The directory that the store lies in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Checks that another program has space to write `n_bytes` into this store.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`]; the kernel's, with the path.
    pub fn check_space(&self, n_bytes: u64) -> Result<(), StoreError> {
        let root = guard::open_directory(&self.root)?;
        let checked = space::check(&root, n_bytes).context("examine", &self.root)?;
        Ok(checked?)
    }

    /// Runs `work` on the index.
    fn with_index<R>(&self, work: impl FnOnce(&mut index::Index) -> R) -> R {
        // A panic while the lock is held leaves SQLite's own transaction rolled back: the index
        // is as good as before.
        let mut index = self.index.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let done = work(&mut index);
        index.reconnect_if_stuck();
        done
    }
}
