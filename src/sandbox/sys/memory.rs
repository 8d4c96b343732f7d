//! The memory of another process (process_vm_readv(2), Linux 3.2).

use rustix::io::Errno;
use rustix::process::Pid;

/// Reads from `address` of the process into `buffer`. Returns the number of bytes; fewer than asked
/// for if the memory ends.
pub(in crate::sandbox) fn read(
    pid: Pid,
    address: u64,
    buffer: &mut [u8],
) -> rustix::io::Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = remote(address, buffer.len())?;
    // SAFETY: `local` describes `buffer`, which the kernel may write to; the other address is only
    // looked up in the other process.
    let result = unsafe {
        libc::process_vm_readv(
            pid.as_raw_nonzero().get(),
            &raw const local,
            1,
            &raw const remote,
            1,
            0,
        )
    };
    count(result)
}

/// Writes `bytes` at `address` of the process. Returns the number of bytes written.
pub(in crate::sandbox) fn write(pid: Pid, address: u64, bytes: &[u8]) -> rustix::io::Result<usize> {
    let base = bytes.as_ptr().cast_mut().cast();
    let local = libc::iovec { iov_base: base, iov_len: bytes.len() };
    let remote = remote(address, bytes.len())?;
    // SAFETY: `local` describes `bytes`, which the kernel only reads; the other address is only
    // looked up in the other process.
    let result = unsafe {
        libc::process_vm_writev(
            pid.as_raw_nonzero().get(),
            &raw const local,
            1,
            &raw const remote,
            1,
            0,
        )
    };
    count(result)
}

fn remote(address: u64, len: usize) -> rustix::io::Result<libc::iovec> {
    let address = usize::try_from(address).map_err(|_error| Errno::FAULT)?;
    Ok(libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: len })
}

fn count(result: isize) -> rustix::io::Result<usize> {
    let checked = super::checked(libc::c_long::try_from(result).unwrap_or(-1))?;
    usize::try_from(checked).map_err(|_error| Errno::FAULT)
}
