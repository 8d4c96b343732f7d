//! C strings for the child, which must not allocate and so cannot make them itself.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::Errno;

use super::error::SandboxError;

/// Converts `text`; the error of an embedded null byte reads "cannot `action` `text`".
pub(super) fn named(action: &str, text: &OsStr) -> Result<CString, SandboxError> {
    CString::new(text.as_bytes()).map_err(|error| {
        SandboxError::setup(format!("{action} `{}`", text.display()), std::io::Error::from(error))
    })
}

/// Converts `text`; fails with `INVAL` on an embedded null byte.
pub(super) fn try_new(text: &(impl AsRef<OsStr> + ?Sized)) -> rustix::io::Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|_error| Errno::INVAL)
}
