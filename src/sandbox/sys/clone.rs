//! Starts the child that becomes a step's pid 1.

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;

/// Ends the child at once if something unwinds out of it: its stack is a copy of the parent's.
struct EndOnUnwind;

impl Drop for EndOnUnwind {
    fn drop(&mut self) {
        exit_now(UNWOUND);
    }
}

/// The exit code of a child whose code panicked, which it must not.
const UNWOUND: i32 = 255;

/// Makes a child in the new namespaces `flags` (of `CLONE_NEW*`) that runs `body`; returns its
/// pidfd. clone3(2), Linux 5.3.
///
/// The child is a copy of the calling thread alone, as after fork: other threads' locks stay
/// locked for ever in it. `body` must therefore only make raw system calls.
pub(in crate::sandbox) fn clone_step(flags: u64, body: &dyn Fn()) -> rustix::io::Result<OwnedFd> {
    let mut pidfd: RawFd = -1;
    // SAFETY: a struct of integers, for which zero means "not used".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | CLONE_PIDFD;
    arguments.pidfd =
        u64::try_from((&raw mut pidfd).expose_provenance()).map_err(|_error| Errno::OVERFLOW)?;
    arguments.exit_signal = SIGCHLD;
    // SAFETY: `arguments` is as large as said and outlives the call, its `pidfd` points to a
    // live integer. Without CLONE_VM and with no stack the child gets a copy of this stack, so
    // that both may go on with their own locals.
    let pid = super::checked(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        let _guard = EndOnUnwind;
        body();
        exit_now(UNWOUND);
    }
    // SAFETY: the kernel has stored a new descriptor there, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// `CLONE_PIDFD` of `linux/sched.h`, in the width of clone3's field.
const CLONE_PIDFD: u64 = 0x1000;
/// The signal that the parent gets, as after fork. 17 on all architectures that rbuild knows.
const SIGCHLD: u64 = 17;

/// Ends the calling process without running any exit handler. `exit_group`(2).
pub(in crate::sandbox) fn exit_now(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(code) }
}
