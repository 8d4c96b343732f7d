//! Seccomp user notification: a supervisor answers the system calls of other processes
//! (seccomp_unotify(2), Linux 5.0; `SECCOMP_ADDFD_FLAG_SEND`, Linux 5.14).

use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

/// `SECCOMP_SET_MODE_FILTER` of `linux/seccomp.h`.
const SET_MODE_FILTER: libc::c_uint = 1;
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (Linux 6.6): the supervisor runs on the caller's processor.
const SYNC_WAKE_UP: u64 = 1;

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) struct Notification {
    /// Identifies the call in the answer.
    pub(in crate::sandbox) id: u64,
    /// The calling thread, in the supervisor's pid namespace.
    pub(in crate::sandbox) pid: u32,
    /// The number of the system call.
    pub(in crate::sandbox) number: i32,
    /// `AUDIT_ARCH_*` of `linux/audit.h`.
    pub(in crate::sandbox) arch: u32,
    /// Its arguments.
    pub(in crate::sandbox) args: [u64; 6],
}

/// Applies `program` to the calling thread and its future children. Returns the descriptor on which a
/// supervisor receives the calls that the program answers with `SECCOMP_RET_USER_NOTIF`. Needs
/// `no_new_privs` or `CAP_SYS_ADMIN`. Allocates nothing.
///
/// Only fatal signals interrupt a call that the supervisor has received
/// (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, Linux 5.19), if the kernel offers this.
pub(in crate::sandbox) fn load(program: &[libc::sock_filter]) -> rustix::io::Result<OwnedFd> {
    let killable = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    match load_with(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | killable) {
        Err(Errno::INVAL) => load_with(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER),
        loaded => loaded,
    }
}

fn load_with(program: &[libc::sock_filter], flags: libc::c_ulong) -> rustix::io::Result<OwnedFd> {
    let len = u16::try_from(program.len()).map_err(|_error| Errno::TOOBIG)?;
    let header = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `header` and the `len` instructions that it points to outlive the call; the kernel
    // copies the program and does not write to it.
    let made = super::checked(unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const header)
    })?;
    let number = i32::try_from(made).map_err(|_error| Errno::BADF)?;
    // SAFETY: the kernel has just created this descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Prevents the calling thread and its future children from gaining rights by execve(2). prctl(2),
/// `PR_SET_NO_NEW_PRIVS`. Allocates nothing.
pub(in crate::sandbox) fn set_no_new_privs() -> rustix::io::Result<()> {
    // SAFETY: integers only.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    super::checked(result.into()).map(drop)
}

/// Asks for the faster way of waking the supervisor. Older kernels do not know it.
pub(in crate::sandbox) fn prefer_sync_wake_up(listener: BorrowedFd<'_>) {
    // SAFETY: the kernel takes this request's argument as an integer.
    let _best_effort = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP)
    };
}

/// Receives the next call.
///
/// # Errors
/// `NOENT` if the caller was killed meanwhile, `INTR` if a signal arrived.
pub(in crate::sandbox) fn receive(listener: BorrowedFd<'_>) -> rustix::io::Result<Notification> {
    // SAFETY: a structure of integers, which may all be zero.
    let mut received: libc::seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: `received` is a writable structure of the kernel's type, zeroed as it requires.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut received)
    };
    super::checked(result.into())?;
    let libc::seccomp_notif { id, pid, data, .. } = received;
    Ok(Notification { id, pid, number: data.nr, arch: data.arch, args: data.args })
}

/// Answers a call with a result.
pub(in crate::sandbox) fn respond(
    listener: BorrowedFd<'_>,
    id: u64,
    result: Result<i64, Errno>,
) -> rustix::io::Result<()> {
    let (val, error) = match result {
        Ok(value) => (value, 0),
        Err(errno) => (0, errno.raw_os_error().saturating_neg()),
    };
    send(listener, libc::seccomp_notif_resp { id, val, error, flags: 0 })
}

/// `ERESTARTNOINTR` of the kernel's `linux/errno.h`: the call starts again.
const RESTART: i32 = -513;

/// Answers a call so that it starts again, once a tracer has changed its registers.
pub(in crate::sandbox) fn restart(listener: BorrowedFd<'_>, id: u64) -> rustix::io::Result<()> {
    send(listener, libc::seccomp_notif_resp { id, val: 0, error: RESTART, flags: 0 })
}

/// Lets the kernel execute a call.
pub(in crate::sandbox) fn proceed(listener: BorrowedFd<'_>, id: u64) -> rustix::io::Result<()> {
    let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1);
    send(listener, libc::seccomp_notif_resp { id, val: 0, error: 0, flags })
}

fn send(listener: BorrowedFd<'_>, response: libc::seccomp_notif_resp) -> rustix::io::Result<()> {
    // SAFETY: `response` is a structure of the kernel's type, which it only reads.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response)
    };
    super::checked(result.into()).map(drop)
}

/// Gives the caller of call `id` a copy of `file`, and returns its number there. With `answers`, the
/// number is also the result of the call, which then ends.
pub(in crate::sandbox) fn add_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    file: BorrowedFd<'_>,
    close_on_exec: bool,
    answers: bool,
) -> rustix::io::Result<i32> {
    let flags = if answers { libc::SECCOMP_ADDFD_FLAG_SEND } else { 0 };
    let added = libc::seccomp_notif_addfd {
        id,
        flags: u32::try_from(flags).unwrap_or_default(),
        srcfd: u32::try_from(file.as_raw_fd()).map_err(|_error| Errno::BADF)?,
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: `added` is a structure of the kernel's type, which it only reads.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const added)
    };
    let number = super::checked(result.into())?;
    i32::try_from(number).map_err(|_error| Errno::BADF)
}
