//! Replaces the child by the step's command.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use rustix::io::Errno;

/// Strings in the form that execve takes: an array of pointers with a null at its end.
#[derive(Debug)]
pub(in crate::sandbox) struct StringArray {
    /// What `pointers` points into; never changed after construction.
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl StringArray {
    /// Takes the strings, in order.
    pub(in crate::sandbox) fn new(strings: Vec<CString>) -> Self {
        let ends = std::iter::once(ptr::null());
        let pointers = strings.iter().map(|string| string.as_ptr()).chain(ends).collect();
        Self { strings, pointers }
    }
}

/// Executes `path`; returns only when that failed. execve(2). Allocates nothing.
pub(in crate::sandbox) fn execve(
    path: &CStr,
    arguments: &StringArray,
    environment: &StringArray,
) -> Errno {
    debug_assert!(arguments.pointers.len() > arguments.strings.len());
    // SAFETY: `path` ends with a null byte; both arrays end with a null pointer, and their other
    // pointers point into strings that the same value owns and never changes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execve,
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    match super::checked(result) {
        Err(errno) => errno,
        // It cannot be: success does not return.
        Ok(_) => Errno::INVAL,
    }
}
