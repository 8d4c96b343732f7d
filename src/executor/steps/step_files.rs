//! The files of a RUN's root: an overlay over unpacked layers, or a directory that the step changes in
//! place. Both make the same layer of the same changes.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use crate::diag::Span;
use crate::executor::stack::Stack;
use crate::executor::state::BuildState;
use crate::executor::{BuildError, Failure};
use crate::sandbox::{Rootfs, SandboxError};
use crate::store::{
    LayerOptions, LowerDirectory, RootDirectory, Store, StoreError, StoredLayer, WorkDirectory,
};

/// The files of a step's root.
#[derive(Debug)]
pub(in crate::executor) enum StepFiles {
    /// An overlay. The step changes the directory `fs` of the work directory.
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
    upper: LowerDirectory,
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
        Self::with(state, stack, span, &|| state.shown_directories(stack, span))
    }

    /// As [`Self::of`], and shows no step if a base image is unpacked.
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
        let work = || state.services.store.work_directory().map_err(BuildError::from);
        if state.runs_in_place() {
            let root = state.root_directory(stack, span)?;
            return Ok(Self::InPlace(Box::new(InPlaceFiles { root, work: work()? })));
        }
        let lowers = directories()?;
        let work = work()?;
        let upper = Arc::new(work.directory("fs").map_err(BuildError::from)?);
        Ok(Self::Overlay(OverlayFiles { lowers, work, upper }))
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
                let attributes = files.root.take_attributes();
                let open = if insecure { Rootfs::in_place_with_devices } else { Rootfs::in_place };
                open(files.root.as_fd(), attributes)
            }
        };
        rootfs.map_err(|source| BuildError::Sandbox { span, source })
    }

    /// Ends the use of a root of [`Self::rootfs`] after its last command.
    pub(in crate::executor) fn end(&mut self, rootfs: Rootfs) {
        if let Self::InPlace(files) = self {
            files.root.set_attributes(rootfs.take_attributes());
        }
        drop(rootfs);
    }

    /// Returns a directory for other files of the step.
    pub(in crate::executor) const fn work(&self) -> &WorkDirectory {
        match self {
            Self::Overlay(files) => &files.work,
            Self::InPlace(files) => &files.work,
        }
    }

    /// Returns the changes as a directory that the next step can mount while they are hashed; `None`
    /// if the layer must be made first.
    pub(in crate::executor) fn upper(&self) -> Option<LowerDirectory> {
        match self {
            Self::Overlay(files) => Some(Arc::clone(&files.upper)),
            Self::InPlace(_) => None,
        }
    }

    /// Makes the layer of the changes.
    pub(in crate::executor) fn commit(
        &mut self,
        store: &Store,
        options: &LayerOptions,
    ) -> Result<StoredLayer, StoreError> {
        match self {
            Self::Overlay(files) => {
                let OverlayFiles { work, upper, lowers } = files;
                store.layer_from_upper(work, upper.as_fd(), lowers, options)
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
    fn rootfs(&self, insecure: bool, span: Span) -> Result<Rootfs, BuildError> {
        let scratch = self.work.directory("work")?;
        let mut lowers: Vec<BorrowedFd<'_>> =
            self.lowers.iter().map(|lower| lower.as_fd()).collect();
        let empty;
        if lowers.is_empty() {
            empty = self.work.directory("empty")?;
            lowers.push(empty.as_fd());
        }
        let overlay = if insecure { Rootfs::overlay_with_devices } else { Rootfs::overlay };
        overlay(&lowers, self.upper.as_fd(), scratch.as_fd())
            .map_err(|source: SandboxError| BuildError::Sandbox { span, source })
    }
}
