//! Executes the launcher in the child (execveat(2)).

use std::ffi::{CString, c_char};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

/// Strings in the representation that execve(2) takes: an array of pointers that ends with a null
/// pointer.
#[derive(Debug)]
pub(in crate::sandbox) struct StringArray {
    /// The strings that `pointers` points into; never changed after construction.
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl StringArray {
    /// Builds the array from the strings, in order.
    pub(in crate::sandbox) fn new(strings: Vec<CString>) -> Self {
        let ends = std::iter::once(ptr::null());
        let pointers = strings.iter().map(|string| string.as_ptr()).chain(ends).collect();
        Self { strings, pointers }
    }
}

/// Executes the program at `path`; returns only if that failed. execve(2). Allocates nothing.
pub(in crate::sandbox) fn execve(
    path: &std::ffi::CStr,
    arguments: &StringArray,
    environment: &StringArray,
) -> Errno {
    // SAFETY: both arrays end with a null pointer, and their other pointers point into strings that the
    // same value owns and never changes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execve,
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    super::checked(result).err().unwrap_or(Errno::INVAL)
}

/// Executes `program`; returns only if that failed. execveat(2) with `AT_EMPTY_PATH`, Linux 3.19.
/// Allocates nothing.
pub(in crate::sandbox) fn execveat(
    program: BorrowedFd<'_>,
    arguments: &StringArray,
    environment: &StringArray,
) -> Errno {
    debug_assert!(arguments.pointers.len() > arguments.strings.len());
    // SAFETY: the path is an empty C string; both arrays end with a null pointer, and their other
    // pointers point into strings that the same value owns and never changes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    match super::checked(result) {
        Err(errno) => errno,
        // Unreachable: a successful exec does not return.
        Ok(_) => Errno::INVAL,
    }
}
