//! The descriptors that a child keeps until it executes its command.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};

use rustix::io::{Errno, FdFlags};

/// The number of the status pipe in the child, which the launcher's code relies on.
const STATUS: RawFd = 3;
/// The number of the launcher's file in the child.
const LAUNCHER: RawFd = 4;
/// The number of a third descriptor that a child may keep.
const EXTRA: RawFd = 5;

/// The highest number that [`any_open_from_first_closed`] checks. rbuild's descriptors have the
/// lowest free numbers, and a step's setup needs a few dozen; each check costs a system call.
const LAST_CHECKED: RawFd = 255;

/// The two descriptors besides the streams that a child needs to execute its command.
#[derive(Debug, Clone, Copy)]
pub(in crate::sandbox) struct KeptDescriptors {
    /// The status pipe. The launcher sets close-on-exec on it.
    pub(in crate::sandbox) status: BorrowedFd<'static>,
    /// The launcher's file, which exec closes.
    pub(in crate::sandbox) launcher: BorrowedFd<'static>,
    /// The third descriptor, which exec closes.
    pub(in crate::sandbox) extra: Option<BorrowedFd<'static>>,
}

/// Closes every descriptor of the calling process but the three streams, `status`, `launcher` and
/// `extra`, which get new numbers. close_range(2), Linux 5.9. Allocates nothing.
///
/// Only for a child with a descriptor table of its own: it closes descriptors without their owners'
/// knowledge.
pub(in crate::sandbox) fn keep_only(
    status: BorrowedFd<'_>,
    launcher: BorrowedFd<'_>,
    extra: Option<BorrowedFd<'_>>,
) -> rustix::io::Result<KeptDescriptors> {
    let first_closed = first_closed(extra.is_some());
    // Numbers above all targets first: one may have another's.
    let status = rustix::io::fcntl_dupfd_cloexec(status, first_closed)?;
    let launcher = rustix::io::fcntl_dupfd_cloexec(launcher, first_closed)?;
    if let Some(extra) = extra {
        let extra = rustix::io::fcntl_dupfd_cloexec(extra, first_closed)?;
        duplicate(extra.as_fd(), EXTRA, libc::O_CLOEXEC)?;
        std::mem::forget(extra);
    }
    duplicate(status.as_fd(), STATUS, 0)?;
    duplicate(launcher.as_fd(), LAUNCHER, libc::O_CLOEXEC)?;
    // Closed below, with all others.
    std::mem::forget((status, launcher));
    // SAFETY: three integers. The owners of the closed descriptors live in the parent, whose table
    // is another one; this process never runs their destructors.
    super::checked(unsafe {
        libc::syscall(libc::SYS_close_range, first_closed, libc::c_uint::MAX, 0)
    })?;
    // SAFETY: `duplicate` has just opened it, and this process never closes it.
    let status = unsafe { BorrowedFd::borrow_raw(STATUS) };
    // SAFETY: likewise.
    let launcher = unsafe { BorrowedFd::borrow_raw(LAUNCHER) };
    // SAFETY: likewise.
    let extra = extra.map(|_| unsafe { BorrowedFd::borrow_raw(EXTRA) });
    Ok(KeptDescriptors { status, launcher, extra })
}

const fn first_closed(has_extra: bool) -> RawFd {
    if has_extra { EXTRA + 1 } else { EXTRA }
}

/// Closes every descriptor of the calling process but `kept`. close_range(2), Linux 5.9. Allocates
/// nothing.
///
/// Only for a process with a descriptor table of its own, which runs no destructors of the others.
pub(in crate::sandbox) fn close_all_but(kept: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let kept = libc::c_uint::try_from(kept.as_raw_fd()).map_err(|_error| Errno::BADF)?;
    if kept > 0 {
        // SAFETY: three integers; see above.
        super::checked(unsafe { libc::syscall(libc::SYS_close_range, 0, kept - 1, 0) })?;
    }
    // SAFETY: three integers; see above.
    super::checked(unsafe {
        libc::syscall(libc::SYS_close_range, kept.saturating_add(1), libc::c_uint::MAX, 0)
    })?;
    Ok(())
}

/// Closes the descriptor `number` of the calling process, which must be a copy of the process that owns
/// it: that process's own descriptor stays open. Allocates nothing.
pub(in crate::sandbox) fn close_copy(number: RawFd) -> rustix::io::Result<()> {
    // SAFETY: one integer. The owner lives in the parent, whose table is another one; this process never
    // runs its destructor.
    super::checked(unsafe { libc::syscall(libc::SYS_close, number) }).map(drop)
}

/// Duplicates to a number that may be in use. dup3(2).
fn duplicate(from: BorrowedFd<'_>, to: RawFd, flags: libc::c_int) -> rustix::io::Result<()> {
    // SAFETY: three integers. What `to` meant before belongs to the parent, as said above.
    super::checked(unsafe { libc::syscall(libc::SYS_dup3, from.as_raw_fd(), to, flags) })?;
    Ok(())
}

/// Returns whether a descriptor is open that [`keep_only`] should have closed. Allocates nothing.
pub(in crate::sandbox) fn any_open_from_first_closed(has_extra: bool) -> bool {
    (first_closed(has_extra)..=LAST_CHECKED).any(|number| {
        // SAFETY: only asks for the flags of a number that may be closed; nothing is done to it.
        let number = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_getfd(number) != Err(Errno::BADF)
    })
}

/// Returns whether exec closes the launcher's file, as it must. Allocates nothing.
pub(in crate::sandbox) fn closed_by_exec(descriptor: BorrowedFd<'_>) -> bool {
    rustix::io::fcntl_getfd(descriptor).is_ok_and(|flags| flags.contains(FdFlags::CLOEXEC))
}
