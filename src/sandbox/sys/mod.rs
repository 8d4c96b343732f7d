//! The system calls, and functions of the C library, that rustix does not offer: the only unsafe code of rbuild.
//!
//! Each function is one operation with a safe interface. Functions that run between clone and exec
//! allocate nothing, take no lock and cannot panic; their documentation says so (signal-safety(7)).
#![allow(unsafe_code, reason = "rustix has no safe interface for these calls")]

pub(super) mod allocator;
pub(super) mod clone;
pub(super) mod descriptors;
pub(super) mod exec;
pub(super) mod filter;
pub(super) mod fork;
pub(super) mod identity;
pub(super) mod landlock;
pub(super) mod launcher;
pub(super) mod loader;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
pub(super) mod loader_trial;
pub(super) mod memory;
pub(super) mod mount;
pub(super) mod net;
pub(super) mod notify;
pub(super) mod process;
pub(super) mod send;
pub(super) mod signal;
pub(super) mod trace;

use rustix::io::Errno;

/// Converts the result of `libc::syscall`; allocates nothing.
fn checked(result: libc::c_long) -> rustix::io::Result<libc::c_long> {
    if result == -1 {
        // SAFETY: takes nothing and only computes an address.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: it is the address of this thread's own `errno`, valid as long as the thread.
        let code = unsafe { *errno };
        return Err(Errno::from_raw_os_error(code));
    }
    Ok(result)
}
