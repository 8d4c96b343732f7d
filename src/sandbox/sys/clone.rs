//! Starts the child that becomes a step's pid 1 (clone(2)).

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// Exits the child at once if a panic unwinds out of it: below are its parent's stack frames.
struct EndOnUnwind;

impl Drop for EndOnUnwind {
    fn drop(&mut self) {
        exit_now(UNWOUND);
    }
}

/// The exit code of a child whose code panicked, which it must not.
const UNWOUND: i32 = 255;

/// The size of the child's stack, which is in its parent's stack frame; the child's calls do not
/// nest deeply.
const STACK_BYTES: usize = 128 << 10;

/// The child's stack, aligned as every ABI requires.
#[repr(align(16))]
struct Stack(MaybeUninit<[u8; STACK_BYTES]>);

/// A child process.
#[derive(Debug)]
pub(in crate::sandbox) struct Child {
    pub(in crate::sandbox) pid: Pid,
    pub(in crate::sandbox) pidfd: OwnedFd,
}

/// Starts a child in the new namespaces `flags` (of `CLONE_NEW*`) that runs `body`. Returns it
/// once the child has executed a program or ended. clone(2) with `CLONE_PIDFD`, Linux 5.2.
///
/// The child shares the memory of the calling thread, which sleeps until then (`CLONE_VM` and
/// `CLONE_VFORK`). This avoids copying rbuild's page tables, a fifth of the cost of a step. Other
/// threads continue, and locks that they hold may never be released for the child. `body` must
/// therefore only make raw system calls, and change no memory that other threads read.
pub(in crate::sandbox) fn clone_step(flags: u64, body: &dyn Fn()) -> rustix::io::Result<Child> {
    let flags = i32::try_from(flags).map_err(|_error| Errno::INVAL)?;
    let flags = flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: RawFd = -1;
    let mut stack = Stack(MaybeUninit::uninit());
    let top = stack.0.as_mut_ptr().wrapping_add(1).cast::<c_void>();
    let body: *const &dyn Fn() = &raw const body;
    // SAFETY: `top` is the end of a live buffer, aligned to 16 bytes, that nothing else uses; it,
    // `body` and `pidfd` outlive the child's use of them, since this thread sleeps until the child
    // has a memory of its own or is gone. `start` does not return. The handlers of this program
    // cannot run in the child: the caller has blocked all signals.
    let made = unsafe { libc::clone(start, top, flags, body.cast_mut().cast(), &raw mut pidfd) };
    super::checked(made.into())?;
    let pid = Pid::from_raw(made).ok_or(Errno::SRCH)?;
    // SAFETY: the kernel has stored a new descriptor there, which nothing else owns.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Starts a child with a copy of the calling process's memory that runs `body`; returns its pidfd.
/// clone(2) with `CLONE_PIDFD`, Linux 5.2.
///
/// Locks that other threads hold may never be released in the child: `body` must only make raw system
/// calls. The caller has blocked all signals.
pub(in crate::sandbox) fn fork_step(body: &dyn Fn()) -> rustix::io::Result<OwnedFd> {
    let mut pidfd: RawFd = -1;
    let no_stack = std::ptr::null_mut::<c_void>();
    // SAFETY: without `CLONE_VM` the child has its own copy of all memory, this stack frame included;
    // the kernel writes the descriptor to `pidfd`, which outlives the call.
    let made = super::checked(unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::CLONE_PIDFD | libc::SIGCHLD,
            no_stack,
            &raw mut pidfd,
            no_stack,
            no_stack,
        )
    })?;
    if made == 0 {
        let _guard = EndOnUnwind;
        body();
        exit_now(UNWOUND);
    }
    // SAFETY: the kernel has stored a new descriptor there, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// The entry function of the child.
extern "C" fn start(body: *mut c_void) -> i32 {
    let _guard = EndOnUnwind;
    // SAFETY: `clone_step` passes a pointer to a reference that lives as long as the child needs.
    let body = unsafe { *body.cast::<&dyn Fn()>() };
    body();
    exit_now(UNWOUND);
}

/// Exits the calling process without running exit handlers. exit_group(2), by `_exit` of the C
/// library.
pub(in crate::sandbox) fn exit_now(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(code) }
}
