//! Changes attributes of mounts (mount_setattr(2)).

use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `MOUNT_ATTR_RDONLY` of `linux/mount.h`: no writing.
pub(in crate::sandbox) const READ_ONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`: set-id bits have no effect.
pub(in crate::sandbox) const NO_SUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`: device nodes cannot be opened.
pub(in crate::sandbox) const NO_DEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`: no program can be executed.
pub(in crate::sandbox) const NO_EXEC: u64 = 0x8;

/// `MS_PRIVATE` of `linux/mount.h`, in the width of the field.
const PRIVATE: u64 = 1 << 18;

/// Sets `attributes` (of `MOUNT_ATTR_*`) on the whole mount tree at `mount` and makes it private,
/// so that mounts in it do not propagate. mount_setattr(2), Linux 5.12. Allocates nothing.
pub(in crate::sandbox) fn restrict_tree(
    mount: BorrowedFd<'_>,
    attributes: u64,
) -> rustix::io::Result<()> {
    change_tree(mount, attributes, 0)
}

/// Allows devices on the mount at `mount` to be opened, and forbids set-id programs and execution.
/// Only for a mount whose devices the caller created. Allocates nothing.
pub(in crate::sandbox) fn allow_devices(mount: BorrowedFd<'_>) -> rustix::io::Result<()> {
    change_tree(mount, NO_SUID | NO_EXEC, NO_DEV)
}

fn change_tree(mount: BorrowedFd<'_>, set: u64, clear: u64) -> rustix::io::Result<()> {
    let change =
        libc::mount_attr { attr_set: set, attr_clr: clear, propagation: PRIVATE, userns_fd: 0 };
    // SAFETY: the path is a C string, `change` is as large as said; both outlive the call.
    super::checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Makes the number of `descriptor` refer to the file of `other`, close-on-exec. dup3(2). Allocates
/// nothing.
pub(in crate::sandbox) fn replace(
    descriptor: BorrowedFd<'_>,
    other: BorrowedFd<'_>,
) -> rustix::io::Result<()> {
    // SAFETY: three integers. The number stays an open descriptor, so its owner loses nothing.
    super::checked(unsafe {
        libc::syscall(libc::SYS_dup3, other.as_raw_fd(), descriptor.as_raw_fd(), libc::O_CLOEXEC)
    })?;
    Ok(())
}
