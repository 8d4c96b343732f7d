//! The changes of a step in memory, over layers in a store that cannot hold them.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::sandbox::{self, MemoryLimit, Rootfs, SandboxError};
use crate::store::LowerDirectory;

use super::memory_budget::ReservedMemory;

/// The writable directories of an overlay, in a tmpfs of their own.
#[derive(Debug)]
pub(in crate::executor) struct MemoryFiles {
    /// `None` after the step, when it is known how much memory the changes take.
    reserved: Option<ReservedMemory>,
    limit_bytes: u64,
    /// The mount; without it, `upper` is in no mount that an overlay accepts.
    tmpfs: OwnedFd,
    upper: OwnedFd,
    work: OwnedFd,
}

impl MemoryFiles {
    /// Creates empty directories. The step sees as much free space as `disk` has, or the memory has, if
    /// that is less. It is killed when it uses more than what is reserved.
    ///
    /// # Errors
    /// [`SandboxError::Setup`], with the kernel's error.
    pub(in crate::executor) fn new(
        reserved: ReservedMemory,
        disk: &Path,
    ) -> Result<Self, SandboxError> {
        let limit_bytes = reserved.bytes();
        let free = rustix::fs::statvfs(disk)
            .map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
        let shown = free.min(reserved.max_shown_bytes()).max(limit_bytes.saturating_mul(2));
        let tmpfs = sandbox::limited_memory_directory(shown)?;
        let upper = directory(&tmpfs, "fs")?;
        let work = directory(&tmpfs, "work")?;
        Ok(Self { reserved: Some(reserved), limit_bytes, tmpfs, upper, work })
    }

    /// Mounts the overlay over `lowers`, base first.
    ///
    /// # Errors
    /// [`SandboxError::Overlay`], with the likely cause.
    pub(in crate::executor) fn overlay(
        &self,
        lowers: &[BorrowedFd<'_>],
        insecure: bool,
    ) -> Result<Rootfs, SandboxError> {
        let overlay = if insecure { Rootfs::overlay_with_devices } else { Rootfs::overlay };
        overlay(lowers, self.upper.as_fd(), self.work.as_fd())
    }

    /// Returns the limit for a command.
    pub(in crate::executor) fn limit(&self) -> MemoryLimit<'_> {
        MemoryLimit { directory: self.tmpfs.as_fd(), max_bytes: self.limit_bytes }
    }

    /// Returns the directory with the changes.
    pub(in crate::executor) fn upper(&self) -> BorrowedFd<'_> {
        self.upper.as_fd()
    }

    /// Keeps the memory of the changes and no more. Returns them as a directory for the mounts of later
    /// steps; `None` if memory is short, so that they must be read from the store.
    pub(in crate::executor) fn keep(&mut self) -> Option<LowerDirectory> {
        let used = sandbox::memory_use(self.tmpfs.as_fd())?;
        let is_kept = self.reserved.take()?.keep(used);
        let directory = is_kept.then(|| Rootfs::bind(self.upper.as_fd()).ok()).flatten()?;
        Some(Arc::new(directory.into_mount()))
    }
}

fn directory(tmpfs: &OwnedFd, name: &str) -> Result<OwnedFd, SandboxError> {
    let mode = Mode::from_raw_mode(0o755);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::mkdirat(tmpfs, name, mode)
        // mkdir(2) applies the umask.
        .and_then(|()| rustix::fs::chmodat(tmpfs, name, mode, rustix::fs::AtFlags::empty()))
        .and_then(|()| rustix::fs::openat(tmpfs, name, flags, Mode::empty()))
        .map_err(|errno| SandboxError::Setup {
            op: "make a directory in memory".to_owned(),
            source: errno.into(),
        })
}
