//! The format number of a store, in its file `version`.
//!
//! The file of format 1 holds only the number. That of a later format must hold the number, a space
//! and the SHA-256 of the number: anything else is damage and not another format.

use std::io::Write as _;
use std::path::Path;

use crate::oci::Digest;
use crate::pathio::Context as _;

use super::{StoreError, private_files};

/// Format that this rbuild reads and writes.
const VERSION: &str = "1";

/// Maximum size of the file, bytes: it has one short line.
const MAX_VERSION_BYTES: u64 = 100;

/// Checks the format number of a store; a new store gets one.
///
/// # Errors
/// [`StoreError::Version`] for a later format, [`StoreError::DamagedVersion`], [`StoreError::Io`].
pub(super) fn check(root: &Path) -> Result<(), StoreError> {
    let path = root.join("version");
    match private_files::read_file(&path, MAX_VERSION_BYTES) {
        Ok(found) if found.trim_ascii() == VERSION.as_bytes() => Ok(()),
        Ok(found) => Err(match later(&found) {
            Some(found) => StoreError::Version { root: root.to_owned(), found, known: VERSION },
            None => StoreError::DamagedVersion { path },
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => write(root),
        Err(error) => Err(error.into()),
    }
}

/// Writes the format number and replaces an existing file.
pub(super) fn write(root: &Path) -> Result<(), StoreError> {
    let path = root.join("version");
    // The draft has a random name and is opened with O_EXCL: a link in its place is not followed.
    let tmp = root.join("tmp");
    let mut draft = tempfile::NamedTempFile::new_in(&tmp).context("create a file in", &tmp)?;
    writeln!(draft, "{VERSION}").context("write", &path)?;
    draft.persist(&path).map_err(|refused| refused.error).context("create", &path)?;
    Ok(())
}

/// Returns the number in the file of a later format; `None` if the file is damaged.
fn later(content: &[u8]) -> Option<String> {
    let (number, sum) = std::str::from_utf8(content).ok()?.trim().split_once(' ')?;
    (Digest::of(number.as_bytes()).hex() == sum).then(|| number.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_format_is_distinguished_from_damage() {
        let sum = Digest::of(b"2").hex();
        assert_eq!(later(format!("2 {sum}\n").as_bytes()).as_deref(), Some("2"));
        for damaged in ["3", "", "\0", "1J\n", "2\n", &format!("3 {sum}\n")] {
            assert_eq!(later(damaged.as_bytes()), None, "{damaged:?}");
        }
    }
}
