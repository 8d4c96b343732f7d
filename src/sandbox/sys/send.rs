//! Sends a descriptor to another process (unix(7), `SCM_RIGHTS`) at one known address of the program, so
//! that a filter can let this call through and trap all others (seccomp(2), `instruction_pointer`).

use std::arch::global_asm;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

use rustix::io::Errno;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.rbuild_sendmsg, \"ax\", @progbits",
    ".hidden rbuild_sendmsg",
    ".hidden rbuild_sendmsg_return",
    ".globl rbuild_sendmsg",
    ".globl rbuild_sendmsg_return",
    "rbuild_sendmsg:",
    "mov eax, 46",
    "syscall",
    "rbuild_sendmsg_return:",
    "ret",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.rbuild_sendmsg, \"ax\", @progbits",
    ".hidden rbuild_sendmsg",
    ".hidden rbuild_sendmsg_return",
    ".globl rbuild_sendmsg",
    ".globl rbuild_sendmsg_return",
    ".p2align 2",
    "rbuild_sendmsg:",
    "mov x8, #211",
    "svc #0",
    "rbuild_sendmsg_return:",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn rbuild_sendmsg(socket: RawFd, message: *const libc::msghdr, flags: libc::c_int) -> isize;
    static rbuild_sendmsg_return: u8;
}

/// Returns the address of the instruction after the call.
pub(in crate::sandbox) fn return_address() -> u64 {
    let address = &raw const rbuild_sendmsg_return;
    u64::try_from(address.addr()).unwrap_or(0)
}

/// The message's control data: a header and one descriptor.
#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    descriptor: RawFd,
}

/// Sends a copy of `descriptor` with one byte of data. Allocates nothing.
pub(in crate::sandbox) fn descriptor(
    socket: BorrowedFd<'_>,
    descriptor: BorrowedFd<'_>,
) -> rustix::io::Result<()> {
    // SAFETY: a structure of integers, which may all be zero.
    let mut rights: Rights = unsafe { mem::zeroed() };
    let len = mem::offset_of!(Rights, descriptor).saturating_add(size_of::<RawFd>());
    rights.header.cmsg_len = len;
    rights.header.cmsg_level = libc::SOL_SOCKET;
    rights.header.cmsg_type = libc::SCM_RIGHTS;
    rights.descriptor = descriptor.as_raw_fd();
    let mut data = *b".";
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: a structure of integers and pointers, which may all be zero.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = ((&raw mut rights).cast(), len);
    // SAFETY: the message and all that it points to outlive the call; the kernel only reads them.
    let sent = unsafe { rbuild_sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    match i32::try_from(sent) {
        Ok(1..) => Ok(()),
        Ok(error) => Err(Errno::from_raw_os_error(error.saturating_neg())),
        Err(_) => Err(Errno::IO),
    }
}
