//! Images by name, cached steps, and the memo of file hashes: the store's face on its index.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::oci::{DiffId, Digest, Platform, Reference};
use crate::pathio::{self, Context as _, PathError};
use crate::plan::CacheKey;

use super::work::open_directory;
use super::{LayerRecord, StepRecord, Store, StoreError, Tag, guard};

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// The manifest that a name stands for.
    ///
    /// # Errors
    /// The index's.
    pub fn tag(&self, name: &Reference) -> Result<Option<Digest>> {
        self.with_index(|index| index.tag(&name.to_string()))
    }

    /// All names, sorted.
    ///
    /// # Errors
    /// The index's.
    pub fn tags(&self) -> Result<Vec<Tag>> {
        self.with_index(|index| index.tags())
    }

    /// Remembers what a registry said that `name` is on `platform`.
    ///
    /// # Errors
    /// The index's.
    pub fn set_resolved(
        &self,
        name: &Reference,
        platform: &Platform,
        manifest: Digest,
    ) -> Result<()> {
        let (name, platform) = (name.to_string(), platform.to_string());
        self.with_index(|index| index.put_resolved(&name, &platform, manifest))
    }

    /// What a registry last said that `name` is on `platform`.
    ///
    /// # Errors
    /// The index's.
    pub fn resolved(&self, name: &Reference, platform: &Platform) -> Result<Option<Digest>> {
        self.with_index(|index| index.resolved(&name.to_string(), &platform.to_string()))
    }

    /// The steps with this key by definition, one from each origin, that of this store first.
    ///
    /// # Errors
    /// The index's.
    pub fn steps_by_definition(&self, key: CacheKey) -> Result<Vec<StepRecord>> {
        self.with_index(|index| index.steps_by_definition(key))
    }

    /// The steps with this key by content, the oldest first.
    ///
    /// # Errors
    /// The index's.
    pub fn steps_by_content(&self, key: CacheKey) -> Result<Vec<StepRecord>> {
        self.with_index(|index| index.steps_by_content(key))
    }

    /// Whether the operation was ever made, on whatever parent.
    ///
    /// # Errors
    /// The index's.
    pub fn has_operation(&self, operation: CacheKey) -> Result<bool> {
        self.with_index(|index| index.has_operation(operation))
    }

    /// The steps that were used last, latest first, whether or not their layers are still there.
    ///
    /// # Errors
    /// The index's.
    pub fn latest_steps(&self, n_most: u32) -> Result<Vec<StepRecord>> {
        self.with_index(|index| index.latest_steps(n_most))
    }

    /// Remembers a step.
    ///
    /// # Errors
    /// The index's.
    pub fn record_step(&self, step: &StepRecord) -> Result<()> {
        self.with_index(|index| index.put_step(step, false))
    }

    /// Remembers a step that a cache knows, as its origin says.
    ///
    /// # Errors
    /// The index's.
    pub fn learn_step(&self, step: &StepRecord) -> Result<()> {
        self.with_index(|index| index.put_step(step, true))
    }

    /// Remembers a layer that is elsewhere, as a cache describes it.
    ///
    /// # Errors
    /// The index's.
    pub fn learn_layer(&self, diff_id: DiffId, record: &LayerRecord) -> Result<()> {
        self.with_index(|index| index.claim_layer(diff_id, record))
    }

    fn memo_path(&self, directory: &Path) -> PathBuf {
        self.root().join("memo").join(Digest::of(directory.as_os_str().as_bytes()).hex())
    }

    /// The memo of a directory's file hashes.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn memo(&self, directory: &Path) -> Result<Option<File>> {
        match guard::open_file(&self.memo_path(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    /// Stores the memo of a directory's file hashes, which `write` writes. It is not synced: one that
    /// did not get to the disk before a crash shows it, and only saves time.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn set_memo(
        &self,
        directory: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let process = self.process_directory()?;
        let draft = process.fresh();
        let mut file = BufWriter::new(guard::create_file(&draft)?);
        write(&mut file).and_then(|()| file.flush()).context("write", &draft)?;
        Ok(pathio::rename(&draft, &self.memo_path(directory))?)
    }

    /// Removes the memo of a directory's file hashes. Returns whether there was one.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn forget_memo(&self, directory: &Path) -> Result<bool> {
        let path = self.memo_path(directory);
        match rustix::fs::unlink(&path) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(PathError::new("remove", path, error).into()),
        }
    }

    /// A directory on the store's file system for files without a name.
    #[must_use]
    pub fn spill_directory(&self) -> PathBuf {
        self.root().join("tmp")
    }

    /// Syncs what was made to the disk, once for the whole build, so that it also survives a crash
    /// of the machine. Nothing to do when nothing was made.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn make_durable(&self) -> Result<()> {
        let layers: Vec<DiffId> = self.with_index(|index| index.volatile_layers())?;
        if layers.is_empty() {
            return Ok(());
        }
        let root = open_directory(self.root())?;
        rustix::fs::syncfs(root.as_fd()).context("sync", self.root())?;
        self.with_index(|index| index.mark_durable(&layers))
    }
}
