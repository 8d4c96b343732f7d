//! Paths of OCI layouts as the store records them.

use std::path::Path;

use crate::executor::BuildError;
use crate::pathio::PathError;

/// Returns the path of a layout as the store records it.
pub(in crate::executor) fn absolute(directory: &Path) -> Result<String, BuildError> {
    let path = std::path::absolute(directory)
        .map_err(|error| PathError::new("find the directory", directory, error))?;
    Ok(path.to_string_lossy().into_owned())
}
