//! System calls for tests of the loader: a filter that traps its call, and the supervisor's side
//! (seccomp_unotify(2)). No error is handled: they end the test.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::loader::CALL;

/// The number of the listener in the child, which keeps it open over exec.
const LISTENER: RawFd = 200;

/// Starts a command whose loader call is trapped. Returns the listener too.
pub(in crate::sandbox) fn spawn(command: &mut Command) -> io::Result<(Child, OwnedFd)> {
    // SAFETY: `trap` only makes system calls.
    unsafe { command.pre_exec(trap) };
    let mut child = command.spawn()?;
    match listener_of(&child) {
        Ok(listener) => Ok((child, listener)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error)
        }
    }
}

fn listener_of(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(rustix::process::pidfd_getfd(&pidfd, LISTENER, PidfdGetfdFlags::empty())?)
}

fn trap() -> io::Result<()> {
    let filter = [
        libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: CALL },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    rustix::thread::set_no_new_privs(true)?;
    let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // SAFETY: `program` and its four instructions outlive the call, which does not change them.
    let listener = super::checked(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })?;
    // SAFETY: two integers. The number is not in use: this is the child of a test.
    super::checked(unsafe { libc::syscall(libc::SYS_dup2, listener, LISTENER) })?;
    Ok(())
}

/// Returns the next trapped call; `None` if there is none within ten seconds.
pub(in crate::sandbox) fn receive(listener: BorrowedFd<'_>) -> Option<libc::seccomp_notif> {
    let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut ready = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ready, Some(&timeout)).unwrap();
    if !ready[0].revents().contains(rustix::event::PollFlags::IN) {
        return None;
    }
    // SAFETY: a struct of integers.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    control(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification).ok()?;
    Some(notification)
}

/// Answers the call with notification `id`.
pub(in crate::sandbox) fn send(listener: BorrowedFd<'_>, id: u64, val: i64) -> io::Result<()> {
    let mut response = libc::seccomp_notif_resp { id, val, error: 0, flags: 0 };
    control(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response).map(|_zero| ())
}

/// Duplicates `file` into the process of notification `id`; returns its number there.
pub(in crate::sandbox) fn add(listener: BorrowedFd<'_>, id: u64, file: &OwnedFd) -> u32 {
    let srcfd = u32::try_from(file.as_fd().as_raw_fd()).unwrap();
    let mut added = libc::seccomp_notif_addfd { id, flags: 0, srcfd, newfd: 0, newfd_flags: 0 };
    let number = control(listener, libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut added).unwrap();
    u32::try_from(number).unwrap()
}

fn control<T>(listener: BorrowedFd<'_>, request: libc::Ioctl, value: *mut T) -> io::Result<i64> {
    // SAFETY: each caller passes the struct that its request reads and writes.
    let result = super::checked(unsafe {
        libc::syscall(libc::SYS_ioctl, listener.as_raw_fd(), request, value)
    })?;
    Ok(result)
}

/// Reads a process's memory. process_vm_readv(2).
pub(in crate::sandbox) fn read(pid: u32, at: u64, bytes: &mut [u8]) -> rustix::io::Result<usize> {
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    transfer(libc::SYS_process_vm_readv, pid, at, local)
}

/// Writes a process's memory. process_vm_writev(2).
pub(in crate::sandbox) fn write(pid: u32, at: u64, bytes: &[u8]) -> rustix::io::Result<usize> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    transfer(libc::SYS_process_vm_writev, pid, at, local)
}

fn transfer(
    number: libc::c_long,
    pid: u32,
    at: u64,
    local: libc::iovec,
) -> rustix::io::Result<usize> {
    let address = std::ptr::without_provenance_mut(usize::try_from(at).unwrap());
    let remote = libc::iovec { iov_base: address, iov_len: local.iov_len };
    let (one, no_flags) = (1_usize, 0_usize);
    // SAFETY: `local` is a live buffer of that length; the kernel checks `remote`.
    let len = super::checked(unsafe {
        libc::syscall(number, pid, &raw const local, one, &raw const remote, one, no_flags)
    })?;
    Ok(usize::try_from(len).unwrap())
}
