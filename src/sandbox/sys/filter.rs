//! Loads a seccomp filter (seccomp(2)).

use rustix::io::Errno;

/// `SECCOMP_SET_MODE_FILTER` of `linux/seccomp.h`.
const SET_MODE_FILTER: libc::c_uint = 1;
const NO_FLAGS: libc::c_uint = 0;

/// Applies `program` to the calling thread and all its future children, irrevocably. seccomp(2),
/// Linux 3.17. Needs `CAP_SYS_ADMIN` in the user namespace. Allocates nothing.
pub(in crate::sandbox) fn load(program: &[libc::sock_filter]) -> rustix::io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_error| Errno::TOOBIG)?;
    let header = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `header` and the `len` instructions that it points to outlive the call; the kernel
    // copies the program and does not write to it.
    super::checked(unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, NO_FLAGS, &raw const header)
    })?;
    Ok(())
}
