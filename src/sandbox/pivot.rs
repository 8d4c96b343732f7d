//! The rootfs becomes the root of its mount namespace, and the only thing there: whoever leaves a
//! directory upwards, or a chroot, must end up in it. Allocates nothing.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, Result};
use rustix::mount::UnmountFlags;

use super::keep;

/// Makes `root`, which lies over the old root, the root; lets the old one go with all that lies on
/// it. Only then is the namespace handed over, if somebody is to `keep` it: with less it would lead
/// to the host.
pub(super) fn pivot(root: BorrowedFd<'_>, keep: Option<BorrowedFd<'_>>) -> Result<()> {
    // As long as `/proc` is the host's: that of the step may be anything.
    let namespace = keep.map(|_| keep::own_namespace()).transpose()?;
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
        (Some(to), Some(namespace)) => keep::hand_over(to, namespace.as_fd()),
        (Some(_) | None, _) => Ok(()),
    }
}

/// Detaches the mount of the working directory. What unmounting takes is always the uppermost of those
/// that lie over each other: so it goes on until this mount is in no namespace any more.
fn detach_all() -> Result<()> {
    loop {
        match rustix::mount::unmount(c".", UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Makes sure that nothing lies over `root`, nor it over something that shows: what is above the
/// root is the uppermost mount there, and must be `root` itself.
///
/// # Errors
/// `BUSY` when it is another one.
pub(super) fn is_only_root(root: BorrowedFd<'_>) -> Result<()> {
    let above = rustix::fs::statx(CWD, c"/..", AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)?;
    let own = rustix::fs::statx(root, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let is_known = |mask| StatxFlags::from_bits_retain(mask).contains(StatxFlags::MNT_ID);
    let are_known = is_known(above.stx_mask) && is_known(own.stx_mask);
    if are_known && above.stx_mnt_id == own.stx_mnt_id { Ok(()) } else { Err(Errno::BUSY) }
}
