//! A directory with all files of a stack of layers, in which a step runs and makes its changes.
//!
//! It needs no mounts: a step that may not mount anything, or whose store is on a file system that
//! overlayfs does not accept as an upper directory, has such a directory as its root. The changes are
//! found by a scan that compares each file with a record of the last one. A file is read only if its
//! inode, times, size, mode or owner differ from that record.

mod contents;
mod maker;
mod record;
mod scan;
mod update;
mod watch;

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW};

use crate::pathio::{self, Context as _, PathError};
use crate::sandbox::{Attributes, EmulatedFiles, FileId, FileTime};
use crate::tree::{Entry, LayerItem, Meta, Tree, TreePath, Xattrs};

use super::{LayerOptions, Store, StoreError, StoredLayer, WorkDirectory};

use maker::MakerRights;
use record::{FileRecord, Time, recent_since};
use scan::{ScanContext, Scanned, SeenAttributes};
use watch::Watch;

type Result<T> = std::result::Result<T, StoreError>;

/// Time between two looks at a clock that has to advance.
const CLOCK_POLL: Duration = Duration::from_micros(200);

/// A directory with all files of a stack of layers. It is removed when this value is dropped.
#[derive(Debug)]
pub struct RootDirectory {
    work: WorkDirectory,
    files: OwnedFd,
    /// The files of the layers.
    tree: Tree,
    /// `None` after a scan that failed.
    record: Option<FileRecord>,
    emulates: bool,
    attributes: EmulatedFiles,
    /// A time of the file system after the last change of a file, or at it.
    changed: Time,
    watch: Option<Watch>,
    /// True as long as nothing has changed since the last scan.
    is_quiet: bool,
}

impl Store {
    /// Creates a directory with all files of `tree`, the merged tree of a stack of layers. With
    /// `emulates_owners`, attributes that only root can set are kept in memory
    /// ([`RootDirectory::take_attributes`]), and files are created with the owner of this process.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], the damage of a layer, or [`StoreError::Io`].
    pub fn root_directory(&self, tree: &Tree, emulates_owners: bool) -> Result<RootDirectory> {
        let work = self.work_directory()?;
        let files = work.directory("fs")?;
        let empty = Tree::default();
        let rights = self.maker_rights(emulates_owners);
        let made = update::update(self, files.as_fd(), (&empty, tree), rights)?;
        let changed = time_of(&work)?;
        let mut attributes = EmulatedFiles::default();
        add(&mut attributes, made);
        let watch = Watch::new();
        let (seen, recent) = (seen(emulates_owners, &attributes), recent_since(time_of(&work)?));
        let context = ScanContext { seen, recent, watch: watch.as_ref() };
        let scanned = scan::record(files.as_fd(), None, tree, context)?;
        let Scanned { record, attributes, .. } = scanned;
        let (tree, record, emulates) = (tree.clone(), Some(record), emulates_owners);
        Ok(RootDirectory {
            work,
            files,
            tree,
            record,
            emulates,
            attributes,
            changed,
            watch,
            is_quiet: false,
        })
    }

    /// Changes the files of `root` to those of `tree`.
    ///
    /// # Errors
    /// The errors of [`Store::root_directory`]. The directory must not be used any more then.
    pub fn update_root(&self, root: &mut RootDirectory, tree: &Tree) -> Result<()> {
        let rights = self.maker_rights(root.emulates);
        let made = update::update(self, root.files.as_fd(), (&root.tree, tree), rights)?;
        root.changed = time_of(&root.work)?;
        add(&mut root.attributes, made);
        let old = root.record.take();
        let scanned = scan::record(root.files.as_fd(), old, tree, root.context()?)?;
        (root.record, root.attributes) = (Some(scanned.record), scanned.attributes);
        root.tree = tree.clone();
        Ok(())
    }

    /// Creates a layer, as a plain tar, from the changes that a RUN made in `root`.
    /// [`RootDirectory::set_tree`] must follow.
    ///
    /// # Errors
    /// [`StoreError::ReservedName`] or [`StoreError::LayerTooLarge`] if a layer cannot hold the files;
    /// [`StoreError::Layer`] or [`StoreError::Io`] if they cannot be read.
    pub fn layer_from_root(
        &self,
        root: &mut RootDirectory,
        options: &LayerOptions,
    ) -> Result<StoredLayer> {
        let mut changed = root.scan()?;
        self.check_changes(&mut changed, root.as_fd(), options)?;
        let mut written = Vec::new();
        let mut note = |entry: &Entry| written.extend(WrittenEntry::of(entry));
        let layer = self.tar_from_changes(&changed, root.as_fd(), options, &mut note, None)?;
        root.settle(&written)?;
        Ok(layer)
    }

    fn maker_rights(&self, emulates: bool) -> MakerRights {
        MakerRights { emulates, devices: self.may_create_devices() }
    }
}

impl RootDirectory {
    /// Returns the directory with the files.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.files.as_fd()
    }

    /// Returns the work directory that contains the files, and may contain others.
    #[must_use]
    pub const fn work(&self) -> &WorkDirectory {
        &self.work
    }

    /// Returns the attributes of files that the disk does not hold, for the sandbox. They must be
    /// given back with [`Self::set_attributes`].
    pub fn take_attributes(&mut self) -> EmulatedFiles {
        std::mem::take(&mut self.attributes)
    }

    /// Sets the attributes of files as a step left them.
    pub fn set_attributes(&mut self, attributes: EmulatedFiles) {
        self.is_quiet &= !attributes.is_changed();
        self.attributes = attributes;
    }

    /// Waits until a new file would be younger than all files of the directory: a tick of the clock, at
    /// most 10 ms, where file systems have no finer one (multigrain timestamps, Linux 6.13). Returns the
    /// time that separates them.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn start_time(&self) -> Result<FileTime> {
        loop {
            let now = time_of(&self.work)?;
            if now > self.changed {
                return Ok(FileTime::new(now.0, now.1));
            }
            std::thread::sleep(CLOCK_POLL);
        }
    }

    /// Sets the tree that the files are in now: that of the stack with the layer of the last step.
    pub fn set_tree(&mut self, tree: Tree) {
        self.tree = tree;
    }

    /// Begins to notice changes. What rbuild itself has changed before is known.
    pub fn begin_changes(&mut self) {
        self.is_quiet = true;
        self.ignore_changes();
    }

    /// Notices the changes so far.
    pub fn note_changes(&mut self) {
        self.is_quiet &= self.watch.as_ref().is_some_and(Watch::was_quiet);
    }

    /// Discards the changes since the last call, which rbuild will undo.
    pub fn ignore_changes(&self) {
        let _ignored = self.watch.as_ref().map(Watch::was_quiet);
    }

    /// Takes it as given that there are changes.
    pub const fn expect_changes(&mut self) {
        self.is_quiet = false;
    }

    fn context(&self) -> Result<ScanContext<'_>> {
        let seen = seen(self.emulates, &self.attributes);
        let recent = recent_since(time_of(&self.work)?);
        Ok(ScanContext { seen, recent, watch: self.watch.as_ref() })
    }

    /// Returns the changed paths since the last scan.
    fn scan(&mut self) -> Result<Vec<Entry>> {
        self.changed = time_of(&self.work)?;
        if self.is_quiet && self.record.is_some() {
            debug_assert!(self.has_no_changes(), "a change was not noticed");
            tracing::debug!(root = %self.work.path().display(), "nothing changed");
            return Ok(Vec::new());
        }
        let old = self.record.take();
        let scanned = scan::changes(self.files.as_fd(), old, &self.tree, self.context()?)?;
        (self.record, self.attributes) = (Some(scanned.record), scanned.attributes);
        Ok(scanned.changed)
    }

    /// Returns whether a scan finds no changes.
    fn has_no_changes(&self) -> bool {
        let scan = || {
            let (old, context) = (self.record.clone(), self.context()?);
            Ok::<_, StoreError>(scan::changes(self.files.as_fd(), old, &self.tree, context)?)
        };
        scan().is_ok_and(|scanned| scanned.changed.is_empty())
    }

    /// Records the entries of a layer: their times may have been clamped, and their extended
    /// attributes were read while the layer was written.
    fn settle(&mut self, written: &[WrittenEntry]) -> Result<()> {
        let recent = recent_since(time_of(&self.work)?);
        let Some(root) = &mut self.record else { return Ok(()) };
        let mut several_names = HashMap::new();
        for entry in written {
            let path = entry.path.as_path();
            let stat = rustix::fs::statat(&self.files, path, AtFlags::SYMLINK_NOFOLLOW)
                .context("look at", path)?;
            let Some(record) = record::find_mut(&mut root.entries, &entry.path) else { continue };
            let entries = std::mem::take(&mut record.entries);
            *record = FileRecord::new(&stat, record.attributes().clone(), recent);
            record.entries = entries;
            record.xattrs.clone_from(&entry.xattrs);
            if stat.st_nlink > 1 && !record.is_directory() {
                several_names.insert(FileId::of(&stat), record.clone());
            }
        }
        if !several_names.is_empty() {
            record::settle_names(&mut root.entries, &several_names);
        }
        Ok(())
    }
}

impl Drop for RootDirectory {
    fn drop(&mut self) {
        // It would get an event for each removed file.
        drop(self.watch.take());
        // The rest is removed with the work directory of the process.
        let _gone = pathio::remove_tree(self.work.path());
    }
}

/// An entry of a layer that was written.
#[derive(Debug)]
struct WrittenEntry {
    path: TreePath,
    xattrs: Option<Box<Xattrs>>,
}

impl WrittenEntry {
    /// Returns the file of an entry; `None` for further names of a file, and for removed ones.
    fn of(entry: &Entry) -> Option<Self> {
        match &entry.item {
            LayerItem::Node(Meta { xattrs, .. }, _) => {
                Some(Self { path: entry.path.clone(), xattrs: xattrs.clone() })
            }
            LayerItem::HardLink(_) | LayerItem::Whiteout | LayerItem::Opaque => None,
        }
    }
}

const fn seen(emulates: bool, attributes: &EmulatedFiles) -> SeenAttributes<'_> {
    if emulates { SeenAttributes::Emulated(attributes) } else { SeenAttributes::OnDisk }
}

fn add(attributes: &mut EmulatedFiles, made: Vec<(FileId, Option<Attributes>)>) {
    for (file, own) in made {
        match own {
            Some(own) => attributes.set(file, own),
            None => attributes.remove(file),
        }
    }
}

/// Returns the current time by the clock of the file system, which may be another machine's. It may be
/// ahead of the kernel's clock for times of files (`CLOCK_REALTIME_COARSE`): one file whose time was looked at
/// gets a finer one with its next change, and no later time is earlier
/// (<https://docs.kernel.org/filesystems/multigrain-ts.html>).
fn time_of(work: &WorkDirectory) -> std::result::Result<Time, PathError> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    rustix::fs::futimens(work.as_fd(), &times).context("set the time of", work.path())?;
    let stat = rustix::fs::fstat(work.as_fd()).context("look at", work.path())?;
    Ok((stat.st_ctime, stat.st_ctime_nsec))
}
