//! The store's format number.

use std::path::Path;

use crate::pathio;

use super::StoreError;

/// What this rbuild reads and writes.
const VERSION: &str = "1";

/// The file has one short line.
const MAX_VERSION_BYTES: u64 = 100;

/// Checks the format number, and writes it into a new store.
pub(super) fn check(root: &Path) -> Result<(), StoreError> {
    let path = root.join("version");
    match pathio::read_to_string(&path, MAX_VERSION_BYTES) {
        Ok(found) if found.trim() == VERSION => Ok(()),
        Ok(found) => {
            let found = found.trim().to_owned();
            Err(StoreError::Version { root: root.to_owned(), found, known: VERSION })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let draft = root.join(format!("tmp/version.{}", std::process::id()));
            pathio::write(&draft, format!("{VERSION}\n").as_bytes())?;
            Ok(pathio::rename(&draft, &path)?)
        }
        Err(error) => Err(error.into()),
    }
}
