//! Makes the rootfs the only root of its mount namespace: a process that leaves a directory
//! upwards, or a chroot, must end up in it. Allocates nothing.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, Result};
use rustix::mount::UnmountFlags;

use super::kept_mounts;

/// Makes `root`, which is mounted over the old root, the root directory, and unmounts the old one
/// with everything mounted on it. Sends the namespace to `keep` only after that: before, it would
/// lead to the host.
pub(super) fn pivot(root: BorrowedFd<'_>, keep: Option<BorrowedFd<'_>>) -> Result<()> {
    // While `/proc` is still the host's: that of the step may be anything.
    let namespace = keep.map(|_| kept_mounts::own_namespace()).transpose()?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open(c"/", directory, Mode::empty())?;
    rustix::process::fchdir(root)?;
    // The old root ends up on top of the new one (pivot_root(2), "pivot_root(".", ".")").
    rustix::process::pivot_root(c".", c".")?;
    rustix::process::fchdir(&old)?;
    detach_all()?;
    rustix::process::chdir(c"/")?;
    is_only_root(root)?;
    match (keep, namespace) {
        (Some(to), Some(namespace)) => kept_mounts::send(to, namespace.as_fd()),
        (Some(_) | None, _) => Ok(()),
    }
}

/// Detaches the mount of the working directory (umount2(2), `MNT_DETACH`). Of mounts stacked on
/// each other umount2 takes the topmost, so this repeats until the mount is in no namespace any
/// more.
fn detach_all() -> Result<()> {
    loop {
        match rustix::mount::unmount(c".", UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Checks that no mount hides `root`, and that `root` hides no other mount: the mount at `/..` is
/// the topmost one at the root, and must be `root` itself.
///
/// # Errors
/// `BUSY` when it is another mount, or when the kernel reports no mount ids (before Linux 5.8).
pub(super) fn is_only_root(root: BorrowedFd<'_>) -> Result<()> {
    let above = rustix::fs::statx(CWD, c"/..", AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)?;
    let own = rustix::fs::statx(root, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let is_known = |mask| StatxFlags::from_bits_retain(mask).contains(StatxFlags::MNT_ID);
    let are_known = is_known(above.stx_mask) && is_known(own.stx_mask);
    if are_known && above.stx_mnt_id == own.stx_mnt_id { Ok(()) } else { Err(Errno::BUSY) }
}
