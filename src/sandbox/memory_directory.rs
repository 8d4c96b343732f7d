//! Directories in memory: detached mounts of tmpfs (tmpfs(5)). Their files are on no disk, and gone with
//! the last descriptor and the last mount.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::detached_mount;
use super::error::SandboxError;

/// Memory that a file takes besides its content, bytes: its inode and its name.
const INODE_BYTES: u64 = 1024;

/// A limit on the memory of a directory, which a running command must not exceed.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimit<'a> {
    /// A directory of [`limited_memory_directory`].
    pub directory: BorrowedFd<'a>,
    /// Maximum size of its files, bytes.
    pub max_bytes: u64,
}

impl MemoryLimit<'_> {
    /// Returns whether the files take more. True as well if the kernel does not say.
    pub(super) fn is_exceeded(self) -> bool {
        memory_use(self.directory).is_none_or(|used| used > self.max_bytes)
    }
}

/// Returns an empty directory in memory.
///
/// # Errors
/// [`SandboxError::Setup`], with the kernel's error.
pub fn memory_directory() -> Result<OwnedFd, SandboxError> {
    detached_mount::new_tmpfs().map_err(failed)
}

/// Returns an empty directory in memory whose files together have at most this size.
///
/// # Errors
/// [`SandboxError::Setup`], with the kernel's error.
pub fn limited_memory_directory(max_bytes: u64) -> Result<OwnedFd, SandboxError> {
    let n_inodes = number((max_bytes / INODE_BYTES).max(1));
    let options = [(c"size", number(max_bytes)), (c"nr_inodes", n_inodes)];
    let options = options.each_ref().map(|(key, value)| (*key, value.as_c_str()));
    detached_mount::new_tmpfs_with(&options).map_err(failed)
}

/// Returns the memory that the files of a [`limited_memory_directory`] take, bytes; `None` if the kernel
/// does not say.
#[must_use]
pub fn memory_use(directory: BorrowedFd<'_>) -> Option<u64> {
    let found = rustix::fs::fstatvfs(directory).ok()?;
    let blocks = found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize);
    let inodes = found.f_files.saturating_sub(found.f_ffree).saturating_mul(INODE_BYTES);
    Some(blocks.saturating_add(inodes))
}

fn number(value: u64) -> CString {
    CString::new(value.to_string()).unwrap_or_default()
}

fn failed(errno: Errno) -> SandboxError {
    SandboxError::setup("make a directory in memory", errno)
}
