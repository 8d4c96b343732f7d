//! The system calls that rustix does not offer: the only unsafe code of rbuild.
//!
//! Each function is one operation with a safe face. What runs between clone and exec allocates
//! nothing, takes no lock and cannot panic; such functions say so.
#![allow(unsafe_code, reason = "rustix has no safe form of the calls that live here")]

pub(super) mod clone;
pub(super) mod descriptors;
pub(super) mod exec;
pub(super) mod filter;
pub(super) mod fork;
pub(super) mod identity;
pub(super) mod landlock;
pub(super) mod launcher;
pub(super) mod mount;
pub(super) mod net;
pub(super) mod signal;

use rustix::io::Errno;

/// Turns the result of `libc::syscall` into the kernel's answer; allocates nothing.
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
