//! Detached mounts: they are in no mount table, and end with their last descriptor (open_tree(2),
//! fsmount(2), Linux 5.2).

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, open_tree};

/// Returns a new tmpfs, mounted nowhere. Allocates nothing.
pub(super) fn new_tmpfs() -> rustix::io::Result<OwnedFd> {
    new_tmpfs_with(&[])
}

/// Returns a new tmpfs with these options (tmpfs(5)), mounted nowhere. Allocates nothing.
pub(super) fn new_tmpfs_with(options: &[(&CStr, &CStr)]) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), c"mode", c"0755")?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Clones the mounts at and below `place` into a detached tree.
pub(super) fn clone_tree(place: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    open_tree(
        place,
        c"",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE,
    )
}
