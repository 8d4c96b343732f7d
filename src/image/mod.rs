//! Where images come from and go to: layouts, archives, folders.

/// Why an image could not be written out.
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ExportError;
