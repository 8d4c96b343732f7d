//! The files of a RUN's root: an overlay over unpacked layers, or a directory that the step changes in
//! place. Both make the same layer of the same changes.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Weak};

use crate::diag::Span;
use crate::executor::stack::Stack;
use crate::executor::state::BuildState;
use crate::executor::state::memory_files::MemoryFiles;
use crate::executor::state::root_directories::RootKind;
use crate::executor::{BuildError, Failure};
use crate::sandbox::{MemoryLimit, Rootfs, SandboxError};
use crate::store::{
    LayerOptions, LowerDirectory, RootDirectory, Store, StoreError, StoredLayer, TarObserver,
    WorkDirectory,
};
use crate::tree::Entry;

/// The files of a step's root.
#[derive(Debug)]
pub(in crate::executor) enum StepFiles {
    /// An overlay.
    Overlay(OverlayFiles),
    /// A directory with all files of the layers.
    InPlace(Box<InPlaceFiles>),
}

/// The directories of an overlay.
#[derive(Debug)]
pub(in crate::executor) struct OverlayFiles {
    /// The unpacked layers, base first.
    lowers: Vec<LowerDirectory>,
    work: WorkDirectory,
    changes: Changes,
    /// The changes after the last command, once they are listed.
    listed: Option<Arc<Vec<Entry>>>,
}

/// The writable directories of an overlay.
#[derive(Debug)]
enum Changes {
    /// The directory `fs` of the work directory.
    InStore(LowerDirectory),
    InMemory(MemoryFiles),
}

/// A root directory, and a work directory for other files of the step.
#[derive(Debug)]
pub(in crate::executor) struct InPlaceFiles {
    root: RootDirectory,
    work: WorkDirectory,
}

impl StepFiles {
    /// Returns the files of `stack` for a step at `span`: unpacks layers, or copies their files.
    pub(in crate::executor) fn of(
        state: &BuildState<'_>,
        stack: &Stack,
        span: Span,
    ) -> Result<Self, Failure> {
        if state.root_kind() == RootKind::MemoryOverlay
            && let Some(files) = Self::in_memory(state, stack, span)?
        {
            return Ok(files);
        }
        Self::with(state, stack, span, &|| state.shown_directories(stack, span))
    }

    /// As [`Self::of`], and shows no step if a base image is unpacked. The changes may take more space
    /// than there is memory.
    pub(in crate::executor) fn unshown(
        state: &BuildState<'_>,
        stack: &Stack,
        span: Span,
    ) -> Result<Self, Failure> {
        Self::with(state, stack, span, &|| state.directories(stack, span))
    }

    fn with(
        state: &BuildState<'_>,
        stack: &Stack,
        span: Span,
        directories: &dyn Fn() -> Result<Vec<LowerDirectory>, Failure>,
    ) -> Result<Self, Failure> {
        if state.root_kind() != RootKind::Overlay {
            return Self::in_place(state, stack, span);
        }
        let lowers = directories()?;
        let work = state.services.store.work_directory().map_err(BuildError::from)?;
        let upper = Arc::new(work.directory("fs").map_err(BuildError::from)?);
        Ok(Self::Overlay(OverlayFiles::new(lowers, work, Changes::InStore(upper))))
    }

    /// Returns a directory on the disk with all files of `stack`.
    pub(in crate::executor) fn in_place(
        state: &BuildState<'_>,
        stack: &Stack,
        span: Span,
    ) -> Result<Self, Failure> {
        let root = state.root_directory(stack, span)?;
        let work = state.services.store.work_directory().map_err(BuildError::from)?;
        Ok(Self::InPlace(Box::new(InPlaceFiles { root, work })))
    }

    /// Returns an overlay whose changes are in memory; `None` if that is short, or if the store cannot
    /// hold the unpacked layers.
    fn in_memory(
        state: &BuildState<'_>,
        stack: &Stack,
        span: Span,
    ) -> Result<Option<Self>, Failure> {
        if !state.is_unpackable_on_overlay(stack)? {
            return Ok(None);
        }
        let Some(reserved) = state.roots.memory().reserve() else { return Ok(None) };
        let lowers = state.shown_directories(stack, span)?;
        let work = state.services.store.work_directory().map_err(BuildError::from)?;
        let memory = MemoryFiles::new(reserved, work.path())
            .map_err(|source| BuildError::Sandbox { span, source })?;
        Ok(Some(Self::Overlay(OverlayFiles::new(lowers, work, Changes::InMemory(memory)))))
    }

    /// Returns the root, to run a command in. An insecure one can open devices.
    pub(in crate::executor) fn rootfs(
        &mut self,
        insecure: bool,
        span: Span,
    ) -> Result<Rootfs, BuildError> {
        let rootfs = match self {
            Self::Overlay(files) => return files.rootfs(insecure, span),
            Self::InPlace(files) => {
                files.root.begin_changes();
                let attributes = files.root.take_attributes();
                let open = if insecure { Rootfs::in_place_with_devices } else { Rootfs::in_place };
                let started = files.root.start_time()?;
                open(files.root.as_fd(), attributes, started)
            }
        };
        rootfs.map_err(|source| BuildError::Sandbox { span, source })
    }

    /// Notices what has changed in the root so far, besides mount points.
    pub(in crate::executor) fn note_changes(&mut self) {
        if let Self::InPlace(files) = self {
            files.root.note_changes();
        }
    }

    /// Ignores what has changed in the root since the last call: mount points, which will be removed
    /// before the layer is made. If `is_sure` is false, they may stay, or a command may change files in
    /// other ways.
    pub(in crate::executor) fn ignore_mount_points(&mut self, rootfs: &Rootfs, is_sure: bool) {
        let Self::InPlace(files) = self else { return };
        if is_sure {
            files.root.ignore_changes();
        } else {
            files.root.expect_changes();
        }
        rootfs.begin_attributes();
    }

    /// Ends the use of a root of [`Self::rootfs`] after its last command.
    pub(in crate::executor) fn end(&mut self, rootfs: Rootfs) {
        if let Self::InPlace(files) = self {
            files.root.set_attributes(rootfs.take_attributes());
        }
        drop(rootfs);
    }

    /// Returns the directory with the changes of the step, or one that contains them.
    pub(in crate::executor) fn changes(&self) -> BorrowedFd<'_> {
        match self {
            Self::Overlay(OverlayFiles { changes: Changes::InStore(upper), .. }) => upper.as_fd(),
            Self::Overlay(OverlayFiles { changes: Changes::InMemory(memory), .. }) => {
                memory.upper()
            }
            Self::InPlace(files) => files.root.as_fd(),
        }
    }

    /// Returns a directory for other files of the step.
    pub(in crate::executor) const fn work(&self) -> &WorkDirectory {
        match self {
            Self::Overlay(files) => &files.work,
            Self::InPlace(files) => &files.work,
        }
    }

    /// Returns the limit on memory for a command.
    pub(in crate::executor) fn memory_limit(&self) -> Option<MemoryLimit<'_>> {
        match self {
            Self::Overlay(OverlayFiles { changes: Changes::InMemory(memory), .. }) => {
                Some(memory.limit())
            }
            Self::Overlay(_) | Self::InPlace(_) => None,
        }
    }

    /// Returns the changes as a directory that the next step can mount while they are hashed; `None`
    /// if the layer must be made first. Must be called once, after the last command.
    pub(in crate::executor) fn upper(&mut self) -> Option<LowerDirectory> {
        match self {
            Self::Overlay(OverlayFiles { changes: Changes::InStore(upper), .. }) => {
                Some(Arc::clone(upper))
            }
            Self::Overlay(OverlayFiles { changes: Changes::InMemory(memory), .. }) => memory.keep(),
            Self::InPlace(_) => None,
        }
    }

    /// Lists the changes, without reading changed files. The list exists until [`Self::commit`] is done;
    /// of files that are changed in place there is none.
    pub(in crate::executor) fn list(
        &mut self,
        store: &Store,
        options: &LayerOptions,
    ) -> Result<Weak<Vec<Entry>>, StoreError> {
        match self {
            Self::Overlay(files) => Ok(Arc::downgrade(files.list(store, options)?)),
            Self::InPlace(_) => Ok(Weak::new()),
        }
    }

    /// Returns the total length of the changed files that [`Self::list`] has listed.
    pub(in crate::executor) fn listed_bytes(&self) -> u64 {
        let listed = match self {
            Self::Overlay(files) => files.listed.iter(),
            Self::InPlace(_) => None.iter(),
        };
        let files = listed.flat_map(|listed| listed.iter()).filter_map(|entry| entry.item.file());
        files.map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// Makes the layer of the changes. `observer` gets the tar of changes that were listed.
    pub(in crate::executor) fn commit(
        &mut self,
        store: &Store,
        options: &LayerOptions,
        observer: Option<&mut dyn TarObserver>,
    ) -> Result<StoredLayer, StoreError> {
        match self {
            Self::Overlay(files) => {
                let listed = Arc::clone(files.list(store, options)?);
                files.listed = None;
                match &files.changes {
                    Changes::InStore(upper) => {
                        let upper = upper.as_fd();
                        store.layer_from_upper(&files.work, upper, &listed, options, observer)
                    }
                    Changes::InMemory(memory) => {
                        store.tar_from_upper(memory.upper(), &listed, options, observer)
                    }
                }
            }
            Self::InPlace(files) => store.layer_from_root(&mut files.root, options),
        }
    }

    /// Returns the root directory of files that are changed in place.
    pub(in crate::executor) fn into_root(self) -> Option<RootDirectory> {
        match self {
            Self::Overlay(_) => None,
            Self::InPlace(files) => Some(files.root),
        }
    }
}

impl OverlayFiles {
    const fn new(lowers: Vec<LowerDirectory>, work: WorkDirectory, changes: Changes) -> Self {
        Self { lowers, work, changes, listed: None }
    }

    fn list(
        &mut self,
        store: &Store,
        options: &LayerOptions,
    ) -> Result<&Arc<Vec<Entry>>, StoreError> {
        let listed = match (self.listed.take(), &self.changes) {
            (Some(listed), _) => listed,
            (None, Changes::InStore(upper)) => {
                Arc::new(store.list_upper(upper.as_fd(), &self.lowers, options)?)
            }
            (None, Changes::InMemory(memory)) => {
                Arc::new(store.list_upper(memory.upper(), &self.lowers, options)?)
            }
        };
        Ok(self.listed.insert(listed))
    }

    fn rootfs(&self, insecure: bool, span: Span) -> Result<Rootfs, BuildError> {
        let mut lowers: Vec<BorrowedFd<'_>> =
            self.lowers.iter().map(|lower| lower.as_fd()).collect();
        let empty;
        if lowers.is_empty() {
            empty = self.work.directory("empty")?;
            lowers.push(empty.as_fd());
        }
        let mounted = match &self.changes {
            Changes::InStore(upper) => {
                let scratch = self.work.directory("work")?;
                let overlay = if insecure { Rootfs::overlay_with_devices } else { Rootfs::overlay };
                overlay(&lowers, upper.as_fd(), scratch.as_fd())
            }
            Changes::InMemory(memory) => memory.overlay(&lowers, insecure),
        };
        mounted.map_err(|source: SandboxError| BuildError::Sandbox { span, source })
    }
}
