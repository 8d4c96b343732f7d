//! Brings the loopback interface of a network namespace up.

use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Brings the interface `lo` of the current network namespace up; the kernel then assigns its
/// addresses (netdevice(7), `SIOCSIFFLAGS`). Allocates nothing.
pub(in crate::sandbox) fn loopback_up() -> rustix::io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: a struct of integers and a union of such, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo\0") {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: SIOCSIFFLAGS takes an `ifreq` with a name that ends with a null byte and the
    // flags, both set above.
    let result = unsafe {
        libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request)
    };
    super::checked(result)?;
    Ok(())
}

/// `IFF_UP` of `linux/if.h`, in the width of the field.
const UP: libc::c_short = 1;
