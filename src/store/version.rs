//! The store's format number.

use std::io::Write as _;
use std::path::Path;

use crate::pathio::Context as _;

use super::{StoreError, guard};

/// What this rbuild reads and writes.
const VERSION: &str = "1";

/// The file has one short line.
const MAX_VERSION_BYTES: u64 = 100;

/// Checks the format number, and writes it into a new store.
pub(super) fn check(root: &Path) -> Result<(), StoreError> {
    let path = root.join("version");
    match guard::read_file(&path, MAX_VERSION_BYTES) {
        Ok(found) if found.trim_ascii() == VERSION.as_bytes() => Ok(()),
        Ok(found) => {
            let found = String::from_utf8_lossy(&found).trim().to_owned();
            Err(StoreError::Version { root: root.to_owned(), found, known: VERSION })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // The draft's name is random, and it is not opened if it is there.
            let tmp = root.join("tmp");
            let mut draft =
                tempfile::NamedTempFile::new_in(&tmp).context("create a file in", &tmp)?;
            writeln!(draft, "{VERSION}").context("write", &path)?;
            draft.persist(&path).map_err(|refused| refused.error).context("create", &path)?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
