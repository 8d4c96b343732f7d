//! The store: blobs, layers, cache records and tags in one directory. Several processes use it at the
//! same time, and any of them may be killed at any instant.
//!
//! ```text
//! version               format number; see `version`
//! index.db              SQLite in WAL mode: tags, layers, steps, downloads; see `index`
//! blobs/sha256/<hex>    manifests, configs, layers as compressed or plain tars
//! layers/<hex>/fs       the unpacked layer with that DiffID, a lower directory of overlayfs
//! layers/<hex>/tree     its listing: paths, modes, owners, content hashes
//! layers/<hex>/fs-<digest>   the layer adapted to certain layers below it; see `fitted_layer`
//! layers/<hex>/fs.<n>   the layer unpacked under other user and group ids; see `id_maps`
//! layers/<hex>/damaged-<n>   a damaged directory that a process may still have mounted
//! tags/<hex>            a name of an image; the index is rebuilt from these files
//! memo/<hex>            file hashes of a context, by the SHA-256 of its path
//! builds/               events of builds, a file for each
//! cache-mounts/<key>/   directories of RUN --mount=type=cache; see `cache_mounts`
//! id-maps/              user and group ids under which processes saw the store; see `id_maps`
//! reserve-1 … -4       space that is freed on a full disk; see `reserve`
//! locks/in-use          held shared by every process that uses the store
//! locks/index           held while tables of the index are created, or an id map is recorded
//! locks/<key>           held while a step runs
//! locks/unpack-<hex>    held while a layer is unpacked
//! locks/publish-<hex>   held while a layer gets its final name and its record
//! tmp/<pid>.<random>/   unfinished work of a process, which holds the file `lock` in it
//! ```
//!
//! # Publication
//!
//! A file outside `tmp` is complete: it was written in `tmp` and renamed, which is atomic (rename(2)).
//! Blobs are synced before that. Directories of layers are not: their records name the boot in which
//! they were created, and count in later boots only after one syncfs(2) at the end of a build.
//!
//! # Locks
//!
//! All locks are taken with flock(2), so they end with their holder. A process that finds a lock in
//! use waits, and then looks whether the work has been done. When a store is opened, lock files and
//! directories in `tmp` whose locks are free are removed: their processes have ended.
//!
//! # Pruning
//!
//! `prune` and repairs take `locks/in-use` exclusively, so nothing is removed while another process
//! could use it. What is kept is computed from roots: tags, steps, base images, downloads, cache
//! mounts, and hash caches (see `inventory`). Their records are removed first, then the files that no
//! root references.

mod arriving_blob;
mod blob;
mod build_records;
mod cache_archive;
mod cache_mounts;
mod downloads;
mod error;
mod exclusive;
mod fitted_layer;
mod flat_directory;
mod free_space;
mod hash_caches;
mod id_maps;
mod images;
mod index;
mod index_rebuild;
mod inventory;
mod layer;
mod layer_packing;
mod layer_records;
mod layer_sources;
mod layer_tar;
mod listing_comparison;
mod listing_draft;
mod listing_scan;
mod lock_holders;
mod locks;
mod new_layer;
mod other_ids;
mod private_files;
mod prune;
mod reserve;
mod resolved_images;
mod root_checks;
mod root_directory;
mod step_origin;
mod steps;
mod tags;
mod tar_packer;
mod unpacked_check;
mod usage;
mod verify;
mod version;
mod work_directory;

pub mod layer_diff;
pub mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::archive::{ArchiveBounds, PackedListing};
use crate::oci::{DiffId, Digest};
use crate::pathio::{Context as _, PathError};
use crate::plan::CacheKey;
use crate::pool;
use crate::sandbox::{self, Isolation};

pub use arriving_blob::{ArrivingBlob, ArrivingReader};
pub use blob::{BlobDraft, CheckedBlob};
pub use build_records::{BuildRecord, BuildRecordWriter, BuildRecords};
pub use cache_archive::{CacheArchive, HeldCache, HoldOutcome};
pub use cache_mounts::{CacheMount, CacheMounts, CacheRequest, CacheSharing};
pub use downloads::{DownloadRecord, Downloads};
pub use error::StoreError;
pub use flat_directory::FlatDirectory;
pub use free_space::NoSpace;
pub use hash_caches::HashCaches;
pub use images::{ImageId, Images};
pub use inventory::GcRoot;
pub use layer_records::{LayerOptions, LayerRecord, LowerDirectory, PackedRecord, StoredLayer};
pub use layer_sources::{LayerSource, LayerSources};
pub use lock_holders::LockHolders;
pub use locks::StoreLock;
pub use new_layer::{OpenContent, Representation};
pub use private_files::open_layer_file;
pub use prune::{PruneOptions, Pruned};
pub use resolved_images::ResolvedImages;
pub use root_directory::RootDirectory;
pub use step_origin::StepOrigin;
pub use steps::{StepRecord, Steps};
pub use tags::{Tag, Tags};
pub use tar_packer::{TarObserver, TarPacker};
pub use usage::{DiskUsage, DiskUsageKind, GcRootUsage, KindUsage, LayerUsage};
pub use verify::{DamageReport, OnFinding, VerifyFinding, VerifySummary};
pub use work_directory::WorkDirectory;

/// An opened store, shared by reference between threads.
///
/// Blobs and layers are methods of the store itself; all other records are behind views such as
/// [`Store::tags`] and [`Store::steps`].
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    index: Mutex<index::Index>,
    /// Damage that was found when the store was opened by [`Store::open_to_verify`].
    damage: OpenDamage,
    /// Lock on `locks/in-use`, held shared for the life of the process.
    in_use: locks::FileLock,
    /// The directory `tmp`, and the directory of this process in it.
    work: work_directory::WorkArea,
    /// Paths of the blobs that only this process knows.
    private_blobs: Mutex<BTreeMap<Digest, PathBuf>>,
    /// Places that turned out not to hold a blob that they were recorded for.
    gone_sources: Mutex<BTreeSet<(String, Digest)>>,
    /// Listings that were read.
    listings: Mutex<BTreeMap<DiffId, Arc<PackedListing>>>,
    /// Unpacked layers that this process created, or compared with their listings.
    trusted: Mutex<BTreeSet<unpacked_check::UnpackedLayer>>,
    /// True in a user namespace; see [`OpenOptions::user_namespace`].
    user_namespace: bool,
    /// User and group ids under which this process sees unpacked files.
    id_map: id_maps::IdMap,
    /// Layers that were unpacked under other ids and that this process cannot read.
    unreadable: Mutex<BTreeSet<DiffId>>,
    archive_bounds: ArchiveBounds,
    /// Declared last: dropped after the index has released its space.
    _reserve: reserve::Reserve,
}

/// Damage that makes [`Store::open`] fail, but not [`Store::open_to_verify`].
#[derive(Debug, Default)]
struct OpenDamage {
    /// The format number cannot be read.
    version: Option<StoreError>,
    /// The index cannot be used, and was rebuilt from blobs and layers.
    index: Option<StoreError>,
}

/// Facts about the process that opens a store.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// True if the process is root in a user namespace only. Overlay marks are then `user.`
    /// attributes (<https://docs.kernel.org/filesystems/overlayfs.html#user-xattr>), and no devices
    /// can be created (user_namespaces(7)).
    pub user_namespace: bool,
    /// Current time, seconds since 1970, for records of last use.
    pub now_s: i64,
}

impl Store {
    /// Opens the store at `root`, and creates it if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] or [`StoreError::Replaceable`] if other users have access to it,
    /// [`StoreError::Version`] or [`StoreError::NewerIndex`] if a later rbuild created it,
    /// [`StoreError::DamagedVersion`], [`StoreError::LostIndex`] or [`StoreError::Index`] if it is
    /// damaged, [`StoreError::LongPath`], [`StoreError::NoSpace`] or [`StoreError::Io`].
    pub fn open(root: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        Self::open_with(root, options, reserve::Reserve::keep)
    }

    /// Opens a store for commands that free space or show what uses it: on a full disk they get the
    /// reserved space of the store.
    ///
    /// # Errors
    /// The errors of [`Store::open`].
    pub fn open_to_free(root: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        Self::open_with(root, options, reserve::Reserve::take)
    }

    fn open_with(
        root: &Path,
        options: &OpenOptions,
        reserve: fn(&Path) -> Result<reserve::Reserve, NoSpace>,
    ) -> Result<Self, StoreError> {
        let root = root_checks::prepare(root)?;
        tracing::debug!(root = %root.display(), "store");
        version::check(&root)?;
        let in_use = locks::FileLock::shared(&lock_holders::in_use_path(&root))?;
        // Before the index is opened: on a full disk it needs the space that is freed here.
        work_directory::sweep(&root.join("tmp"));
        locks::sweep(&root.join("locks"));
        let reserve = reserve(&root)?;
        let index =
            index::Index::open(&root.join("index.db"), &root.join("locks/index"), options.now_s)?;
        Self::with_index_of(root, in_use, index, reserve, options)
    }

    /// Opens the store at `root` to check it. If its index cannot be used, a new one is built from the
    /// files of the store: in its place if `is_repairing`, else in memory.
    ///
    /// # Errors
    /// The errors of [`Store::open`], but for damage of the format number and the index;
    /// [`StoreError::InUse`] if the index must be replaced while another process uses the store.
    pub fn open_to_verify(
        root: &Path,
        options: &OpenOptions,
        is_repairing: bool,
    ) -> Result<Self, StoreError> {
        index_rebuild::open_to_verify(root, options, is_repairing)
    }

    /// Creates the value for a store with an intact index, and restores records that the index lost.
    fn with_index_of(
        root: PathBuf,
        in_use: locks::FileLock,
        index: index::Index,
        reserve: reserve::Reserve,
        options: &OpenOptions,
    ) -> Result<Self, StoreError> {
        let is_upgraded = index.is_upgraded;
        let store = Self::with_parts(root, in_use, index, reserve, options)?;
        if is_upgraded {
            // An index from before the directory `tags` existed holds the only copy of the tags.
            let tags = store.tags();
            tags.all()?.iter().try_for_each(|tag| tags.write_file(tag))?;
        }
        index_rebuild::restore_lost_records(&store)?;
        Ok(store)
    }

    fn with_parts(
        root: PathBuf,
        in_use: locks::FileLock,
        index: index::Index,
        reserve: reserve::Reserve,
        options: &OpenOptions,
    ) -> Result<Self, StoreError> {
        let id_map = id_maps::IdMap::of_process(&root, options.user_namespace)?;
        let work = work_directory::WorkArea::of_store(&root);
        Ok(Self {
            root,
            index: Mutex::new(index),
            damage: OpenDamage::default(),
            in_use,
            work,
            private_blobs: Mutex::new(BTreeMap::new()),
            gone_sources: Mutex::new(BTreeSet::new()),
            listings: Mutex::new(BTreeMap::new()),
            trusted: Mutex::new(BTreeSet::new()),
            user_namespace: options.user_namespace,
            id_map,
            unreadable: Mutex::new(BTreeSet::new()),
            archive_bounds: ArchiveBounds::default(),
            _reserve: reserve,
        })
    }

    /// Sets the maximum number of bytes that one archive may unpack to, in place of the default of
    /// [`ArchiveBounds`].
    #[must_use]
    pub fn with_max_unpacked(mut self, max_bytes: u64) -> Self {
        self.archive_bounds = ArchiveBounds::up_to(max_bytes);
        self
    }

    /// Returns whether this process can give files to other users, and so unpack layers.
    #[must_use]
    pub fn may_set_owners(&self) -> bool {
        self.id_map.may_unpack() && !emulates_owners()
    }

    /// Returns whether this process can create device files, which no user namespace permits
    /// (user_namespaces(7)).
    #[must_use]
    pub fn may_create_devices(&self) -> bool {
        self.may_set_owners() && !self.user_namespace
    }

    /// Returns the bounds on an archive that is unpacked into the store.
    #[must_use]
    pub const fn archive_bounds(&self) -> ArchiveBounds {
        self.archive_bounds
    }

    /// Returns the directory of the store, an absolute path without symbolic links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the names of images.
    #[must_use]
    pub const fn tags(&self) -> Tags<'_> {
        Tags { store: self }
    }

    /// Returns the images, which can be found by id.
    #[must_use]
    pub const fn images(&self) -> Images<'_> {
        Images { store: self }
    }

    /// Returns the base images that registries resolved.
    #[must_use]
    pub const fn resolved_images(&self) -> ResolvedImages<'_> {
        ResolvedImages { store: self }
    }

    /// Returns the records of steps, which are the build cache.
    #[must_use]
    pub const fn steps(&self) -> Steps<'_> {
        Steps { store: self }
    }

    /// Returns the sources of layers that are not in the store.
    #[must_use]
    pub const fn layer_sources(&self) -> LayerSources<'_> {
        LayerSources { store: self }
    }

    /// Returns the records of downloads.
    #[must_use]
    pub const fn downloads(&self) -> Downloads<'_> {
        Downloads { store: self }
    }

    /// Returns the hash caches of build contexts.
    #[must_use]
    pub const fn hash_caches(&self) -> HashCaches<'_> {
        HashCaches { store: self }
    }

    /// Returns the directories of `RUN --mount=type=cache`.
    #[must_use]
    pub const fn cache_mounts(&self) -> CacheMounts<'_> {
        CacheMounts { store: self }
    }

    /// Returns the records of builds.
    #[must_use]
    pub fn build_records(&self) -> BuildRecords {
        BuildRecords::of_store(&self.root)
    }

    /// Waits for the exclusive right to run the step `key`. Another process or stage that runs the same
    /// step waits meanwhile, and then finds the step done.
    ///
    /// # Errors
    /// [`PathError`] if the lock file cannot be created or locked.
    pub fn lock_step(&self, key: CacheKey) -> Result<StoreLock, PathError> {
        StoreLock::of_step(&self.root, key)
    }

    /// Creates an empty directory on the store's file system. It is removed when the
    /// process ends or, if that is killed, when the store is opened again.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be created.
    pub fn work_directory(&self) -> Result<WorkDirectory, StoreError> {
        Ok(self.work.directory()?)
    }

    /// Returns a directory on the store's file system for files without a name (`O_TMPFILE`,
    /// open(2)).
    #[must_use]
    pub fn spill_directory(&self) -> PathBuf {
        self.work.path().to_owned()
    }

    /// Merges unpacked layers, base first, into one directory. Its files are hard links to those of the
    /// layers, and its whiteouts and opaque directories hide the same files of the layers below.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a directory cannot be read or written.
    pub fn flat_directory(&self, layers: &[LowerDirectory]) -> Result<FlatDirectory, StoreError> {
        flat_directory::merge(self, layers)
    }

    /// Syncs the file system of the store once, if layers were created, and marks them durable. From
    /// then on they survive a crash of the machine.
    ///
    /// # Errors
    /// [`StoreError::Index`], or [`StoreError::Io`] if syncfs(2) fails.
    pub fn make_durable(&self) -> Result<(), StoreError> {
        layer_records::make_durable(self)
    }

    /// Waits at most `patience` until no other process uses the store, and keeps them out until
    /// [`Store::prune`] or [`Store::verify`] is done. Calls `waiting` once if that takes long.
    ///
    /// # Errors
    /// [`StoreError::InUse`], with the processes that use the store.
    pub fn wait_for_exclusive_use(
        &self,
        patience: Duration,
        waiting: &dyn Fn(&LockHolders),
    ) -> Result<(), StoreError> {
        exclusive::wait(self, patience, waiting)
    }

    /// Removes roots by the options, and then blobs and layers that no root references.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process uses the store; [`StoreError::Corrupt`] if an image is
    /// damaged, so that its objects are unknown, unless all images are removed;
    /// [`StoreError::OtherIds`] for directories that this process cannot remove;
    /// [`StoreError::Index`], [`StoreError::Record`] or [`StoreError::Io`].
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, StoreError> {
        prune::prune(self, options)
    }

    /// Computes the disk usage of the store.
    ///
    /// # Errors
    /// [`StoreError::Index`], [`StoreError::Record`], [`StoreError::Corrupt`] or [`StoreError::Io`].
    pub fn usage(&self) -> Result<DiskUsage, StoreError> {
        usage::of_store(self)
    }

    /// Checks every blob, listing, unpacked layer and tag; with `is_repairing`, removes or rebuilds
    /// damaged ones.
    ///
    /// # Errors
    /// [`StoreError::InUse`] to repair while another process uses the store; [`StoreError::Index`],
    /// [`StoreError::Record`] or [`StoreError::Io`] if the check cannot continue.
    pub fn verify<'a>(
        &'a self,
        is_repairing: bool,
        report: &'a mut OnFinding<'a>,
    ) -> Result<VerifySummary, StoreError> {
        verify::verify(self, is_repairing, report)
    }

    /// Checks that another program, such as git, can write `n_bytes` into the store.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] if the free space is too small; [`StoreError::Io`].
    pub fn check_space(&self, n_bytes: u64) -> Result<(), StoreError> {
        let root = private_files::open_directory(&self.root)?;
        let checked = free_space::check(&root, n_bytes).context("examine", &self.root)?;
        Ok(checked?)
    }

    /// Calls `work` with the index, which one thread uses at a time. After a panic the index is
    /// intact: SQLite has rolled back the transaction.
    fn with_index<R>(&self, work: impl FnOnce(&mut index::Index) -> R) -> R {
        let mut index = pool::lock(&self.index);
        let done = work(&mut index);
        index.reconnect_if_stuck();
        done
    }
}

/// Returns whether this process has a single user id, so that owners of files are emulated.
fn emulates_owners() -> bool {
    sandbox::isolation().is_some_and(Isolation::emulates_owners)
}
